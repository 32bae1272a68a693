/**
 * The commands by name. What the help says of them stands here, so that it loads none of their code: a command's module is
 * loaded when it is named.
 */
import type { ArgumentsCamelCase, Argv, CommandModule } from 'yargs';

/** What a command's module has: its options and its work, with whatever arguments. */
export interface Work {
  builder(yargs: Argv): Argv<never>;
  handler(args: ArgumentsCamelCase<never>): void | Promise<void>;
}

export interface Command {
  /** Its name and positional arguments, as yargs reads them. */
  usage: string;
  describe: string;
  load(): Promise<Work>;
}

/** Forgets the types of a command's own arguments, which its builder has made sure of. */
const work = <Arguments>(module: CommandModule<object, Arguments>) => module as unknown as Work;

export const COMMANDS: Readonly<Record<string, Command>> = {
  train: {
    usage: 'train [config]',
    describe: 'Train the roles of a workflow; without arguments, the default run',
    load: async () => work((await import('./train.js')).trainCommand),
  },
  eval: {
    usage: 'eval [target]',
    describe: 'Accuracy, pass@k and majority@k of a workflow on held-out problems',
    load: async () => work((await import('./eval.js')).evalCommand),
  },
  play: {
    usage: 'play [config]',
    describe: 'One episode of a workflow on the screen',
    load: async () => work((await import('./play.js')).playCommand),
  },
  sft: {
    usage: 'sft <config>',
    describe: 'Supervised start: teaches a model the roles of workflows',
    load: async () => work((await import('./sft.js')).sftCommand),
  },
  generate: {
    usage: 'generate <model>',
    describe: 'Samples of a prompt',
    load: async () => work((await import('./generate.js')).generateCommand),
  },
  score: {
    usage: 'score <model>',
    describe: 'Log-probabilities of given text or token ids',
    load: async () => work((await import('./score.js')).scoreCommand),
  },
  gradients: {
    usage: 'gradients <model>',
    describe: 'Role gradients of recorded calls: norms and Gram matrix',
    load: async () => work((await import('./gradients.js')).gradientsCommand),
  },
  study: {
    usage: 'study <matrix>',
    describe: 'Train every combination of workflow, sharing, model, task and seed, and compare them',
    load: async () => work((await import('./study.js')).studyCommand),
  },
  report: {
    usage: 'report <runs..>',
    describe: 'Runs or a study as one HTML file',
    load: async () => work((await import('./report.js')).reportCommand),
  },
  serve: {
    usage: 'serve <target>',
    describe: 'The roles of a run, or a model, over the OpenAI API on this machine only',
    load: async () => work((await import('./serve.js')).serveCommand),
  },
  watch: {
    usage: 'watch <run>',
    describe: 'A run live in a browser, and its tables over HTTP, on this machine only',
    load: async () => work((await import('./watch.js')).watchCommand),
  },
  alarms: {
    usage: 'alarms <runs..>',
    describe: 'Cliffs, labels and alarms of runs, and how often alarms were false',
    load: async () => work((await import('./alarms.js')).alarmsCommand),
  },
  tail: {
    usage: 'tail <run>',
    describe: 'A stream of a run on standard output',
    load: async () => work((await import('./tail.js')).tailCommand),
  },
  export: {
    usage: 'export <run>',
    describe: 'Write a policy of a run as an adapter or a model, or its streams as Parquet files',
    load: async () => work((await import('./export.js')).exportCommand),
  },
  init: {
    usage: 'init <folder>',
    describe: 'Write a random-weight model of a published shape',
    load: async () => work((await import('./init.js')).initCommand),
  },
  import: {
    usage: 'import <model> <folder>',
    describe: 'Convert a GGUF model (llama, qwen3) into a Hugging Face folder',
    load: async () => work((await import('./import.js')).importCommand),
  },
  grade: {
    usage: 'grade <file>',
    describe: 'Grade answers: JSON lines {"response": text, "row": {a data row}}',
    load: async () => work((await import('./grade.js')).gradeCommand),
  },
  plan: {
    usage: 'plan [config]',
    describe: 'Memory and time of one step on a device, and what bounds it, without running it',
    load: async () => work((await import('./plan.js')).planCommand),
  },
  config: {
    usage: 'config [file]',
    describe: 'Check a configuration and print it with every default filled in',
    load: async () => work((await import('./config.js')).configCommand),
  },
  doctor: {
    usage: 'doctor',
    describe: 'Print what Troupe found on this machine and what is missing',
    load: async () => work((await import('./doctor.js')).doctorCommand),
  },
};
