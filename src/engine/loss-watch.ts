/**
 * Whether a user's loss comes back. It runs in the engine's thread, which can then neither hear nor answer; the main
 * thread looks at what the two share.
 */
import { workerData } from 'node:worker_threads';
import { blockedSeconds } from '../config/user-code.js';

/** [0]: 1 while a loss runs; [1]: how many have begun. */
export type LossClock = Int32Array<SharedArrayBuffer>;

export const newLossClock = (): LossClock => new Int32Array(new SharedArrayBuffer(8));

/** Runs a loss; the engine's thread. */
export function timed<T>(loss: () => T): T {
  const clock = (workerData as { lossClock?: LossClock } | null)?.lossClock;
  if (clock === undefined) return loss();
  Atomics.add(clock, 1, 1);
  Atomics.store(clock, 0, 1);
  try {
    return loss();
  } finally {
    Atomics.store(clock, 0, 0);
  }
}

/** Milliseconds between two looks. */
const LOOK = 500;

/** Calls `blocked` once a loss has run for longer than a user's function may (`run.blockedSeconds`); the main thread. */
export function watchLoss(clock: LossClock, blocked: (seconds: number) => void): Disposable {
  let seen = 0;
  let still = 0;
  const timer = setInterval(() => {
    const begun = Atomics.load(clock, 1);
    still = Atomics.load(clock, 0) === 1 && begun === seen ? still + LOOK / 1000 : 0;
    seen = begun;
    const seconds = blockedSeconds();
    if (seconds === null || still < seconds) return;
    clearInterval(timer);
    blocked(seconds);
  }, LOOK).unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}
