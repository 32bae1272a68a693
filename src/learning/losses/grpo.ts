/**
 * GRPO (Shao et al. 2024) with the two clip bounds of DAPO (Yu et al. 2025), the dual clip of Ye et al. 2020, a
 * KL term (k3, Schulman 2020) and an entropy bonus, the last three off by default:
 *
 *   r = p / p_old,  o = min(r A, clamp(r, 1 − clipLow, 1 + clipHigh) A),  and where A < 0: max(o, dualClip · A)
 *   loss = Σ weight · (−o + kl (p_ref / p − log(p_ref / p) − 1) − entropy H)
 *
 * where a role may have a kl of its own (`interventions.roles`). The options are `learning.loss` of the configuration. No imports at run time: the engine worker may load this
 * file beside a compiled copy of the program, and a second Tensor class would escape its scopes.
 */
import type { LossFunction } from '../../engine/loss.js';

interface GrpoOptions {
  clipLow: number;
  clipHigh: number;
  dualClip: number | null;
  kl: number;
  entropy: number;
}

const grpo: LossFunction = (inputs, options) => {
  const { clipLow, clipHigh, dualClip, kl, entropy } = options as unknown as GrpoOptions;
  const { logprobs, oldLogprobs, referenceLogprobs, anchors, advantages, weights } = inputs;

  const ratio = logprobs.sub(oldLogprobs).exp();
  const clipped = ratio.clamp(1 - clipLow, 1 + clipHigh);
  let loss = ratio.mul(advantages).minimum(clipped.mul(advantages)).neg();
  // Where A ≥ 0 the loss is at most 0, so the bound acts only where A < 0.
  if (dualClip !== null) loss = loss.minimum(advantages.abs().mul(dualClip));
  if (kl > 0 || anchors !== undefined) {
    if (referenceLogprobs === undefined)
      throw new Error('a KL term needs the log-probabilities of the reference.');
    const difference = referenceLogprobs.sub(logprobs);
    loss = loss.add(
      difference
        .exp()
        .sub(difference)
        .sub(1)
        .mul(anchors ?? kl),
    );
  }
  if (entropy > 0) loss = loss.sub(inputs.entropy.mul(entropy));
  return loss.mul(weights).sum();
};

export default grpo;
