/** Passes over accumulators against the reference, and against sums that are formed here. */
import { describe, expect, it } from 'vitest';
import { scope } from '../../src/engine/scope.js';
import { both, generator, random } from './kernels.js';

// Ranges with a gap between them, odd sizes.
const SIZE = 5000;
const RANGES = [0, 1023, 1, 1030, 2, 1, 1032, 2000, 1, 3040, 1500, 0];

const largestDifference = (a: Float64Array, b: Float64Array) =>
  a.reduce((most, value, i) => Math.max(most, Math.abs(value - (b[i] as number))), 0);

describe.each(['float32', 'float64'] as const)('%s', (dtype) => {
  it('Gram matrices of each range', () =>
    scope(() => {
      const next = generator(3);
      const vectors = [0, 1, 2].map(() => random(next, [SIZE], dtype));
      const natives = vectors.map((vector) => vector.native);
      const [a, b] = both((kernels) => kernels.gram(natives, RANGES));
      expect(a.length).toBe(4 * 9);
      expect(largestDifference(a, b)).toBeLessThan(1e-9);
      const values = vectors.map((vector) => vector.toArray());
      const product = (k: number, l: number) => {
        let sum = 0;
        for (let i = 1032; i < 3032; i++) sum += (values[k]?.[i] as number) * (values[l]?.[i] as number);
        return sum;
      };
      expect(a[2 * 9 + 3 * 2 + 1]).toBeCloseTo(product(2, 1), 8);
      expect(a[2 * 9 + 3 * 1 + 2]).toBeCloseTo(product(1, 2), 8);
      const [n, m] = both((kernels) => kernels.squaredNorm(natives));
      expect(Math.abs(n - m)).toBeLessThan(1e-8);
    }));
});
