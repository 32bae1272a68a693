/** One process per run directory: two that write the same streams would destroy them. */
import { TroupeError } from '../config/errors.js';
import { takeLock } from '../config/lock.js';

/**
 * Takes the lock of a run directory and returns what frees it. Throws a TroupeError if another process has it that lives or
 * may live, and if this one has it.
 */
export function lockRun(run: string): () => void {
  const taken = takeLock(run);
  if (typeof taken === 'function') return taken;
  throw new TroupeError(`is in use by ${taken.process}.`, {
    where: run,
    hint: taken.hint ?? 'Wait for it or stop it; two processes must not write one run.',
  });
}
