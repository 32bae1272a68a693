/**
 * The main thread's handle on the engine: a worker thread that owns libtorch. Everything that touches a tensor
 * happens there, synchronously; this side only sends messages and awaits answers (docs/threads.md).
 */
import { availableParallelism } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { TroupeError } from '../config/errors.js';
import { blockedError } from '../config/user-code.js';
import { newLossClock, watchLoss } from './loss-watch.js';
import type { CommandName, Commands, RequestMessage, ResponseMessage, WireError } from './protocol.js';
import { newTurns } from './turns.js';
import type { Completion, CompletionPart, CompletionRequest } from './types.js';

/** Milliseconds for a thread that was given up to end in good order: at once, where JavaScript is what hangs. */
const PATIENCE = 2000;

interface Pending {
  part?: ((part: CompletionPart) => void) | undefined;
  resolve(value: unknown): void;
  reject(error: Error): void;
}

export interface EngineOptions {
  /** Threads that libtorch computes with. Default: every core that this process may use. */
  threads?: number;
}

function revive(error: WireError): Error {
  const revived = error.name === 'TroupeError' ? new TroupeError(error.message) : new Error(error.message);
  if (error.stack !== undefined) revived.stack = error.stack;
  return revived;
}

// Thread counts are only reliable through the environment, before libtorch is loaded (docs/threads.md).
function setThreads(threads: number): void {
  process.env.OMP_NUM_THREADS ??= String(threads);
  process.env.MKL_NUM_THREADS ??= process.env.OMP_NUM_THREADS;
}

export class Engine {
  /** What its thread tells of itself (turns.ts). */
  readonly turns = newTurns();
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;
  #ended: Error | undefined;
  #hangs = false;
  readonly #failure: Promise<Error>;
  readonly #lossWatch: Disposable;
  /** File of the loss that was asked for last. */
  #lossFile = '';

  constructor(options: EngineOptions = {}) {
    setThreads(options.threads ?? availableParallelism());
    const lossClock = newLossClock();
    this.#worker = new Worker(new URL('./worker.js', import.meta.url), {
      workerData: { lossClock, turns: this.turns },
    });
    this.#lossWatch = watchLoss(lossClock, (seconds) =>
      this.abandon(blockedError(this.#lossFile, 'the loss', seconds)),
    );
    this.#worker.on('message', (message: ResponseMessage) => this.#settle(message));
    this.#failure = new Promise((resolve) => {
      const fail = (error: Error) => {
        if (this.#ended === undefined) resolve(error);
        this.#fail(error);
      };
      this.#worker.on('error', (error) => fail(error instanceof Error ? error : new Error(String(error))));
      this.#worker.on('exit', (code) => fail(new Error(`The engine worker ended (exit code ${code}).`)));
    });
    // An idle engine must not keep the process alive; a request in flight does (#send, #settle).
    this.#worker.unref();
  }

  /**
   * Sends one command and resolves with its answer. Aborting the signal breaks off a `train` between two micro-batches:
   * it rejects, and parameters and optimizer are as they were.
   */
  send<Name extends CommandName>(
    command: Name,
    argument: Commands[Name][0],
    signal?: AbortSignal,
  ): Promise<Commands[Name][1]> {
    return this.#cancellable(this.#send(command, argument), signal);
  }

  /**
   * One completion. Aborting the signal resolves it with what was sampled so far, `finish: 'cancelled'`. `part` is told of
   * its tokens as they come; the last of them come with the answer alone.
   */
  complete(
    request: CompletionRequest,
    signal?: AbortSignal,
    part?: (part: CompletionPart) => void,
  ): Promise<Completion> {
    const wanted = part === undefined ? request : { ...request, stream: true };
    return this.#cancellable(this.#send('complete', wanted, part), signal);
  }

  #cancellable<T>({ id, answer }: { id: number; answer: Promise<T> }, signal?: AbortSignal): Promise<T> {
    if (signal === undefined) return answer;
    const cancel = () => this.#worker.postMessage({ kind: 'cancel', id });
    if (signal.aborted) cancel();
    signal.addEventListener('abort', cancel, { once: true });
    return answer.finally(() => signal.removeEventListener('abort', cancel));
  }

  /** Gives up a thread that hangs: requests in flight and to come are rejected with the error. */
  abandon(error: Error): void {
    this.#hangs = true;
    this.#fail(error);
    void this.#worker.terminate();
  }

  /** Resolves if the worker ends by itself: every request is rejected from then on. */
  get failure(): Promise<Error> {
    return this.#failure;
  }

  /** Whether it has ended, by itself or closed. */
  get ended(): boolean {
    return this.#ended !== undefined;
  }

  /** Ends the worker; requests in flight are rejected. */
  async close(): Promise<void> {
    this.#lossWatch[Symbol.dispose]();
    this.#fail(new Error('The engine was closed.'));
    const ended = this.#worker.terminate();
    if (!this.#hangs) await ended;
    else if ((await Promise.race([ended, sleep(PATIENCE, 'hangs')])) === 'hangs') {
      // A thread that hangs in native code cannot be ended. The process waits for it neither before its exit nor in it.
      this.#worker.unref();
      process.once('exit', () => process.kill(process.pid, 'SIGKILL'));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #send<Name extends CommandName>(
    command: Name,
    argument: Commands[Name][0],
    part?: (part: CompletionPart) => void,
  ) {
    const id = this.#nextId++;
    if (command === 'train') this.#lossFile = (argument as Commands['train'][0]).loss.module;
    const answer = new Promise<Commands[Name][1]>((resolve, reject) => {
      if (this.#ended !== undefined) {
        reject(this.#ended);
        return;
      }
      if (this.#pending.size === 0) this.#worker.ref();
      this.#pending.set(id, { resolve: resolve as (value: unknown) => void, reject, part });
      const message: RequestMessage = { kind: 'request', id, command, argument };
      this.#worker.postMessage(message);
    });
    return { id, answer };
  }

  #settle(message: ResponseMessage): void {
    const pending = this.#pending.get(message.id);
    if (pending === undefined) return;
    if (message.part !== undefined) {
      pending.part?.(message.part);
      return;
    }
    this.#pending.delete(message.id);
    if (this.#pending.size === 0) this.#worker.unref();
    if (message.error !== undefined) pending.reject(revive(message.error));
    else pending.resolve(message.value);
  }

  #fail(error: Error): void {
    this.#ended ??= error;
    for (const pending of this.#pending.values()) pending.reject(this.#ended);
    this.#pending.clear();
  }
}
