/**
 * REINFORCE++ (Hu et al. 2025): rewards, less the group's mean in the variant with a baseline, normalised over all response
 * tokens of the step's calls of one policy:
 *
 *   A = (a − mean) / √(variance + 1e-8)   with a = r  or  a = r − mean of the group
 *
 * Mean and unbiased variance count each call as often as it has tokens, as verl (masked_whiten) and OpenRLHF do.
 */
import { groupBy } from '../../config/group-by.js';
import { sumOverCalls } from '../reduction.js';
import { isFlat, meanOf } from './statistics.js';
import type { Estimator, EstimatorInput } from './types.js';

const EPSILON = 1e-8;

export function reinforcePlusPlus(baseline: boolean): Estimator {
  return (input) => {
    const values = baseline ? centred(input) : input.calls.map(({ reward }) => reward);
    const advantages = values.map(() => 0);
    const indices = groupBy([...values.keys()], (i) => input.calls[i]?.call.policy ?? '');
    for (const its of indices.values()) {
      const lengths = its.map((i) => input.calls[i]?.call.completion.ids.length ?? 0);
      const whitened = whiten(
        its.map((i) => values[i] ?? 0),
        lengths,
      );
      for (const [k, i] of its.entries()) advantages[i] = whitened[k] ?? 0;
    }
    return advantages;
  };
}

function centred({ calls, groups }: EstimatorInput): number[] {
  const values = calls.map(() => 0);
  for (const { members, samples, flat } of groups) {
    if (flat) continue;
    const mean = meanOf(samples);
    for (const member of members) values[member] = (calls[member]?.reward ?? 0) - mean;
  }
  return values;
}

/** Values of equal weight for each of their `counts`. All 0 where there is nothing to tell apart. */
function whiten(values: readonly number[], counts: readonly number[]): number[] {
  const total = sumOverCalls(counts);
  if (isFlat(values) || total < 2) return values.map(() => 0);
  const weighted = (of: (value: number) => number) =>
    sumOverCalls(values.map((value, i) => of(value) * (counts[i] ?? 0)));
  const mean = weighted((value) => value) / total;
  const variance = weighted((value) => (value - mean) ** 2) / (total - 1);
  return values.map((value) => (value - mean) / Math.sqrt(variance + EPSILON));
}
