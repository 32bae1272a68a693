/** A loss from a user's file: imported in the engine's thread, and what it returns checked. */
import { TroupeError } from '../config/errors.js';
import { importUserModule } from '../config/import-module.js';
import { shownValue } from '../config/thrown.js';
import { shownFile, userError } from '../config/user-code.js';
import { LOSS_EXPORT, type LossFunction } from './loss.js';
import { timed } from './loss-watch.js';
import type { Tensor } from './tensor.js';

/**
 * The loss that a file exports. It throws a TroupeError with the file's name where the user's function throws, returns
 * something else than a tensor, or one that has no gradient.
 */
export async function importLoss(file: string): Promise<LossFunction> {
  const loss = await importUserModule<LossFunction>(file, LOSS_EXPORT);
  const where = shownFile(file);
  return (inputs, settings) => {
    try {
      return checkedValue(
        timed(() => loss(inputs, settings)),
        where,
      );
    } catch (error) {
      throw userError(where, 'the loss', error);
    }
  };
}

function checkedValue(value: Tensor, where: string): Tensor {
  // Not instanceof: the file may have imported another copy of the class.
  const isTensor = typeof value?.backward === 'function';
  if (!isTensor || value.shape.length > 0) {
    const got = isTensor ? `a tensor of shape [${value.shape.join(', ')}]` : shownValue(value);
    const wanted = 'the loss has to return a scalar tensor, Σ weights · term';
    throw new TroupeError(`${wanted}; it returned ${got}.`, { where });
  }
  if (value.requiresGrad) return value;
  throw new TroupeError('the loss does not depend on the log-probabilities: it has no gradient.', { where });
}
