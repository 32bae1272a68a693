/**
 * Estimators that compare a call with its group.
 *
 *   grpo     (r − mean) / (deviation + 1e-6)   Shao et al. 2024; the deviation is unbiased, as in TRL and verl
 *   dr-grpo   r − mean                         Liu et al. 2025 ("Understanding R1-Zero-Like Training")
 *   rloo      r − mean of the others           Ahmadian et al. 2024
 */
import { groupBy } from '../../config/group-by.js';
import { deviationOf, meanOf } from './statistics.js';
import type { Estimator, EstimatorInput, RewardGroup } from './types.js';

/** std: of the group's samples. batch: of all rewards of the step's calls of one policy. none: 1. */
export type Scale = 'std' | 'batch' | 'none';

/** Added to the deviation, as in verl (1e-6; TRL: 1e-4). */
const EPSILON = 1e-6;

export function grpo(scale: Scale): Estimator {
  return (input) => {
    const ofBatch = scale === 'batch' ? policyDeviations(input) : new Map<string, number>();
    return groupAdvantages(input, (group) => {
      const mean = meanOf(group.samples);
      const deviation = scale === 'std' ? deviationOf(group.samples) : 0;
      return (reward, _sample, policy) => {
        if (scale === 'none') return reward - mean;
        return (reward - mean) / ((scale === 'std' ? deviation : (ofBatch.get(policy) ?? 0)) + EPSILON);
      };
    });
  };
}

export const rloo: Estimator = (input) =>
  groupAdvantages(input, ({ samples }) => {
    const sum = meanOf(samples) * samples.length;
    return (reward, sample) => reward - (sum - (samples[sample] ?? 0)) / (samples.length - 1);
  });

type AdvantageOf = (reward: number, sample: number, policy: string) => number;

/** 0 in groups that have nothing to compare, exactly. */
function groupAdvantages(
  { calls, groups }: EstimatorInput,
  advantageOf: (group: RewardGroup) => AdvantageOf,
): number[] {
  const advantages = calls.map(() => 0);
  for (const group of groups) {
    if (group.flat) continue;
    const of = advantageOf(group);
    for (const [i, member] of group.members.entries()) {
      const one = calls[member];
      if (one !== undefined) advantages[member] = of(one.reward, group.sampleOf[i] ?? 0, one.call.policy);
    }
  }
  return advantages;
}

function policyDeviations({ calls }: EstimatorInput): Map<string, number> {
  const rewards = groupBy(calls, ({ call }) => call.policy);
  return new Map([...rewards].map(([policy, its]) => [policy, deviationOf(its.map(({ reward }) => reward))]));
}
