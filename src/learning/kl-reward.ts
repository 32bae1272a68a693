/**
 * The KL term in the reward: coefficient · Σ k over a call's tokens is taken from what it earns, with k an estimate of
 * KL(p ‖ p_ref) (engine/regularisers.ts) where p is the policy that sampled: as the rollout has it, or with
 * `oldLogprobs: trainer` as the trainer does. With k1 as RLOO (Ahmadian et al. 2024) and TRL's RLOOTrainer have it.
 */
import { TroupeError } from '../config/errors.js';
import type { RunConfig } from '../config/schema.js';
import { byPlace, type RewardedCall } from './step-call.js';
import { logprobsOf } from './train-calls.js';
import type { Trainer } from './trainer.js';
import { interventionsOf, klCoefficient } from './treatment.js';

type KlEstimator = RunConfig['learning']['kl']['estimator'];

/** The calls with what KL takes from them, a value of its own. As they are where it is no part of the reward. */
export async function withKlReward(
  trainer: Trainer,
  rewarded: readonly RewardedCall[],
  signal: AbortSignal | undefined,
): Promise<RewardedCall[]> {
  const { config, policies } = trainer;
  const { kl, oldLogprobs } = config.learning;
  if (kl.in !== 'reward') return [...rewarded];
  const isTaken = ({ call }: RewardedCall) =>
    call.completion.ids.length > 0 &&
    klCoefficient(config, call.role) > 0 &&
    !interventionsOf(config.interventions, call.role).freeze;
  const all: RewardedCall[] = [];
  for (const { name, freeze } of policies) {
    const its = rewarded.filter(({ call }) => call.policy === name);
    const taken = its.filter((one) => !freeze && isTaken(one));
    const reference = await logprobsOf(trainer, name, taken, { under: 'reference', signal });
    const old = taken.map(({ call }) => call.completion.logprobs);
    const sampled =
      oldLogprobs === 'trainer' ? await logprobsOf(trainer, name, taken, { under: 'policy', signal }) : old;
    all.push(...its.filter((one) => freeze || !isTaken(one)));
    for (const [i, one] of taken.entries()) {
      const [policy, other] = [sampled[i], reference[i]] as [Float32Array, Float32Array];
      all.push(lessKl(one, divergence(policy, other, kl.estimator), config));
    }
  }
  return all.sort(byPlace);
}

function lessKl(one: RewardedCall, value: number, config: RunConfig): RewardedCall {
  const weight = -klCoefficient(config, one.call.role);
  const values = [...one.values, { name: 'kl', weight, value }];
  const reward = one.reward instanceof TroupeError ? one.reward : one.reward + weight * value;
  return { ...one, values, reward };
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
