/**
 * One sandbox: a bubblewrap process with the harness in it, and the channel to it. Starting is not waited for,
 * so that a pool can start ahead. A request that takes too long, answers too much or loses its process ends the
 * sandbox. Nothing here keeps Node alive but a request under way.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import type { Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import { TroupeError } from '../../config/errors.js';
import { bubblewrapArguments, ENVIRONMENT, type Installation, type UserMode } from './bubblewrap.js';
import { type Frame, parseReply, type Reply } from './frames.js';
import type { Limits } from './limits.js';
import { seccompFilter } from './seccomp.js';
import { passedLimit, WATCH_INTERVAL } from './watch.js';

/**
 * Why a sandbox ended before it answered. crashed: it ended by itself or sent what is no answer. killed: by a
 * signal that did not come from here.
 */
export type Ending = 'timeout' | 'crashed' | 'killed' | 'output-limit' | 'memory' | 'files';

/** The program under test ended its sandbox; what it did is in `ending`. */
export class SandboxEnded extends Error {
  readonly ending: Ending;

  constructor(ending: Ending) {
    super(`the sandbox ended: ${ending}`);
    this.ending = ending;
  }
}

const START_TIMEOUT = 30_000;
const SECCOMP_DESCRIPTOR = 3;
/** Where bubblewrap tells the number of the first process in the sandbox. */
const STATUS_DESCRIPTOR = 4;
/** Milliseconds after which a killed sandbox that has not ended is killed from outside. */
const KILL_TIMEOUT = 2000;
const KEPT_ERRORS = 2000;

/** Exit status of bubblewrap when the program in it was killed: 128 + SIGKILL. */
const KILLED_STATUS = 137;

interface Waiting {
  resolve(reply: Reply): void;
  reject(error: Error): void;
}

export class Sandbox {
  /** Fulfilled when the harness waits for frames; rejected if the sandbox does not start. */
  readonly ready: Promise<void>;
  /** Fulfilled when every process of the sandbox that held its channel is gone. */
  readonly closed: Promise<void>;
  readonly #process: ChildProcess;
  readonly #limits: Limits;
  readonly #most: number;
  #chunks: Buffer[] = [];
  #size = 0;
  #errors = '';
  #waiting: Waiting | undefined;
  #ending: Ending | undefined;
  #started = false;
  /** Process number, out here, of the first process in the sandbox. */
  #first: number | undefined;

