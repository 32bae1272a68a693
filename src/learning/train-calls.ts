/** Role calls as the engine's training step takes them, and what it measures of them. */
import { TroupeError } from '../config/errors.js';
import type { Ranks } from '../engine/ranks.js';
import type { TrainCall } from '../engine/types.js';
import type { RoleCall } from '../workflows/types.js';
import { rowsOf } from './prefixes.js';
import { type EpisodeCall, problemOf } from './step-call.js';
import type { Trainer } from './trainer.js';

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

/** How a call is computed: with the others of its group, whose rows it shares, in so many passes, relative to others. */
export interface Computed {
  group: number;
  passes: number;
}

/** The rank that computes with each call, so that all have about as many rows: whole problems, whose calls begin alike. */
export function rankByRows<Call extends EpisodeCall>(
  ranks: Pick<Ranks, 'size' | 'shares'>,
  calls: readonly Call[],
  computed: (call: Call) => Computed = () => ({ group: 0, passes: 1 }),
): (call: Call) => number {
  const together = new Map<string, { problem: number; passes: number; calls: RoleCall[] }>();
  for (const one of ranks.size === 1 ? [] : calls) {
    const { group, passes } = computed(one);
    const problem = problemOf(one);
    const key = `${problem} ${group} ${passes}`;
    const those = together.get(key) ?? { problem, passes, calls: [] };
    those.calls.push(one.call);
    together.set(key, those);
  }
  const costs = new Map<number, number>();
  for (const { problem, passes, calls: those } of together.values())
    costs.set(problem, (costs.get(problem) ?? 0) + passes * rowsOf(those));
  const rankOf = ranks.shares(costs);
  return (one) => rankOf(problemOf(one));
}

/**
 * Log p of the calls' responses, in the order of the calls, as the policy is now or under its reference. Each rank measures
 * its share of them.
 */
export async function logprobsOf(
  { engine, config, ranks }: Pick<Trainer, 'engine' | 'config' | 'ranks'>,
  policy: string,
  calls: readonly EpisodeCall[],
  { under, signal }: { under: 'policy' | 'reference'; signal: AbortSignal | undefined },
): Promise<Float32Array[]> {
  if (calls.length === 0) return [];
  const { microBatchRows } = config.learning;
  return ranks.each(`log p of ${policy}`, calls, rankByRows(ranks, calls), (own) => {
    const request = { policy, calls: own.map(({ call }) => asTrainCall(call)), microBatchRows, under };
    return engine.send('logprobs', request, signal);
  });
}
