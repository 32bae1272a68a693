#!/usr/bin/env node
/**
 * Entry of the command line. A command's module is loaded when it is named; help and unknown commands load them
 * all, which loads no libtorch. Exit codes: 0, 1 for an error, 2 for wrong usage.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import yargs, { type CommandModule } from 'yargs';
import { hideBin } from 'yargs/helpers';
import { TroupeError } from '../config/errors.js';
import { packageRoot } from '../config/package.js';
import { exitProcess, refuseExit, userFiles, watchStray } from '../config/user-code.js';

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

async function run(args: string[]): Promise<void> {
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

function report(error: unknown): void {
  if (error instanceof UsageError) {
    const [named = ''] = hideBin(process.argv);
    const command = Object.hasOwn(COMMANDS, named) ? named : 'COMMAND';
    const help = command === 'COMMAND' ? 'troupe --help, troupe COMMAND --help' : `troupe ${command} --help`;
    console.error(`${error.message}\nSee: ${help}`);
    process.exitCode = 2;
    return;
  }
  // What people can act on stands in the message; anything else is a fault of this program, found by its stack.
  const readable = error instanceof TroupeError;
  console.error(readable ? `troupe: ${error.message}` : error);
  process.exitCode = 1;
}

// `troupe … | head` closes the pipe, a closed terminal both: that is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') exitProcess(0);
  if (error.code !== 'EIO') throw error;
});
process.stderr.on('error', () => {});

refuseExit();
watchStray((error) => {
  report(error);
  exitProcess(1);
});
await run(hideBin(process.argv)).catch(report);
endWithUserFiles();

/** A timer or a socket that a user's file left open must not keep the process. */
function endWithUserFiles(): void {
  if (userFiles().length === 0) return;
  const end = () => {
    if (!process.exitCode) console.error(`${userFiles().join(', ')}: left something running; it was ended.`);
    exitProcess();
  };
  // Unreferenced: it comes only if something else keeps the process.
  setTimeout(end, 500).unref();
}
