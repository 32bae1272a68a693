/**
 * GSPO (Zheng et al. 2025): as GRPO, with one ratio for a whole response, the geometric mean of its tokens' ratios:
 *
 *   s = exp(mean over the response of log p − log p_old),  o = min(s A, clamp(s, 1 − clipLow, 1 + clipHigh) A)
 *   loss = −Σ weight · o
 *
 * No imports at run time (see grpo.ts).
 */
import type { LossFunction } from '../../engine/loss.js';

const gspo: LossFunction = (inputs, settings) => {
  const { logprobs, oldLogprobs, advantages, weights, calls, callCount, lengths } = inputs;
  const { clipLow, clipHigh } = settings as { clipLow: number; clipHigh: number };
  const ofCall = logprobs.sub(oldLogprobs).segmentSum(calls, callCount).div(lengths);
  const ratio = ofCall.exp().indexSelect(0, calls);
  const clipped = ratio.clamp(1 - clipLow, 1 + clipHigh);
  return ratio.mul(advantages).minimum(clipped.mul(advantages)).mul(weights).sum().neg();
};

export default gspo;
