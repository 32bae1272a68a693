/**
 * What keeps a user's file (workflow, task, reward, loss) from ending the program without a word: it may exit, reject
 * a promise that nobody waits for, throw in a timer, print where results go, or promise what never comes. Each
 * becomes an error with the file's name in it, which whoever runs the file treats like any other.
 */
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { inspect } from 'node:util';
import { TroupeError } from './errors.js';
import { packageRoot } from './package.js';

/** Ends the process at once: `process.exit` as Node made it. */
export const exitProcess = process.exit.bind(process);

const imported = new Set<string>();

/** Called by import-module.ts with each user's file. */
export function addUserFile(path: string): void {
  imported.add(path);
}

/** The users' files that this thread has imported. */
export function userFiles(): string[] {
  return [...imported];
}

/** A file as messages name it: relative to the working directory where it lies below. */
export function shownFile(path: string): string {
  const short = relative(process.cwd(), path);
  return short.startsWith('..') ? path : short;
}

/** A user's value in a message: one line, cut where it is long; JSON does not write every value. */
export function shownValue(value: unknown): string {
  const whole = inspect(value, { depth: 1, breakLength: Number.POSITIVE_INFINITY });
  // Long lists come in rows all the same.
  const text = whole.replace(/\s*\n\s*/g, ' ');
  return text.length > 80 ? `${text.slice(0, 77)}…` : text;
}

/** The innermost file of a stack that is neither this program's, nor Node's, nor a package's. */
export function blamedFile(stack: string | undefined): string | undefined {
  const root = packageRoot();
  for (const [, url = ''] of (stack ?? '').matchAll(/\(?(file:\/\/[^\s)]+?):\d+(?::\d+)?\)?$/gm)) {
    const path = fileURLToPath(url.replace(/\?.*$/, ''));
    const own = [`${root}/src/`, `${root}/build/`].some((folder) => path.startsWith(folder));
    if (!own && !path.includes('/node_modules/')) return path;
  }
  return undefined;
}

/** The stack at the caller; deep enough for a file that prints or exits through a library. */
function stackHere(): string | undefined {
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 50;
  const { stack } = new Error();
  Error.stackTraceLimit = stackTraceLimit;
  return stack;
}

/** Makes `process.exit` throw where a user's file calls it; the program itself ends by `exitProcess`. */
export function refuseExit(): void {
  process.exit = (code) => {
    const file = blamedFile(stackHere());
    throw new TroupeError(`called process.exit(${code ?? ''}), which would lose the run.`, {
      ...(file !== undefined && { where: shownFile(file) }),
      hint: 'Throw an error instead.',
    });
  };
}

/**
 * What `thrown` says, as an error about the user's code `where`, e.g. "debate.ts: the workflow threw: boom". What is
 * already about something in particular comes back as it is.
 */
export function userError(where: string, what: string, thrown: unknown): TroupeError {
  if (thrown instanceof TroupeError) return thrown;
  const message = thrown instanceof Error ? thrown.message || thrown.name : String(thrown);
  return new TroupeError(`${what} threw: ${message}`, { where, cause: thrown });
}

type Stray = (error: Error) => void;
let listener: Stray | undefined;

/**
 * Errors that no code waits for (rejected promises, exceptions in timers) go to `otherwise`, or to the run that has
 * asked for them by `catchStray`.
 */
export function watchStray(otherwise: Stray): void {
  const pass = (error: Error) => (listener ?? otherwise)(error);
  process.on('unhandledRejection', (reason) => pass(stray(reason, 'a promise that nobody awaits failed')));
  process.on('uncaughtException', (error) => pass(stray(error, 'a callback threw')));
}

/** Takes stray errors until it is disposed. */
export function catchStray(take: Stray): Disposable {
  const before = listener;
  listener = take;
  return {
    [Symbol.dispose]: () => {
      listener = before;
    },
  };
}

/** An error with the user's file that it comes from; one of this program's own comes back as it is. */
function stray(reason: unknown, what: string): Error {
  const error = reason instanceof Error ? reason : new Error(String(reason));
  if (error instanceof TroupeError) return error;
  const file = blamedFile(error.stack) ?? (reason instanceof Error ? undefined : userFiles()[0]);
  if (file === undefined) return error;
  return new TroupeError(`${what}: ${error.message || error.name}`, {
    where: shownFile(file),
    cause: reason,
  });
}

/**
 * Sends what is printed to standard output, where results go, to standard error instead, and says so once. Until it
 * is disposed.
 */
export function divertOutput(): Disposable {
  const { stdout, stderr } = process;
  const own = Object.getOwnPropertyDescriptor(stdout, 'write');
  let said = false;
  const write = (...args: unknown[]): boolean => {
    if (!said) {
      said = true;
      const file = blamedFile(stackHere());
      // What a loss prints comes by way of the engine's thread.
      const who = file === undefined ? userFiles().map(shownFile).join(' or ') : shownFile(file);
      stderr.write(`${who} prints to standard output, where results go; it goes to standard error.\n`);
    }
    return Reflect.apply(stderr.write, stderr, args) as boolean;
  };
  stdout.write = write as typeof stdout.write;
  return {
    [Symbol.dispose]: () => {
      if (own === undefined) Reflect.deleteProperty(stdout, 'write');
      else Object.defineProperty(stdout, 'write', own);
    },
  };
}

const waiting = new Set<() => void>();
let listening = false;

/**
 * What a user's `promise` resolves with. Rejects with the signal's reason once it is aborted, and with a TroupeError about
 * `what` where the promise can never settle: the program has nothing left that it could wait for.
 */
export function settled<T>(
  promise: PromiseLike<T>,
  { where, what, signal }: { where: string; what: string; signal?: AbortSignal | undefined },
): Promise<T> {
  if (!listening) {
    listening = true;
    // A turn later, so that the program is alive while those who waited go on.
    process.on('beforeExit', () => {
      if (waiting.size > 0) setImmediate(() => [...waiting].forEach((giveUp) => void giveUp()));
    });
  }
  let giveUp = () => {};
  const never = new Promise<never>((_resolve, reject) => {
    giveUp = () => reject(new TroupeError(`${what} waits for something that never comes.`, { where }));
  });
  waiting.add(giveUp);
  return untilAborted(Promise.race([promise, never]), signal).finally(() => waiting.delete(giveUp));
}

/** What `promise` resolves with, or a rejection with the signal's reason as soon as it is aborted. */
export function untilAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  let abort = () => {};
  const aborted = new Promise<never>((_resolve, reject) => {
    abort = () => reject(signal.reason as Error);
  });
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();
  return Promise.race([promise, aborted]).finally(() => signal.removeEventListener('abort', abort));
}
