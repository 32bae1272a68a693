/**
 * Whether the engine's thread comes back from its work: it counts its turns in memory that the main thread reads, which may
 * be all that it hears of a thread that hangs (docs/distributed.md).
 */
import { workerData } from 'node:worker_threads';

/** Two numbers: turns so far, and whether the thread is at work now. */
export const newTurns = () => new Int32Array(new SharedArrayBuffer(8));

const own = (workerData as { turns?: Int32Array } | null)?.turns ?? newTurns();

/** The engine's thread is at the end of a piece of work: a decode step, a micro-batch, a command. */
export function turn(working: boolean): void {
  Atomics.add(own, 0, 1);
  Atomics.store(own, 1, working ? 1 : 0);
}

/** What `wait` returns. Whoever waits for other ranks is not at work. */
export function whileWaiting<T>(wait: () => T): T {
  const working = Atomics.load(own, 1) === 1;
  turn(false);
  try {
    return wait();
  } finally {
    turn(working);
  }
}

/** Main thread: how long the engine's thread has been at the same piece of work, looked at from time to time. */
export class TurnWatch {
  readonly #turns: Int32Array;
  #count = -1;
  #since = 0;

  constructor(turns: Int32Array) {
    this.#turns = turns;
  }

  /** Milliseconds; 0 where it is not at work. */
  stalled(now: number): number {
    const count = Atomics.load(this.#turns, 0);
    if (count !== this.#count || Atomics.load(this.#turns, 1) === 0) this.#since = now;
    this.#count = count;
    return now - this.#since;
  }
}
