/** The command line without the process around it (main.ts). */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import yargs, { type Argv, type CommandModule } from 'yargs';
import { Parser } from 'yargs/helpers';
import { TroupeError } from '../config/errors.js';
import { fileError } from '../config/files.js';
import { ownValue } from '../config/own-value.js';
import { packageRoot } from '../config/package.js';
import { printable } from '../config/thrown.js';
import { COMMANDS } from './commands.js';

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
  const parser = yargs(args)
    .scriptName('troupe')
    .version(JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')).version)
    .demandCommand(1, 'Which command?')
    .strict()
    .strictCommands()
    .recommendCommands()
    .wrap(Math.min(110, process.stdout.columns ?? 110))
    .exitProcess(false)
    .updateStrings({ [TOO_FEW]: { one: TOO_FEW_HERE, other: TOO_FEW_HERE } as never })
    .fail((message: string | null, error) => {
      // A message comes with what is wrong about the command line, an error alone from a command's own work.
      throw message === null ? error : new UsageError(message);
    });
  await addCommands(parser, args);
  await parser.parseAsync();
}

/** The command that is named, or what is said of all of them; where options stand before it, yargs finds it. */
async function addCommands(parser: Argv, args: readonly string[]): Promise<void> {
  const command = ownValue(COMMANDS, args[0] ?? '');
  if (command !== undefined) {
    const { builder, handler } = await command.load();
    const now: CommandModule<object, never> = {
      command: command.usage,
      describe: command.describe,
      builder: (yargs) => strictly(builder(yargs), command.usage, args),
      handler,
    };
    parser.command(now);
    return;
  }
  for (const { usage, describe, load } of Object.values(COMMANDS)) {
    const later: CommandModule<object, never> = {
      command: usage,
      describe,
      builder: async (yargs) => strictly((await load()).builder(yargs), usage, args),
      handler: async (args) => (await load()).handler(args),
    };
    parser.command(later);
  }
}

/** What yargs has been told of options and positional arguments, by their names. */
interface Known {
  key: Record<string, unknown>;
  alias: Record<string, string[]>;
  narg: Record<string, number>;
  array: string[];
  string: string[];
  number: string[];
}

/** The one option whose text may be empty; others name something, a file or a folder for the most part. */
const MAY_BE_EMPTY = 'prompt';

/**
 * Refuses what yargs lets through: an option without its value; one that is given twice though it takes one, of which
 * yargs makes a list; an empty argument, which as a path would be the working directory; a word for a number, which yargs
 * makes NaN.
 */
function strictly(yargs: Argv<never>, usage: string, args: readonly string[]): Argv<never> {
  const { key, alias, narg, array, string, number } = (
    yargs as unknown as { getOptions(): Known }
  ).getOptions();
  const single = Object.keys(key).filter((name) => !array.includes(name) && !usage.includes(`${name}..`));
  const named = (name: string) => (usage.match(/\w+/g)?.slice(1).includes(name) ? name : `--${name}`);
  return yargs.requiresArg([...string, ...number]).check((parsed: Record<string, unknown>) => {
    const twice = single.find((name) => Array.isArray(parsed[name]));
    if (twice !== undefined) throw new Error(`--${twice} is given more than once.`);
    // Numbers as they are written: an empty one would be 0.
    const written: Record<string, unknown> = Parser([...args], { alias, narg, array, string: number });
    const values = { ...parsed, ...written };
    const isEmpty = (name: string) => name !== MAY_BE_EMPTY && [values[name]].flat().includes('');
    const empty = [...string, ...number].find(isEmpty);
    if (empty !== undefined) throw new Error(`${named(empty)} is empty.`);
    for (const name of number) {
      const word = [values[name] ?? []].flat().find((value) => Number.isNaN(Number(value)));
      if (word !== undefined) throw new Error(`${named(name)} is "${word}"; it takes a number.`);
    }
    return true;
  });
}

/** What a person sets right, met wherever the program happens to open or write a file. */
const OUTSIDE = /^E(MFILE|NFILE|NOSPC|DQUOT|ROFS|ACCES)$/;

/** Errors of the machine in words; `path` is missing where it is a stream that was written. */
function inWords(error: unknown): unknown {
  const { code, path, syscall } = error as NodeJS.ErrnoException;
  if (!OUTSIDE.test(String(code))) return error;
  return fileError(error, path ?? (syscall === 'write' ? 'standard output' : 'this process'));
}

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
  const said = inWords(error);
  const readable = said instanceof TroupeError;
  // It may repeat what models and data say.
  console.error(readable ? printable(`troupe: ${said.message}`) : said);
  process.exitCode = 1;
}
