/**
 * The command line without the process around it (main.ts). A command's module is loaded when it is named; help and
 * unknown commands load them all, which loads no libtorch.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import yargs, { type CommandModule } from 'yargs';
import { TroupeError } from '../config/errors.js';
import { fileError } from '../config/files.js';
import { packageRoot } from '../config/package.js';

/** yargs' type of a command with whatever arguments. */
type AnyCommand = CommandModule<object, never>;
const command = <Arguments>(module: CommandModule<object, Arguments>) => module as unknown as AnyCommand;

const COMMANDS: Record<string, () => Promise<AnyCommand>> = {
  train: async () => command((await import('./train.js')).trainCommand),
  eval: async () => command((await import('./eval.js')).evalCommand),
  play: async () => command((await import('./play.js')).playCommand),
  sft: async () => command((await import('./sft.js')).sftCommand),
  generate: async () => command((await import('./generate.js')).generateCommand),
  score: async () => command((await import('./score.js')).scoreCommand),
  gradients: async () => command((await import('./gradients.js')).gradientsCommand),
  study: async () => command((await import('./study.js')).studyCommand),
  report: async () => command((await import('./report.js')).reportCommand),
  serve: async () => command((await import('./serve.js')).serveCommand),
  watch: async () => command((await import('./watch.js')).watchCommand),
  alarms: async () => command((await import('./alarms.js')).alarmsCommand),
  tail: async () => command((await import('./tail.js')).tailCommand),
  export: async () => command((await import('./export.js')).exportCommand),
  init: async () => command((await import('./init.js')).initCommand),
  import: async () => command((await import('./import.js')).importCommand),
  grade: async () => command((await import('./grade.js')).gradeCommand),
  plan: async () => command((await import('./plan.js')).planCommand),
  config: async () => command((await import('./config.js')).configCommand),
  doctor: async () => command((await import('./doctor.js')).doctorCommand),
};

/** A wrong command line: exit code 2. */
class UsageError extends Error {}

/** What yargs says of missing positional arguments, and what this program says. */
const TOO_FEW = 'Not enough non-option arguments: got %s, need at least %s';
const TOO_FEW_HERE = 'Arguments are missing: got %s, need at least %s.';

/** Runs a command. What goes wrong is printed and is `process.exitCode`: 0, 1 for an error, 2 for wrong usage. */
export async function runCommandLine(args: readonly string[]): Promise<void> {
  await run(args).catch((error) => report(error, args));
}

async function run(args: readonly string[]): Promise<void> {
  const [named = ''] = args;
  const load = Object.hasOwn(COMMANDS, named) ? COMMANDS[named] : undefined;
  const commands = load === undefined ? Object.values(COMMANDS) : [load];
  const parser = yargs(args)
    .scriptName('troupe')
    .version(JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')).version)
    .demandCommand(1, 'Which command?')
    .strict()
    .recommendCommands()
    .wrap(Math.min(110, process.stdout.columns ?? 110))
    .exitProcess(false)
    .updateStrings({ [TOO_FEW]: { one: TOO_FEW_HERE, other: TOO_FEW_HERE } as never })
    .fail((message: string | null, error) => {
      // A message comes with what is wrong about the command line, an error alone from a command's own work.
      throw message === null ? error : new UsageError(message);
    });
  for (const one of commands) parser.command(await one());
  await parser.parseAsync();
}

/** Of the limits that a person sets, met wherever the program happens to open a file. */
const TOO_MANY = /^E[MN]FILE$/;

/** Prints an error as the command line does, and sets the exit code. */
export function report(error: unknown, args: readonly string[]): void {
  if (error instanceof UsageError) {
    const [named = ''] = args;
    const command = Object.hasOwn(COMMANDS, named) ? named : 'COMMAND';
    const help = command === 'COMMAND' ? 'troupe --help, troupe COMMAND --help' : `troupe ${command} --help`;
    console.error(`${error.message}\nSee: ${help}`);
    process.exitCode = 2;
    return;
  }
  // What people can act on stands in the message; anything else is a fault of this program, found by its stack.
  const said = TOO_MANY.test(String((error as NodeJS.ErrnoException).code))
    ? fileError(error, String((error as NodeJS.ErrnoException).path ?? 'this process'))
    : error;
  const readable = said instanceof TroupeError;
  console.error(readable ? `troupe: ${said.message}` : said);
  process.exitCode = 1;
}
