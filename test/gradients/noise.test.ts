/** The noise floor: on gradients made of a known signal and noise, and in a small run. */
import { describe, expect, it } from 'vitest';
import { NoiseFloor } from '../../src/gradients/noise.js';
import { Random } from '../../src/tasks/random.js';
import { trainedRun } from '../learning/trained-run.js';

const BUCKETS = 8;
const LENGTH = 4000;

/** Roughly normal, of unit variance. */
function noise(random: Random): number {
  let sum = -6;
  for (let i = 0; i < 12; i++) sum += random.next();
  return sum;
}

const dot = (a: readonly number[], b: readonly number[]) => a.reduce((sum, x, i) => sum + x * (b[i] ?? 0), 0);

/** groups · buckets vectors: signal of the group plus noise of the bucket. */
function gramOf(signals: readonly (readonly number[])[], spread: number, seed: number) {
  const random = new Random('test', seed);
  const vectors = signals.flatMap((signal) =>
    Array.from({ length: BUCKETS }, () => signal.map((value) => value + spread * noise(random))),
  );
  const values = vectors.flatMap((a) => vectors.map((b) => dot(a, b)));
  return { gram: { size: vectors.length, values: Float64Array.from(values) }, buckets: BUCKETS };
}

const random = new Random('signals');
const first = Array.from({ length: LENGTH }, () => noise(random));
const other = Array.from({ length: LENGTH }, () => noise(random));
/** Cosine −0.6 with `first`. */
const opposed = first.map((value, i) => -0.6 * value + 0.8 * (other[i] ?? 0));

it('without noise gives back the cosine of the signals', () => {
  const floor = new NoiseFloor(gramOf([first, opposed], 0, 1), 'sure');
  expect(floor.floor(0).reliability).toBeCloseTo(1, 9);
  expect(floor.corrected(0, 1, false).cosine).toBeCloseTo(-0.6, 1);
});

describe('a signal under noise', () => {
  const floor = new NoiseFloor(gramOf([first, opposed], 2, 1), 'a');

  it('has the split-half cosine that its noise allows', () => {
    // Half of 8 buckets: signal 4 s, noise 2 · √4, so r = 16 / (16 + 16); the whole: R = 64 / (64 + 32).
    const { splitHalf, reliability } = floor.floor(0);
    expect(splitHalf).toBeCloseTo(0.5, 1);
    expect(reliability).toBeCloseTo(2 / 3, 1);
  });

  it('has the cosine of the signals, with an interval around it', () => {
    const { cosine, low, high } = floor.corrected(0, 1, true);
    // Between halves −0.6 · r, with r = 0.5: over the whole's R = 2 / 3 it would be −0.45.
    expect(Math.abs((cosine as number) + 0.6)).toBeLessThan(0.05);
    expect(low).toBeLessThan(cosine as number);
    expect(high).toBeGreaterThan(cosine as number);
    expect(high).toBeLessThan(0);
    expect(floor.corrected(0, 1, false)).toEqual({ cosine, low: null, high: null });
  });

  it('is the same for the same name', () => {
    const again = new NoiseFloor(gramOf([first, opposed], 2, 1), 'a');
    expect(again.corrected(0, 1, true)).toEqual(
      new NoiseFloor(gramOf([first, opposed], 2, 1), 'a').corrected(0, 1, true),
    );
  });
});

it('of noise alone no conflict is claimed', () => {
  const zero = first.map(() => 0);
  let claimed = 0;
  for (let seed = 0; seed < 10; seed++) {
    const floor = new NoiseFloor(
      gramOf(
        [zero, zero].map((z) => z.slice(0, 200)),
        1,
        seed,
      ),
      seed,
    );
    expect(Math.abs(floor.floor(0).splitHalf as number)).toBeLessThan(0.3);
    const { high } = floor.corrected(0, 1, true);
    if (high !== null && high < 0) claimed += 1;
  }
  expect(claimed).toBeLessThanOrEqual(1);
});

it.each([
  [0, 1],
  [0, 3],
  [-0.3, 1],
  [-0.3, 3],
])(
  'of signals with cosine %d under noise %d the interval holds the truth in four of five trials at least',
  (cosine, spread) => {
    let held = 0;
    let measured = 0;
    for (let trial = 0; trial < 60; trial++) {
      const random = new Random('coverage', cosine, spread, trial);
      const a = Array.from({ length: 60 }, () => noise(random));
      const b = a.map((value) => cosine * value + Math.sqrt(1 - cosine ** 2) * noise(random));
      const truth = dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
      const { low, high } = new NoiseFloor(gramOf([a, b], spread, trial), trial).corrected(0, 1, true);
      if (low === null || high === null) continue;
      measured += 1;
      if (low <= truth && truth <= high) held += 1;
    }
    expect(measured).toBeGreaterThan(40);
    expect(held / measured).toBeGreaterThan(0.8);
  },
);

it('a group without a gradient has none', () => {
  const zero = new Array<number>(10).fill(0);
  const floor = new NoiseFloor(gramOf([zero, first.slice(0, 10)], 0, 1), 'zero');
  expect(floor.floor(0)).toEqual({ splitHalf: null, reliability: null });
  expect(floor.corrected(0, 1, true)).toEqual({ cosine: null, low: null, high: null });
});

describe('a run', () => {
  it('measures it on every n-th step, and all else as without it', async () => {
    const over = { policies: { sharing: 'shared' as const }, steps: 2 };
    const plain = await trainedRun(over);
    const measured = await trainedRun({ ...over, gradients: { promptBuckets: 2, everySteps: 2 } });
    const total = (rows: Record<string, unknown>[]) =>
      rows.filter((row) => row.scope === 'total' && row.grouping === 'role' && row.step === 0);
    const [before, after] = [plain, measured].map((run) => total(run.rows('gradients')));
    expect(after).toHaveLength(before?.length ?? 0);
    after?.forEach((row, i) => {
      expect(row.norm).toBeCloseTo(before?.[i]?.norm as number, 4);
      // AdamW's first step scales every element to one size: what rounding leaves of small ones shows.
      expect(row.optimizer_share).toBeCloseTo(before?.[i]?.optimizer_share as number, 2);
      expect(row.calls).toBe(before?.[i]?.calls);
    });
    expect(after?.some((row) => row.split_half !== null)).toBe(true);
    const later = measured.rows('gradients').filter((row) => row.step === 1);
    expect(later.every((row) => row.split_half === null)).toBe(true);
  });
});
