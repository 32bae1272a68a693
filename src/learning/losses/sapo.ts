/**
 * SAPO (Gao et al. 2025): a soft gate on the ratio r = p / p_old in the place of clipping,
 *
 *   loss = −Σ weight · σ(τ (r − 1)) · 4 / τ · A   with τ = temperaturePositive where A > 0, else temperatureNegative
 *
 * whose slope at r = 1 is that of the plain ratio. No imports at run time (see grpo.ts).
 */
import type { LossFunction } from '../../engine/loss.js';

interface SapoSettings {
  temperaturePositive: number;
  temperatureNegative: number;
}

const sapo: LossFunction = ({ logprobs, oldLogprobs, advantages, weights }, settings) => {
  const { temperaturePositive, temperatureNegative } = settings as unknown as SapoSettings;
  const isPositive = advantages.gt(0).to(advantages.dtype);
  const temperature = isPositive.mul(temperaturePositive - temperatureNegative).add(temperatureNegative);
  const distance = logprobs.sub(oldLogprobs).exp().sub(1);
  const gate = distance.mul(temperature).sigmoid().mul(4).div(temperature);
  return gate.mul(advantages).mul(weights).sum().neg();
};

export default sapo;
