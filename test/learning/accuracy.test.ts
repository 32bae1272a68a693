/** Intervals of accuracies. Fails if answers to one problem count as if each were about a problem of its own. */
import { expect, test } from 'vitest';
import { accuracy } from '../../src/learning/accuracy.js';

test("is Wilson's", () => {
  // Brown, Cai and DasGupta 2001, equation 4, by hand for 3 of 10.
  const { mean, low, high } = accuracy(3, 10);
  expect(mean).toBe(0.3);
  expect(low).toBeCloseTo(0.1078, 4);
  expect(high).toBeCloseTo(0.6032, 4);
});

test('is as wide for several answers to each problem as for one', () => {
  const one = accuracy(30, 100);
  const { correct, total, ...eight } = accuracy(240, 800, 100);
  expect({ correct, total }).toEqual({ correct: 240, total: 800 });
  expect(one).toMatchObject(eight);
  expect(accuracy(240, 800).low).toBeGreaterThan(one.low as number);
});

test('of nothing there is none', () => {
  expect(accuracy(0, 0)).toEqual({ correct: 0, total: 0, mean: null, low: null, high: null });
});
