/**
 * Importance weights between the policy that sampled and the one that the gradient is taken at: ρ = p_old / p_rollout, where
 * the trainer computes both of the same parameters and they differ by rounding, kernels or sampling options.
 *
 *   level     token: ρ of each token. sequence: the product over a response.
 *   outside   truncate: clamped to [low, high] (truncated importance sampling, Yao et al. 2025).
 *             mask: 0 outside of it (IcePop, Ling Team 2025; MIS, Liu et al. 2025).
 *
 * They are factors on the advantages, on which every loss of this program depends linearly once their signs are given:
 * the KL term and the entropy bonus stay what they are.
 */
import type { LossInputs } from './loss.js';
import type { Tensor } from './tensor.js';

export interface Importance {
  level: 'token' | 'sequence';
  outside: 'truncate' | 'mask';
  low: number;
  high: number;
}

type Weighed = Pick<LossInputs, 'oldLogprobs' | 'rolloutLogprobs' | 'calls' | 'callCount'>;

/** Weight of each token, without a gradient. [E] */
export function importanceWeights(
  { oldLogprobs, rolloutLogprobs, calls, callCount }: Weighed,
  { level, outside, low, high }: Importance,
): Tensor {
  const difference = oldLogprobs.detach().sub(rolloutLogprobs);
  const ratio =
    level === 'token'
      ? difference.exp()
      : difference.segmentSum(calls, callCount).exp().indexSelect(0, calls);
  // Clamped before it is masked: 0 · ∞ is no number.
  const bounded = ratio.clamp(low, high);
  if (outside === 'truncate') return bounded;
  return bounded.mul(ratio.ge(low).and(ratio.le(high)).to(ratio.dtype));
}
