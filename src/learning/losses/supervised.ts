/** Cross entropy on given responses: −Σ w log p. The loss of `troupe sft`. */
import type { LossFunction } from '../../engine/loss.js';

const supervised: LossFunction = ({ logprobs, weights }) => logprobs.mul(weights).sum().neg();

export default supervised;
