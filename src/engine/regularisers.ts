/**
 * What is added to every loss: a KL term against the reference and an entropy bonus,
 *
 *   Σ weight · (c · k − e · H)
 *
 * with the entropy H of the distribution that the token was drawn from, and one of Schulman's estimators of KL(p ‖ p_ref)
 * ("Approximating KL divergence", 2020), d = log p − log p_ref:  k1 = d,  k2 = d² / 2,  k3 = exp(−d) + d − 1.
 */
import type { LossInputs } from './loss.js';
import type { Tensor } from './tensor.js';

export type KlEstimator = 'k1' | 'k2' | 'k3';

export interface Regularisation {
  kl: KlEstimator;
  /** Coefficient e of the entropy bonus. */
  entropy: number;
}

/** `inputs` may hold coefficients c for the KL term, [E]; without them there is none. Undefined where nothing is added. */
export function regularisers(
  { logprobs, entropy, referenceLogprobs, weights }: LossInputs,
  anchors: Tensor | undefined,
  options: Regularisation,
): Tensor | undefined {
  let term: Tensor | undefined;
  if (anchors !== undefined && referenceLogprobs !== undefined) {
    term = klTerms(logprobs.sub(referenceLogprobs), options.kl).mul(anchors);
  }
  if (options.entropy > 0) {
    const bonus = entropy.mul(-options.entropy);
    term = term === undefined ? bonus : term.add(bonus);
  }
  return term?.mul(weights).sum();
}

/** `difference`: log p − log p_ref. */
function klTerms(difference: Tensor, estimator: KlEstimator): Tensor {
  if (estimator === 'k1') return difference;
  if (estimator === 'k2') return difference.mul(difference).mul(0.5);
  return difference.neg().exp().add(difference).sub(1);
}
