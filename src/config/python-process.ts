/**
 * A user's Python file in a process of its own, which lives as long as the run (python-host.py is its other side). The
 * file is the user's code and trusted like a TypeScript module; what models say only passes through as data. A process
 * that dies or takes too long is started again once; the second time is an error that ends the run.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { z } from 'zod';
import { reasonOf, TroupeError } from './errors.js';
import { findPath, packageRoot, pathHint } from './package.js';
import { oneLine } from './thrown.js';
import { shownFile, untilAborted } from './user-code.js';

const REQUESTS = 3;
const ANSWERS = 4;

/** Seconds that the imports of a file may take. */
const LOAD_SECONDS = 300;
/** Milliseconds after which a process that was asked to end is killed. */
const PATIENCE = 4000;

/** Milliseconds that a process may go on for that can answer no more. */
const MUTE = 1000;

/** Python as the user's shell finds it: an activated environment is the one that counts. */
const PYTHON = 'python3';

/** What the user's function raised or returned wrongly: the process goes on. */
export class PythonError extends TroupeError {
  override readonly name = 'PythonError';
}

/** The process is gone, in words that follow its name: "ended with exit code 1". */
class Died extends Error {}

export interface PythonRequest {
  do: string;
  [argument: string]: unknown;
}

export interface RequestOptions {
  /** Seconds that the answer may take; null: no limit. */
  seconds: number | null;
  signal?: AbortSignal | undefined;
}

/** Throws a TroupeError if there is no such file. */
export function findPythonFile(file: string, what: string): string {
  const path = findPath(file);
  if (existsSync(path)) return path;
  throw new TroupeError(`no such file; the ${what} was to be imported from it.`, {
    where: path,
    ...pathHint(file),
  });
}

/** By the path of a user's Python file: itself and what it has imported from beside it so far. */
const loaded = new Map<string, string[]>();

/** A user's Python file and what it has imported from beside it, once its process has started; a function may import too. */
export const pythonFiles = (file: string): string[] => loaded.get(file) ?? [file];

export class PythonProcess {
  readonly #file: string;
  readonly #where: string;
  readonly #functions = new Set<string>();
  readonly #warn: (message: string) => void;
  #child: Child | undefined;
  #restarted = false;
  #closed = false;
  /** Requests go one after another. */
  #last: Promise<unknown> = Promise.resolve();

  /** `warn` hears of a process that is started again. */
  constructor(file: string, warn: (message: string) => void) {
    this.#file = file;
    this.#where = shownFile(file);
    this.#warn = warn;
  }

  /** Said before the start: the file must have this function. */
  expect(name: string): void {
    this.#functions.add(name);
  }

  /** Imports the file, once. Throws a TroupeError where it does not load, or lacks a function. */
  async start(): Promise<void> {
    await this.#inTurn(() => this.#again(async () => void (await this.#started())));
  }

