/**
 * The KL term in the reward: coefficient · Σ k over a call's tokens is taken from what it earns, with k an estimate of
 * KL(p ‖ p_ref) (engine/regularisers.ts) where p is the policy that sampled: as the rollout has it, or with
 * `oldLogprobs: trainer` as the trainer does. With k1 as RLOO (Ahmadian et al. 2024) and TRL's RLOOTrainer have it.
 */
import { TroupeError } from '../config/errors.js';
import type { RunConfig } from '../config/schema.js';
import type { RewardedCall } from './rewards.js';
import { asTrainCall, rankByRows } from './train-calls.js';
import type { Trainer } from './trainer.js';
import { interventionsOf, klCoefficient } from './treatment.js';

type KlEstimator = RunConfig['learning']['kl']['estimator'];

/** The calls with what KL takes from them, a value of its own. As they are where it is no part of the reward. */
export async function withKlReward(
  { config, engine, policies, ranks }: Trainer,
  rewarded: readonly RewardedCall[],
  signal: AbortSignal | undefined,
): Promise<RewardedCall[]> {
  const { kl, oldLogprobs, microBatchRows } = config.learning;
  const taken = new Map<RewardedCall, { weight: number; value: number }>();
  for (const policy of kl.in === 'reward' ? policies.filter(({ freeze }) => !freeze) : []) {
    const its = rewarded.filter(
      ({ call }) =>
        call.policy === policy.name &&
        call.completion.ids.length > 0 &&
        klCoefficient(config, call.role) > 0 &&
        !interventionsOf(config.interventions, call.role).freeze,
    );
    const rankOf = rankByRows(ranks, its);
    const measure = (under: 'policy' | 'reference') => {
      return ranks.each(`log p of ${policy.name}`, its, rankOf, (own) => {
        const calls = own.map(({ call }) => asTrainCall(call));
        return engine.send('logprobs', { policy: policy.name, calls, microBatchRows, under }, signal);
      });
    };
    if (its.length === 0) continue;
    const reference = await measure('reference');
    const old = oldLogprobs === 'trainer' ? await measure('policy') : undefined;
    for (const [i, one] of its.entries()) {
      const sampled = old?.[i] ?? one.call.completion.logprobs;
      const value = divergence(sampled, reference[i] ?? sampled, kl.estimator);
      taken.set(one, { weight: -klCoefficient(config, one.call.role), value });
    }
  }
  return rewarded.map((one) => {
    const part = taken.get(one);
    if (part === undefined) return one;
    const values = [...one.values, { name: 'kl', ...part }];
    const reward = one.reward instanceof TroupeError ? one.reward : one.reward + part.weight * part.value;
    return { ...one, values, reward };
  });
}

/** Σ k over the tokens, nats. */
export function divergence(policy: Float32Array, reference: Float32Array, estimator: KlEstimator): number {
  let sum = 0;
  for (const [t, logprob] of policy.entries()) {
    const d = logprob - (reference[t] ?? 0);
    // expm1 keeps the digits that exp(−d) − 1 loses for small d.
    sum += { k1: d, k2: (d * d) / 2, k3: Math.expm1(-d) + d }[estimator];
  }
  return sum;
}
