/**
 * GRPO (Shao et al. 2024) with the two clip bounds of DAPO (Yu et al. 2025) and the dual clip of Ye et al. 2020, which is
 * off by default:
 *
 *   r = p / p_old,  o = min(r A, clamp(r, 1 − clipLow, 1 + clipHigh) A),  and where A < 0: max(o, dualClip · A)
 *   loss = −Σ weight · o
 *
 * No imports at run time: the engine worker may load this file beside a compiled copy of the program, and a second
 * Tensor class would escape its scopes.
 */
import type { LossFunction } from '../../engine/loss.js';

interface GrpoSettings {
  clipLow: number;
  clipHigh: number;
  dualClip: number | null;
}

const grpo: LossFunction = ({ logprobs, oldLogprobs, advantages, weights }, settings) => {
  const { clipLow, clipHigh, dualClip } = settings as unknown as GrpoSettings;
  const ratio = logprobs.sub(oldLogprobs).exp();
  const clipped = ratio.clamp(1 - clipLow, 1 + clipHigh);
  let loss = ratio.mul(advantages).minimum(clipped.mul(advantages)).neg();
  // Where A ≥ 0 the loss is at most 0, so the bound acts only where A < 0.
  if (dualClip !== null) loss = loss.minimum(advantages.abs().mul(dualClip));
  return loss.mul(weights).sum();
};

export default grpo;