  constructor(installation: Installation, limits: Limits, mode: UserMode, user: number) {
    const filter = seccompFilter();
    const seccomp = filter === undefined ? undefined : SECCOMP_DESCRIPTOR;
    const command = bubblewrapArguments(installation, limits, mode, user, {
      seccomp,
      status: STATUS_DESCRIPTOR,
    });
    this.#limits = limits;
    // Escapes and tags make JSON longer than the text in it.
    this.#most = limits.outputMiB * 2 ** 20 * 6 + 65_536;
    this.#process = spawn(installation.bubblewrap.path, command, {
      stdio: ['pipe', 'pipe', 'pipe', 'pipe', 'pipe'],
      env: ENVIRONMENT,
      cwd: '/',
    });
    this.closed = new Promise((resolve) => this.#process.once('close', () => resolve()));
    this.#listen(filter);
    this.ready = this.#response(START_TIMEOUT).then(
      () => undefined,
      (error) => {
        throw this.#startError(error);
      },
    );
    // Whoever opens the sandbox sees the error; a spare one that nobody opens must not end Node.
    this.ready.catch(() => {});
  }

  /** True while it can take requests. */
  get alive(): boolean {
    return this.#ending === undefined;
  }

  /** Sends a frame and gives the harness's answer. Throws SandboxEnded; after `timeout` milliseconds at the latest. */
  async request(frame: Frame, timeout: number): Promise<Reply> {
    const line = `${JSON.stringify(frame)}\n`;
    await this.ready;
    if (this.#ending !== undefined) throw new SandboxEnded(this.#ending);
    const response = this.#response(timeout);
    this.#process.stdin?.write(line);
    return response;
  }

  /** Ends every process in the sandbox. */
  kill(): void {
    this.#end('crashed');
  }

  #listen(filter: Buffer | undefined): void {
    const child = this.#process;
    // A pipe breaks when the sandbox ends, which 'close' tells.
    for (const stream of child.stdio) stream?.on('error', () => {});
    this.#keepNode('unref');
    (child.stdio[SECCOMP_DESCRIPTOR] as Writable | null)?.end(filter ?? '');
    child.once('error', (error) => {
      this.#errors += error.message;
      this.#end('crashed');
    });
    child.once('close', (code, signal) =>
      this.#end(signal !== null || code === KILLED_STATUS ? 'killed' : 'crashed'),
    );
    (child.stdio[1] as Readable | null)?.on('data', (chunk: Buffer) => this.#read(chunk));
    (child.stdio[STATUS_DESCRIPTOR] as Readable | null)?.on('data', (chunk: Buffer) => {
      const [, first] = /"child-pid": *(\d+)/.exec(chunk.toString()) ?? [];
      if (first !== undefined) this.#first = Number(first);
    });
    (child.stdio[2] as Readable | null)?.on('data', (chunk: Buffer) => {
      if (this.#errors.length < KEPT_ERRORS) this.#errors += chunk.toString();
    });
  }

  /** Whether Node waits for the process: not while it is idle, but when it is about to end. */
  #keepNode(how: 'ref' | 'unref'): void {
    this.#process[how]();
    for (const stream of this.#process.stdio) (stream as Socket | null)?.[how]?.();
  }

  #response(timeout: number): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#end('timeout'), timeout);
      const watch = setInterval(() => this.#look(), WATCH_INTERVAL);
      const done =
        <T>(then: (value: T) => void) =>
        (value: T) => {
          clearTimeout(timer);
          clearInterval(watch);
          this.#waiting = undefined;
          then(value);
        };
      this.#waiting = { resolve: done(resolve), reject: done(reject) };
    });
  }

  /** Ends a sandbox that has passed a limit which only shows from outside. */
  #look(): void {
    const passed = this.#first === undefined ? undefined : passedLimit(this.#first, this.#limits);
    if (passed !== undefined) this.#end(passed);
  }

  #read(chunk: Buffer): void {
    const end = chunk.indexOf(10);
    this.#chunks.push(end < 0 ? chunk : chunk.subarray(0, end));
    this.#size += chunk.length;
    if (this.#size > this.#most) this.#end('output-limit');
    if (end < 0) return;
    if (this.#ending !== undefined) {
      this.#killAll();
      return;
    }
    const line = Buffer.concat(this.#chunks).toString();
    this.#chunks = [];
    this.#size = 0;
    const reply = parseReply(line);
    // More than one answer to one request, or none: the program wrote into the channel.
    this.#started = true;
    if (reply === undefined || this.#waiting === undefined || end < chunk.length - 1) this.#end('crashed');
    else this.#waiting.resolve(reply);
  }

  #end(ending: Ending): void {
    if (this.#ending !== undefined) return;
    this.#ending = ending;
    this.#chunks = [];
    this.#keepNode('ref');
    // bubblewrap killed while it sets up its namespaces can leave a process behind, so one that is still starting
    // is killed when it says that it is ready.
    if (this.#started || ending === 'timeout') this.#killAll();
    this.#waiting?.reject(new SandboxEnded(ending));
  }

  /**
   * The first process of a process namespace takes all others along. bubblewrap then ends by itself, having
   * reaped it; were bubblewrap killed, the first process would be left for the system to reap.
   */
  #killAll(): void {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const outer = () => this.#process.kill('SIGKILL');
    try {
      if (this.#first === undefined) outer();
      else process.kill(this.#first, 'SIGKILL');
    } catch {
      outer();
    }
    const timer = setTimeout(outer, KILL_TIMEOUT);
    this.#process.once('exit', () => clearTimeout(timer));
  }

  #startError(cause: unknown): TroupeError {
    const said = this.#errors.trim().split('\n').slice(-3).join(' ');
    return new TroupeError(`the sandbox does not start${said === '' ? '' : `: ${said}`}.`, {
      hint: startHint(said),
      cause,
    });
  }
}

function startHint(said: string): string {
  return /namespace|permitted|uid map/i.test(said)
    ? 'bubblewrap may not make namespaces here: in a container, allow it (e.g. --security-opt seccomp=unconfined ' +
        '--cap-add SYS_ADMIN); on Ubuntu, allow unprivileged user namespaces.'
    : 'Try `troupe doctor`.';
}
