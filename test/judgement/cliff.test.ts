/** Fails if a fall is missed, if chance is called a fall, or if a run gets the wrong label. Synthetic runs. */
import { describe, expect, it } from 'vitest';
import { findCliff, terminalLabel } from '../../src/judgement/cliff.js';
import type { EvaluationPoint } from '../../src/judgement/history.js';
import { accuracyOf, normalQuantile, pairedDifference } from '../../src/judgement/paired.js';
import { randomStream } from '../../src/learning/random.js';

const outcomes = (correct: boolean[][]) => new Map(correct.map((samples, i) => [`p${i}`, samples]));

/** An evaluation with the first `right` of `problems` problems right. */
const exact = (step: number, right: number, problems = 100): EvaluationPoint => {
  return { step, correct: outcomes(Array.from({ length: problems }, (_, i) => [i < right])) };
};

describe('paired difference', () => {
  it('is the interval of Bonett and Price for single samples', () => {
    // 10 problems right only first, 2 only second, 100 in all.
    const first = outcomes(Array.from({ length: 100 }, (_, i) => [i < 60]));
    const second = outcomes(Array.from({ length: 100 }, (_, i) => [(i >= 10 && i < 60) || i >= 98]));
    const [p12, p21, n] = [11 / 102, 3 / 102, 102];
    const centre = p12 - p21;
    const half = 1.959964 * Math.sqrt((p12 + p21 - centre ** 2) / n);
    const found = pairedDifference(first, second);
    expect(found?.difference).toBeCloseTo(0.08);
    expect(found?.low).toBeCloseTo(centre - half, 3);
    expect(found?.high).toBeCloseTo(centre + half, 3);
  });

  it('is narrower than two separate accuracies where problems agree, and never without a width', () => {
    const found = pairedDifference(exact(0, 50).correct, exact(1, 50).correct);
    expect(found?.difference).toBe(0);
    expect((found?.high ?? 0) - (found?.low ?? 0)).toBeGreaterThan(0.02);
    expect((found?.high ?? 0) - (found?.low ?? 0)).toBeLessThan(0.1);
  });

  it('counts a problem once, however many samples it has, and only common problems', () => {
    const first = outcomes([
      [true, true],
      [true, false],
    ]);
    const second = new Map([
      ...outcomes([
        [false, true],
        [false, true],
      ]),
      ['other', [true]],
    ]);
    expect(pairedDifference(first, second)).toMatchObject({ difference: 0.25, problems: 2 });
    expect(pairedDifference(first, new Map())).toBeNull();
    expect(accuracyOf(new Map())).toBeNull();
  });

  it('knows the normal distribution', () => {
    expect(normalQuantile(0.975)).toBeCloseTo(1.95996, 3);
    expect(normalQuantile(0.9995)).toBeCloseTo(3.29053, 3);
  });
});

/** A run whose problems each have a fixed difficulty; `level(i)` is the model's skill at evaluation i. */
function run(seed: number, level: (i: number) => number, length = 12, problems = 100): EvaluationPoint[] {
  const random = randomStream(seed);
  const difficulty = Array.from({ length: problems }, random);
  return Array.from({ length }, (_, i) => ({
    step: 10 * i,
    correct: outcomes(difficulty.map((d) => [random() < (level(i) > d ? 0.9 : 0.1)])),
  }));
}

describe('cliffs', () => {
  it('have a peak, a drop and an onset', () => {
    const accuracies = [30, 50, 70, 68, 40, 35, 30];
    const cliff = findCliff(accuracies.map((right, i) => exact(10 * i, right)));
    expect(cliff).toMatchObject({ fallen: true, onset: 40 });
    expect(cliff?.peak).toEqual({ step: 20, accuracy: 0.7 });
    expect(cliff?.drop?.difference).toBeCloseTo(0.4);
    expect(terminalLabel(cliff, [])).toBe('cliff');
  });

  it('are over when the run recovers', () => {
    const cliff = findCliff([30, 70, 40, 69].map((right, i) => exact(i, right)));
    expect(cliff).toMatchObject({ fallen: false, onset: null });
    expect(terminalLabel(cliff, [])).toBe('improved');
  });

  it('are rarely seen in flat runs, although their peak is chosen after the fact', () => {
    const runs = Array.from({ length: 200 }, (_, seed) => findCliff(run(seed, () => 0.5)));
    const labels = runs.map((cliff) => terminalLabel(cliff, []));
    expect(labels.filter((label) => label === 'cliff').length).toBeLessThanOrEqual(10);
    // The uncorrected interval of the final gain is wrong once in forty, each way.
    expect(labels.filter((label) => label === 'flat').length).toBeGreaterThan(175);
  });

  it('are found in runs that rise and fall, not in those that rise', () => {
    const seeds = Array.from({ length: 50 }, (_, seed) => seed);
    const falls = seeds.map((seed) => findCliff(run(seed, (i) => (i < 6 ? 0.3 + 0.08 * i : 0.3))));
    expect(falls.filter((cliff) => cliff?.fallen).length).toBeGreaterThan(45);
    const onsets = falls.flatMap((cliff) => cliff?.onset ?? []);
    expect(onsets.filter((step) => step === 60).length).toBeGreaterThan(0.8 * onsets.length);
    const rises = seeds.map((seed) => findCliff(run(seed, (i) => 0.3 + 0.05 * i)));
    const labels = rises.map((cliff) => terminalLabel(cliff, []));
    expect(labels.filter((label) => label === 'improved').length).toBeGreaterThan(45);
  });

  it('need a drop that matters', () => {
    const points = [exact(0, 5000, 10_000), exact(1, 4900, 10_000)];
    expect(findCliff(points)?.drop?.low).toBeGreaterThan(0);
    expect(findCliff(points)).toMatchObject({ fallen: false });
    expect(findCliff(points, 0.005)).toMatchObject({ fallen: true });
  });

  it('need something to compare', () => {
    expect(findCliff([])).toBeNull();
    expect(findCliff([{ step: 0, correct: new Map() }])).toBeNull();
    const one = findCliff([exact(0, 5)]);
    expect(one).toMatchObject({ drop: null, gain: null, fallen: false, onset: null });
    expect(terminalLabel(one, [])).toBeNull();
    expect(terminalLabel(null, [])).toBeNull();
  });

  it('of a captured run say so rather than cliff, and need two evaluations all the same', () => {
    const capture = [{ policy: 'shared', role: 'generator', massShare: 0.9, signatures: [] }];
    const fallen = findCliff([exact(0, 30), exact(1, 70), exact(2, 30)]);
    expect(terminalLabel(fallen, capture)).toBe('capture');
    expect(terminalLabel(fallen, [])).toBe('cliff');
    expect(terminalLabel(findCliff([exact(0, 5)]), capture)).toBeNull();
  });
});
