/** Role calls as the engine's training step takes them. */
import { TroupeError } from '../config/errors.js';
import type { TrainCall } from '../engine/types.js';
import type { RoleCall } from '../workflows/types.js';

/** Without advantage and weight: for what is only measured. Throws a TroupeError for one sampled at temperature 0. */
export function asTrainCall({ prompt, completion, sampling, role, slot, turn }: RoleCall): TrainCall {
  if (sampling.temperature === 0) {
    throw new TroupeError('was sampled at temperature 0; it takes more than 0 to train.', {
      where: `call ${role}/${slot}/${turn}`,
      hint: `Let the workflow sample it, or freeze the role (interventions.roles.${role}.freeze).`,
    });
  }
  return {
    prompt,
    response: completion.ids,
    rolloutLogprobs: completion.logprobs,
    temperature: sampling.temperature,
    advantage: 0,
    weight: 0,
    group: 0,
  };
}
