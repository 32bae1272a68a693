/**
 * What ends a run from outside: SIGINT, SIGTERM and SIGHUP (a closed terminal) ask the loop to save and stop, a second
 * one exits at once; an error that no code waits for (config/user-code.ts) ends the run as a failure of its own would.
 */
import { setMaxListeners } from 'node:events';
import { constants } from 'node:os';
import { catchStray, exitProcess } from '../config/user-code.js';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export class StopSignals {
  #received: NodeJS.Signals | undefined;
  readonly #controller = new AbortController();
  readonly #stray = catchStray((error) => this.#controller.abort(error));
  readonly #handler = (signal: NodeJS.Signals) => {
    // 128 + the signal's number, as shells report it.
    if (this.#received !== undefined) exitProcess(128 + constants.signals[signal]);
    this.#received = signal;
    process.stderr.write(`\n${signal}: saving, then stopping. Once more to exit at once.\n`);
    this.#controller.abort();
  };

  constructor() {
    // Every completion in flight listens to it.
    setMaxListeners(0, this.#controller.signal);
    for (const signal of SIGNALS) process.on(signal, this.#handler);
  }

  /** The signal that asked to stop, if one did. */
  get received(): NodeJS.Signals | undefined {
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
    this.#stray[Symbol.dispose]();
    // Of a terminal that is gone Node cannot restore the settings, and aborts with a core dump when it ends by itself.
    const terminal = process.stdin.isTTY || process.stdout.isTTY || process.stderr.isTTY;
    if (this.#received === 'SIGHUP' && terminal) process.kill(process.pid, 'SIGHUP');
  }
}
