/** Role calls as the engine's training step takes them. */
import { TroupeError } from '../config/errors.js';
import type { Ranks } from '../engine/ranks.js';
import type { TrainCall } from '../engine/types.js';
import type { Episode, RoleCall } from '../workflows/types.js';

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

interface CallOfProblem {
  call: RoleCall;
  episode: Pick<Episode, 'problemIndex'>;
}

/**
 * The rank that computes with each call, so that all have about as many rows: whole problems, whose calls share prompts.
 * `passes`: over a call's rows, relative to others.
 */
export function rankByRows<Call extends CallOfProblem>(
  ranks: Ranks,
  calls: readonly Call[],
  passes: (call: Call) => number = () => 1,
): (call: Call) => number {
  const costs = new Map<number, number>();
  const seen = new Set<string>();
  for (const one of ranks.size === 1 ? [] : calls) {
    const { prompt, completion, role } = one.call;
    const problem = one.episode.problemIndex;
    const key = `${problem} ${role} ${prompt.join()}`;
    const rows = completion.ids.length + (seen.has(key) ? 0 : prompt.length);
    seen.add(key);
    costs.set(problem, (costs.get(problem) ?? 0) + passes(one) * rows);
  }
  const rankOf = ranks.shares(costs);
  return ({ episode }) => rankOf(episode.problemIndex);
}
