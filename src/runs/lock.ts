/** One process at a time in a run directory. */
import { setTimeout } from 'node:timers/promises';
import { TroupeError } from '../config/errors.js';
import { SILENCE, type TakenBy, takeLock } from '../config/lock.js';

/** What a process says of a run that another one has. */
export const IN_USE = 'is in use by';

/** Milliseconds between two looks for a sign of life of a process of another host. */
const PAUSE = 1000;

/**
 * Takes the lock of a run directory and returns what frees it. Throws a TroupeError if a live process has it, this one
 * included.
 */
export function lockRun(run: string): () => void {
  const taken = takeLock(run);
  if (typeof taken === 'function') return taken;
  refuse(run, taken);
}

/**
 * The same of a run that is to go on: what a process of another host has left there is watched until it gives a sign of
 * life, and throws, or has given none for so long that it counts for nothing. `warn` hears of it, `signal` ends it.
 */
export async function lockAgain(
  run: string,
  warn: (message: string) => void,
  signal: AbortSignal | undefined,
): Promise<() => void> {
  const first = takeLock(run);
  if (typeof first === 'function') return first;
  if (first.sign === undefined) refuse(run, first);
  warn(
    `${run}: ${first.process} was at work on it; waiting up to ${SILENCE / 1000} seconds for a sign that it still is`,
  );
  for (;;) {
    await setTimeout(PAUSE, undefined, { signal });
    const taken = takeLock(run);
    if (typeof taken === 'function') return taken;
    if (taken.sign !== first.sign) refuse(run, taken);
  }
}

function refuse(run: string, taken: TakenBy): never {
  throw new TroupeError(`${IN_USE} ${taken.process}.`, {
    where: run,
    hint: 'Wait for it or stop it; two processes must not write one run.',
  });
}
