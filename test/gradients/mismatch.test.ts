/** Mismatch between trainer and rollout against the formulas written out, and against NumPy's conventions. */
import { describe, expect, it } from 'vitest';
import { mismatch, quantile, responses, standardDeviation } from '../../src/gradients/mismatch.js';

const clip = { low: 0.2, high: 0.28, level: 'token' } as const;

function callOf(rollout: number[], trainer: number[], advantage = 1, entropy = trainer.map(() => 1)) {
  return {
    rollout: Float32Array.from(rollout),
    trainer: Float32Array.from(trainer),
    entropy: Float32Array.from(entropy),
    advantage,
  };
}

describe('mismatch', () => {
  it('counts tokens whose importance weight lies outside its bounds, of each token and of the response', () => {
    // p_old / p_rollout: e^0.5, e^-0.25, e^0; the product of the three is e^0.25.
    const call = { ...callOf([-1, -1, -1], [-3, -3, -3]), old: Float32Array.of(-0.5, -1.25, -1) };
    const share = (level: 'token' | 'sequence', low: number, high: number) =>
      mismatch([call], undefined, { level, low, high }).importanceOutsideShare;
    expect(share('token', 0.5, 1.5)).toBeCloseTo(1 / 3, 12);
    expect(share('token', 0.8, 1.5)).toBeCloseTo(2 / 3, 12);
    expect(share('sequence', 0.8, 1.2)).toBe(1);
    expect(share('sequence', 0.8, 1.3)).toBe(0);
    expect(mismatch([call], undefined).importanceOutsideShare).toBeNull();
  });

  it('is nothing where trainer and rollout agree', () => {
    const result = mismatch([callOf([-1, -2], [-1, -2])], clip);
    expect(result).toMatchObject({ klK1: 0, klK3: 0, chiSquared: 0, perplexityRatio: 1, entropy: 1 });
    expect(result).toMatchObject({ calls: 1, tokens: 2, clipLowShare: 0, clipHighShare: 0 });
    expect(result.perplexity).toBeCloseTo(Math.exp(1.5), 12);
  });

  it('follows its formulas', () => {
    // Values exact in binary: d = 0.5, −0.25 and 0.25.
    const result = mismatch([callOf([-1, -1], [-0.5, -1.25]), callOf([-2], [-1.75])], clip);
    const d = [0.5, -0.25, 0.25];
    const mean = (of: (x: number) => number) => d.reduce((sum, x) => sum + of(x), 0) / d.length;
    expect(result.klK1).toBeCloseTo(
      mean((x) => -x),
      14,
    );
    expect(result.klK3).toBeCloseTo(
      mean((x) => Math.exp(x) - x - 1),
      14,
    );
    expect(result.chiSquared).toBeCloseTo(mean((x) => Math.exp(2 * x)) - 1, 14);
    expect(result.perplexity).toBeCloseTo((Math.exp(1.75 / 2) + Math.exp(1.75)) / 2, 14);
    expect(result.perplexityRatio).toBeCloseTo((Math.exp(-0.25 / 2) + Math.exp(-0.25)) / 2, 14);
  });

  it('counts a token as clipped only on the side that its advantage pushes to', () => {
    // Ratios e^0.5 > 1.28 and e^−0.5 < 0.8.
    const up = mismatch([callOf([-1, -1], [-0.5, -1.5], 1)], clip);
    expect(up).toMatchObject({ clipLowShare: 0, clipHighShare: 0.5 });
    const down = mismatch([callOf([-1, -1], [-0.5, -1.5], -1)], clip);
    expect(down).toMatchObject({ clipLowShare: 0.5, clipHighShare: 0 });
    // The ratio of the response is exp((0.5 − 0.5) / 2) = 1, and one with other old log-probabilities is e.
    const whole = { ...clip, level: 'sequence' } as const;
    const call = callOf([-1, -1], [-0.5, -1.5], 1);
    expect(mismatch([call], whole)).toMatchObject({ clipLowShare: 0, clipHighShare: 0 });
    const old = Float32Array.of(-1.5, -2.5);
    expect(mismatch([{ ...call, old }], whole)).toMatchObject({ clipLowShare: 0, clipHighShare: 1 });
    expect(mismatch([call], undefined)).toMatchObject({ clipLowShare: null, clipHighShare: null });
  });

  it('keeps a token that is far off finite, and k1 unclamped', () => {
    const result = mismatch([callOf([-1000], [0])], clip);
    expect(result.klK1).toBe(-1000);
    expect(result.klK3).toBeCloseTo(Math.exp(20) - 21, 4);
    expect(Number.isFinite(result.chiSquared)).toBe(true);
  });

  it('lets a sampled call stand for several', () => {
    const sampled = mismatch([callOf([-1], [-0.5]), { ...callOf([-1], [-1]), weight: 3 }], clip);
    const all = mismatch([callOf([-1], [-0.5]), ...[1, 2, 3].map(() => callOf([-1], [-1]))], clip);
    expect(sampled).toEqual({ ...all, calls: 2, tokens: 2 });
  });

  it('is null without tokens, and refuses arrays of different lengths', () => {
    expect(mismatch([callOf([], [])], clip)).toMatchObject({
      calls: 0,
      klK1: null,
      perplexity: null,
      entropy: null,
    });
    expect(() => mismatch([callOf([-1], [-1, -2])], clip)).toThrow(RangeError);
  });
});

describe('responses', () => {
  const call = (tokens: number, reward: number, advantageGroup: string, truncated = false) => {
    // Only b's rewards differ.
    const flat = advantageGroup !== 'b';
    return { tokens, reward, advantageGroup, truncated, flat, advantage: reward - 0.5 };
  };

  it('describe lengths, rewards and groups', () => {
    const result = responses([
      call(10, 1, 'a'),
      call(20, 1, 'a'),
      call(30, 0, 'b', true),
      call(40, 1, 'b'),
      call(50, 0.5, 'c'),
    ]);
    // A group that varies through another role's calls alone does vary.
    const other = responses([{ ...call(1, 1, 'b'), flat: false }]);
    expect(other.zeroVarianceShare).toBe(0);
    expect(result).toMatchObject({ calls: 5, tokens: 150, lengthMean: 30, lengthP50: 30, lengthP95: 48 });
    expect(result.rewardMean).toBeCloseTo(0.7, 14);
    expect(result.rewardStd).toBeCloseTo(Math.sqrt(0.8 / 4), 14);
    expect(result).toMatchObject({ truncatedShare: 0.2, zeroAdvantageShare: 0.2, correctShare: null });
    expect(result.zeroVarianceShare).toBeCloseTo(2 / 3, 14);
  });

  it('of a role that was never called are null', () => {
    expect(responses([])).toMatchObject({
      calls: 0,
      rewardMean: null,
      lengthP95: null,
      zeroVarianceShare: null,
    });
  });

  it('have quantiles as NumPy interpolates them', () => {
    expect(quantile([4, 1, 3, 2], 0.95)).toBeCloseTo(3.85, 12);
    expect(quantile([7], 0.5)).toBe(7);
    expect(standardDeviation([1])).toBeNull();
  });
});
