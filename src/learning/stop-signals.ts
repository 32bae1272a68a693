/**
 * What ends a run from outside: SIGINT, SIGTERM and SIGHUP (a closed terminal) ask the loop to save and stop, a second
 * one exits at once; an error that no code waits for (config/user-code.ts) ends the run as a failure of its own would.
 *
 * One request may come several times: terminals, torchrun and `scancel` send their signal to npx as well, which passes it
 * on. It may also not come: npx passes SIGTERM to a shell, which ends by it and tells nobody.
 */
import { setMaxListeners } from 'node:events';
import { constants } from 'node:os';
import { catchStray, exitProcess } from '../config/user-code.js';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Milliseconds within which signals are one request. */
const ONE_REQUEST = 1000;
/** Milliseconds between looks whether npx is there. */
const LOOK = 200;

export class StopSignals {
  #received: string | undefined;
  #since = 0;
  readonly #controller = new AbortController();
  readonly #stray = catchStray((error) => this.#controller.abort(error));
  readonly #npx = watchNpx(() => this.#stop('npx is gone'));
  readonly #handler = (signal: NodeJS.Signals) => {
    if (this.#received === undefined) this.#stop(signal);
    // 128 + the signal's number, as shells report it.
    else if (performance.now() - this.#since > ONE_REQUEST) exitProcess(128 + constants.signals[signal]);
  };

  constructor() {
    // Every completion in flight listens to it.
    setMaxListeners(0, this.#controller.signal);
    for (const signal of SIGNALS) process.on(signal, this.#handler);
  }

  #stop(why: string): void {
    if (this.#received !== undefined) return;
    this.#received = why;
    this.#since = performance.now();
    process.stderr.write(`\n${why}: saving, then stopping. Once more to exit at once.\n`);
    this.#controller.abort();
  }

  /** What asked to stop, a signal or in words; undefined: nothing did. */
  get received(): string | undefined {
    return this.#received;
  }

  /**
   * Aborted with the first signal, or with the first stray error as its reason: rollouts and updates that can be
   * dropped end early.
   */
  get abort(): AbortSignal {
    return this.#controller.signal;
  }

  [Symbol.dispose](): void {
    for (const signal of SIGNALS) process.off(signal, this.#handler);
    clearInterval(this.#npx);
    this.#stray[Symbol.dispose]();
    // Of a terminal that is gone Node cannot restore the settings, and aborts with a core dump when it ends by itself.
    const terminal = process.stdin.isTTY || process.stdout.isTTY || process.stderr.isTTY;
    if (this.#received === 'SIGHUP' && terminal) process.kill(process.pid, 'SIGHUP');
  }
}

/** Says when the shell is gone by which npx has started this process: another one has become its parent. */
function watchNpx(gone: () => void): NodeJS.Timeout | undefined {
  const { npm_lifecycle_event: event, npm_lifecycle_script: script = '' } = process.env;
  if (event !== 'npx' || !script.includes('troupe')) return undefined;
  const parent = process.ppid;
  return setInterval(() => {
    if (process.ppid !== parent) gone();
  }, LOOK).unref();
}
