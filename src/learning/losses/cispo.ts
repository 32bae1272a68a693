/**
 * CISPO (MiniMax-M1, 2025): the clipped ratio is a constant factor, so that clipped tokens still teach:
 *
 *   loss = −Σ weight · stop_gradient(clamp(p / p_old, 1 − clipLow, 1 + clipHigh)) A log p
 *
 * No imports at run time (see grpo.ts).
 */
import type { LossFunction } from '../../engine/loss.js';

const cispo: LossFunction = ({ logprobs, oldLogprobs, advantages, weights }, settings) => {
  const { clipLow, clipHigh } = settings as { clipLow: number; clipHigh: number };
  const ratio = logprobs
    .detach()
    .sub(oldLogprobs)
    .exp()
    .clamp(1 - clipLow, 1 + clipHigh);
  return ratio.mul(advantages).mul(logprobs).mul(weights).sum().neg();
};

export default cispo;
