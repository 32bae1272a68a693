/** One process per run directory: two that write the same streams would destroy them. */
import { TroupeError } from '../config/errors.js';
import { takeLock } from '../config/lock.js';

/**
 * Takes the lock of a run directory and returns what frees it. Throws a TroupeError if a live process has it, this one
 * included.
 */
export function lockRun(run: string): () => void {
  const taken = takeLock(run);
  if (typeof taken === 'function') return taken;
  throw new TroupeError(`is in use by process ${taken}.`, {
    where: run,
    hint: 'Wait for it or stop it; two processes must not write one run.',
  });
}
