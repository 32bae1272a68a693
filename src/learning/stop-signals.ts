/**
 * SIGINT and SIGTERM during a run: the first asks the loop to save and stop at the next safe place, a second one
 * exits at once.
 */
import { setMaxListeners } from 'node:events';

export class StopSignals {
  #received: NodeJS.Signals | undefined;
  readonly #controller = new AbortController();
  readonly #handler = (signal: NodeJS.Signals) => {
    // 128 + the signal's number, as shells report it.
    if (this.#received !== undefined) process.exit(signal === 'SIGINT' ? 130 : 143);
    this.#received = signal;
    process.stderr.write(`\n${signal}: saving, then stopping. Once more to exit at once.\n`);
    this.#controller.abort();
  };

  constructor() {
    // Every completion in flight listens to it.
    setMaxListeners(0, this.#controller.signal);
    process.on('SIGINT', this.#handler);
    process.on('SIGTERM', this.#handler);
  }

  /** The signal that asked to stop, if one did. */
  get received(): NodeJS.Signals | undefined {
    return this.#received;
  }

  /** Aborted with the first signal: rollouts of an unfinished step end early. */
  get abort(): AbortSignal {
    return this.#controller.signal;
  }

  [Symbol.dispose](): void {
    process.off('SIGINT', this.#handler);
    process.off('SIGTERM', this.#handler);
  }
}
