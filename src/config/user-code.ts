/**
 * What keeps a user's file (workflow, task, reward, loss) from ending the program without a word: it may exit, reject
 * a promise that nobody waits for, throw in a timer, print where results go, promise what never comes, or never come
 * back. Each becomes an error with the file's name in it, which whoever runs the file treats like any other.
 */
import { relative } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { types } from 'node:util';
import { Worker } from 'node:worker_threads';
import { TroupeError } from './errors.js';
import { blamedPlace, framesOf, messageOf, ownFolders, shownValue } from './thrown.js';
import type { Beats, Blocked } from './watch-thread.js';

/** Ends the process at once: `process.exit` as Node made it. */
export const exitProcess = process.exit.bind(process);

const imported = new Set<string>();

/** Called by import-module.ts with each user's file. */
export function addUserFile(path: string): void {
  imported.add(path);
  watchMain?.();
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

/**
 * What was thrown, as an error whose message can be read: a user's file may throw null, a Proxy, or an error without a
 * message, with an endless one, one of several lines, or with a getter that throws.
 */
export function caught(thrown: unknown): Error {
  try {
    if (thrown instanceof TroupeError) return thrown;
    const message = messageOf(thrown);
    if (thrown instanceof Error && thrown.message === message) return thrown;
    const readable = new Error(message);
    const frames = framesOf(thrown);
    if (frames !== undefined) readable.stack = `${message}\n${frames}`;
    return readable;
  } catch {
    return new Error('something that cannot be shown');
  }
}

/** The innermost file of a stack that is a user's. */
const blamedFile = (stack: string | undefined): string | undefined => blamedPlace(stack)?.file;

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
    throw new TroupeError(
      `called process.exit(${code ?? ''}), which would end the program with all that it does.`,
      {
        ...(file !== undefined && { where: shownFile(file) }),
        hint: 'Throw an error instead.',
      },
    );
  };
}

/** Makes `process.chdir` throw: relative paths, of the run's folder too, would lead elsewhere from then on. */
export function refuseChdir(): void {
  process.chdir = (folder) => {
    const file = blamedFile(stackHere());
    throw new TroupeError(
      `called process.chdir(${shownValue(folder)}): paths of the run would lead elsewhere.`,
      {
        ...(file !== undefined && { where: shownFile(file) }),
        hint: 'Give whole paths instead.',
      },
    );
  };
}

/**
 * What `thrown` says, as an error about the user's code `where`, e.g. "debate.ts:12: the workflow threw: boom". What is
 * already about something in particular comes back as it is.
 */
export function userError(where: string, what: string, thrown: unknown): TroupeError {
  const error = caught(thrown);
  if (error instanceof TroupeError) return error;
  return new TroupeError(`${what} threw: ${error.message}`, {
    where: thrownAt(where, thrown),
    cause: thrown,
  });
}

/** `where` with the line of it that threw, or with the file that it has called: "debate.ts (lib/other.ts:3)". */
export function thrownAt(where: string, thrown: unknown): string {
  const place = blamedPlace(framesOf(thrown));
  if (place === undefined) return where;
  const at = `${shownFile(place.file)}:${place.line}`;
  return at.startsWith(`${where}:`) ? at : `${where} (${at})`;
}

/** How long users' code may take, in seconds; null: as long as it likes. */
export interface UserTimes {
  /** Until a function comes back; nothing else goes on meanwhile. */
  blockedSeconds: number | null;
  /** Until a promise of a reward, a task or a module settles. */
  answerSeconds: number | null;
}

const times: UserTimes = { blockedSeconds: 60, answerSeconds: 300 };
const beats: Beats = new Int32Array(new SharedArrayBuffer(12));

/** Sets the limits of this process, as its run has them (`run` of the configuration). */
export function limitUserCode({ blockedSeconds, answerSeconds }: UserTimes): void {
  Object.assign(times, { blockedSeconds, answerSeconds });
  Atomics.store(beats, 1, Math.ceil(blockedSeconds ?? 0));
}

/** Seconds until a user's function has to come back; null: no limit. */
export const blockedSeconds = (): number | null => times.blockedSeconds;

let watchMain: (() => void) | undefined;
const blockedWaits = new Set<(error: Error) => void>();

/**
 * From the first user's file on, ends a function of such a file that keeps the main thread longer than it may. What waits
 * for it in `untilBlocked` is rejected and stray errors hear of it (`watchStray`); where nothing waits so, `otherwise` does.
 */
