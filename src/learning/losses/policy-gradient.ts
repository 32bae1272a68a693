/** REINFORCE (Williams 1992) on given advantages: −Σ w A log p. What `troupe gradients` differentiates. */
import type { LossFunction } from '../../engine/loss.js';

const policyGradient: LossFunction = ({ logprobs, advantages, weights }) =>
  logprobs.mul(advantages).mul(weights).sum().neg();

export default policyGradient;