  /**
   * The function's answer, a list. Throws a PythonError, with the line, for what the function raises; any other TroupeError
   * says that the process has died twice. Rejects with the signal's reason once it is aborted.
   */
  async request(request: PythonRequest, { seconds, signal }: RequestOptions): Promise<unknown[]> {
    const answer = this.#inTurn(() =>
      this.#again(async () => (await this.#started()).request(request, seconds)),
    );
    return untilAborted(answer, signal);
  }

  /** Resolves when the process has ended. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#child?.close();
  }

  #inTurn<T>(action: () => Promise<T>): Promise<T> {
    const next = this.#last.then(action, action);
    // Whoever asked sees the error; when nobody waits any more it must not end Node.
    next.catch(() => undefined);
    this.#last = next;
    return next;
  }

  /** A second try with a new process where the first one died. */
  async #again<T>(action: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await action();
      } catch (error) {
        if (!(error instanceof Died) || this.#closed) throw error;
        this.#child = undefined;
        const what = `the Python process ${error.message}`;
        if (this.#restarted)
          throw new TroupeError(`${what}; it was started again before.`, { where: this.#where });
        this.#restarted = true;
        this.#warn(`${this.#where}: ${what}; it is started again, once`);
      }
    }
  }

  async #started(): Promise<Child> {
    if (this.#child !== undefined) return this.#child;
    const child = new Child(this.#where, (files) => void loaded.set(this.#file, files));
    this.#child = child;
    try {
      const request = { do: 'load', file: this.#file, functions: [...this.#functions] };
      await child.request(request, LOAD_SECONDS);
    } catch (error) {
      this.#child = undefined;
      await child.close();
      throw error;
    }
    return child;
  }
}

interface Waiting {
  resolve(answer: unknown[]): void;
  reject(error: Error): void;
}

/** One process, from its start to its end. */
class Child {
  readonly #where: string;
  readonly #process: ChildProcess;
  readonly #closed: Promise<void>;
  readonly #onFiles: (files: string[]) => void;
  #chunks: Buffer[] = [];
  #waiting: Waiting | undefined;
  /** Why it can answer no more. */
  #ended: Error | undefined;

  /** `onFiles` hears of the user's files that are loaded, whenever there are more. */
  constructor(where: string, onFiles: (files: string[]) => void) {
    this.#where = where;
    this.#onFiles = onFiles;
    const host = join(packageRoot(), 'src', 'config', 'python-host.py');
    // What the user's code prints goes to standard error, where it is not taken for results.
    // It leads a group of its own, with all that the user's code starts.
    this.#process = spawn(PYTHON, ['-u', host], {
      stdio: ['ignore', 2, 2, 'pipe', 'pipe'],
      detached: true,
    });
    this.#closed = new Promise((resolve) => {
      // Not 'close': what the user's code has forked holds the channel for as long as it likes.
      this.#process.once('exit', () => resolve());
      this.#process.once('error', () => resolve());
    });
    this.#process.once('error', (cause) => {
      const message = `${PYTHON} does not start (${reasonOf(cause)}).`;
      this.#end(new TroupeError(message, { where, hint: 'The file needs Python 3 on the PATH.', cause }));
    });
    this.#process.once('exit', (code, signal) => {
      this.#end(new Died(signal === null ? `ended with exit code ${code}` : `was ended by ${signal}`));
      for (const stream of this.#process.stdio) stream?.destroy();
      this.#killGroup();
    });
    // A pipe breaks when the process ends, which 'exit' tells.
    for (const stream of this.#process.stdio) stream?.on('error', () => undefined);
    const answers = this.#process.stdio[ANSWERS] as Readable | null;
    answers?.on('data', (chunk: Buffer) => this.#read(chunk));
    // A process that ends says so itself.
    const mute = () => this.#kill(new Died('closed the channel that its answers go through'));
    answers?.once('end', () => setTimeout(mute, MUTE).unref());
    this.#keepNode('unref');
  }

  /** Throws Died, or what the answer says went wrong. */
  async request(request: PythonRequest, seconds: number | null): Promise<unknown[]> {
    if (this.#ended !== undefined) throw this.#ended;
    this.#keepNode('ref');
    const late = () => this.#kill(new Died(`took more than ${seconds} seconds for "${describe(request)}"`));
    const timer = seconds === null ? undefined : setTimeout(late, seconds * 1000);
    try {
      return await new Promise((resolve, reject) => {
        this.#waiting = { resolve, reject };
        (this.#process.stdio[REQUESTS] as Writable | null)?.write(`${JSON.stringify(request, forPython)}\n`);
      });
    } finally {
      clearTimeout(timer);
      this.#waiting = undefined;
      this.#keepNode('unref');
    }
  }

  async close(): Promise<void> {
    this.#keepNode('ref');
    (this.#process.stdio[REQUESTS] as Writable | null)?.end();
    const timer = setTimeout(() => this.#killGroup(), PATIENCE);
    await this.#closed;
    clearTimeout(timer);
  }

  #read(chunk: Buffer): void {
    const end = chunk.indexOf(10);
    if (end < 0) {
      this.#chunks.push(chunk);
      return;
    }
    const line = Buffer.concat([...this.#chunks, chunk.subarray(0, end)]).toString();
    this.#chunks = [];
    const answer = parsed(line);
    if (answer === undefined || this.#waiting === undefined || end < chunk.length - 1) {
      this.#kill(new Died('wrote something else than answers into its channel'));
      return;
    }
    if (answer.files !== undefined) this.#onFiles(answer.files);
    if (answer.error !== undefined) this.#waiting.reject(errorOf(answer.error, this.#where));
    else this.#waiting.resolve(answer.value ?? []);
  }

  #kill(reason: Error): void {
    this.#end(reason);
    this.#killGroup();
  }

  #killGroup(): void {
    const { pid } = this.#process;
    if (pid === undefined) return;
    try {
      process.kill(-pid, 'SIGKILL');
    } catch {
      // There is none any more.
    }
  }

  #end(reason: Error): void {
    this.#ended ??= reason;
    this.#waiting?.reject(this.#ended);
  }

  /** Node waits for the process only while somebody waits for its answer. */
  #keepNode(how: 'ref' | 'unref'): void {
    this.#process[how]();
    for (const stream of this.#process.stdio) (stream as Socket | null)?.[how]?.();
  }
}

/** Of an error, as python-host.py writes it; `refused` is a whole sentence. */
const raisedSchema = z.object({
  refused: z.string().optional(),
  type: z.string().optional(),
  message: z.string().optional(),
  line: z.number().nullish(),
  function: z.string().nullish(),
});
type Raised = z.output<typeof raisedSchema>;

/** The user's code may write into the channel too. */
const answerSchema = z
  .object({
    value: z.array(z.unknown()).optional(),
    error: raisedSchema.optional(),
    /** The user's files that are loaded, where there are others than the last answer said. */
    files: z.array(z.string()).optional(),
  })
  .refine(({ value, error }) => (value === undefined) !== (error === undefined));

function parsed(line: string): z.output<typeof answerSchema> | undefined {
  try {
    return answerSchema.safeParse(JSON.parse(line)).data;
  } catch {
    return undefined;
  }
}

function errorOf({ refused, type, message = '', line, function: name }: Raised, where: string): PythonError {
  if (refused !== undefined) return new PythonError(refused, { where });
  const at = typeof line === 'number' ? `${where}:${line}` : where;
  const who = typeof name === 'string' && !name.startsWith('<') ? name : 'the file';
  const said = message === '' ? '' : `: ${oneLine(message.replace(/[\s.]+$/, ''))}`;
  return new PythonError(`${who} raised ${type}${said}.`, { where: at });
}

const describe = ({ do: what, function: name }: PythonRequest) =>
  typeof name === 'string' ? name : what === 'load' ? 'import' : what;

/** Values of data rows that JSON has no form for: whole numbers of Parquet, bytes. */
function forPython(_key: string, value: unknown): unknown {
  if (typeof value === 'bigint') {
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : String(value);
  }
  return ArrayBuffer.isView(value) ? Array.from(value as unknown as ArrayLike<number>) : value;
}