export function watchBlocked(otherwise: Stray): void {
  watchMain = () => {
    watchMain = undefined;
    limitUserCode(times);
    setInterval(() => Atomics.add(beats, 0, 1), 100).unref();
    const own = ownFolders().map((folder) => pathToFileURL(folder).href);
    const thread = new Worker(new URL('./watch-thread.js', import.meta.url), { workerData: { beats, own } });
    // Where nothing else is left to wait for, the message still has to come.
    process.on('beforeExit', () => {
      if (Atomics.load(beats, 2) === 1) setTimeout(() => {}, 50);
    });
    thread.on('message', ({ url, name, seconds }: Blocked) => {
      Atomics.store(beats, 2, 0);
      const error = blockedError(fileURLToPath(url), name && `the function ${name}`, seconds);
      if (blockedWaits.size === 0) otherwise(error);
      else (listener ?? otherwise)(error);
      for (const reject of blockedWaits) reject(error);
    });
    // Listening has made the process wait for it.
    thread.unref();
  };
}

/** The error about a function that does not come back. */
export function blockedError(file: string, what: string, seconds: number): TroupeError {
  return new TroupeError(
    `${what || 'a function'} has not come back for ${seconds} seconds, and nothing else can go on meanwhile.`,
    { where: shownFile(file), hint: 'run.blockedSeconds sets the limit.' },
  );
}

/**
 * What `work` resolves with. Rejects once a user's function was ended because it never came back: whoever had called it
 * went with it, and their promises never settle. The work begins in a turn of its own, so that the caller is not one of them.
 */
export function untilBlocked<T>(work: () => Promise<T>): Promise<T> {
  let reject: (error: Error) => void = () => {};
  const blocked = new Promise<never>((_resolve, rejects) => {
    reject = rejects;
  });
  blockedWaits.add(reject);
  const done = nextTurn().then(work);
  return Promise.race([done, blocked]).finally(() => blockedWaits.delete(reject));
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
  const error = caught(reason);
  if (error instanceof TroupeError) return error;
  // What is no error has no stack of its own.
  const file = blamedFile(framesOf(error)) ?? (types.isNativeError(reason) ? undefined : userFiles()[0]);
  if (file === undefined) return error;
  return new TroupeError(`${what}: ${error.message}`, {
    where: shownFile(file),
    cause: reason,
  });
}

/** While it holds. */
interface DivertedOutput extends Disposable {
  /** A line of the result, to standard output. */
  print(line: string): void;
}

/**
 * Sends what is printed to standard output, where results go, to standard error instead, and says so once. Until it
 * is disposed; then a user's file has silenced nothing that is still to be said.
 */
export function divertOutput(): DivertedOutput {
  const { stdout, stderr } = process;
  const own = Object.getOwnPropertyDescriptor(stdout, 'write');
  const ownError = Object.getOwnPropertyDescriptor(stderr, 'write');
  const { log, error } = console;
  const through = stdout.write.bind(stdout);
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
    print: (line) => void through(`${line}\n`),
    [Symbol.dispose]: () => {
      restore(stdout, own);
      restore(stderr, ownError);
      Object.assign(console, { log, error });
    },
  };
}

function restore(stream: NodeJS.WriteStream, write: PropertyDescriptor | undefined): void {
  if (write === undefined) Reflect.deleteProperty(stream, 'write');
  else Object.defineProperty(stream, 'write', write);
}

const waiting = new Set<() => void>();
const hint = 'run.answerSeconds sets the limit.';
let listening = false;

/** About whose promise it is that is waited for. */
export interface Wait {
  where: string;
  what: string;
  signal?: AbortSignal | undefined;
  /** Seconds that it may take; null: no limit. Default: `run.answerSeconds`. */
  seconds?: number | null;
}

/**
 * What a user's `promise` resolves with. Rejects with the signal's reason once it is aborted, and with a TroupeError about
 * `what` where the promise takes too long, or can never settle: the program has nothing left that it could wait for.
 */
export function settled<T>(
  promise: PromiseLike<T>,
  { where, what, signal, seconds = times.answerSeconds }: Wait,
): Promise<T> {
  if (!listening) {
    listening = true;
    // A turn later, so that the program is alive while those who waited go on.
    process.on('beforeExit', () => {
      if (waiting.size > 0 && Atomics.load(beats, 2) === 0)
        setImmediate(() => [...waiting].forEach((giveUp) => void giveUp()));
    });
  }
  let giveUp: (error?: Error) => void = () => {};
  const never = new Promise<never>((_resolve, reject) => {
    giveUp = (error = new TroupeError(`${what} waits for something that never comes.`, { where })) =>
      reject(error);
  });
  waiting.add(giveUp);
  const late = () => giveUp(new TroupeError(`${what} took more than ${seconds} seconds.`, { where, hint }));
  // Unreferenced: with nothing else left to wait for, it is said at once.
  const timer = seconds === null ? undefined : setTimeout(late, seconds * 1000).unref();
  return untilAborted(Promise.race([promise, never]), signal).finally(() => {
    clearTimeout(timer);
    waiting.delete(giveUp);
  });
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
