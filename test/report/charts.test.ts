/** Numbers and lines of pictures: what a reader sees is what was measured. */
import { describe, expect, it } from 'vitest';
import { runSchema } from '../../src/config/schema.js';
import { lineChart, meanBins, shortNumber, withGaps } from '../../src/report/charts.js';
import { matrices, stepHeatMap } from '../../src/report/heat-maps.js';
import { distinctNames, settingsOf } from '../../src/report/run-names.js';

const points = (...steps: number[]) => steps.map((step) => ({ step, value: step, series: 'a' }));
const textsOf = (svg: string) => [...svg.matchAll(/<text[^>]*>([^<]*)</g)].map(([, text]) => text);

describe('labels of an axis', () => {
  it.each([
    [0, '0'],
    [1.5e-7, '1.5e-7'],
    [0.00025, '2.5e-4'],
    [0.001, '0.001'],
    [0.25, '0.25'],
    [-1.5, '-1.5'],
    [12_000, '12,000'],
    [2e6, '2e6'],
    [1.234e12, '1.23e12'],
  ])('%d is %s', (value, text) => {
    expect(shortNumber(value)).toBe(text);
  });

  it('have room beside the axis, however small the numbers', () => {
    const small = [0, 1, 2].map((step) => ({ step, value: step * 7.5e-8, series: 'a' }));
    const labels = textsOf(lineChart({ unit: 'nats', points: small })).filter((text) => text?.includes('e-'));
    expect(labels).toContain('1.4e-7');
    expect(Math.max(...labels.map((text) => text?.length ?? 0))).toBeLessThanOrEqual(7);
  });
});

describe('lines', () => {
  it('break where steps have no value', () => {
    expect(withGaps(points(0, 1, 2, 6, 7)).map(({ value }) => value)).toEqual([0, 1, 2, Number.NaN, 6, 7]);
    expect(withGaps(points(0, 10, 20, 23)).some(({ value }) => Number.isNaN(value))).toBe(false);
    const path = (svg: string) =>
      /aria-label="line"[^>]*><path d="([^"]*)"/.exec(svg)?.[1]?.match(/M/g)?.length;
    expect(path(lineChart({ unit: '', points: points(0, 1, 2, 3) }))).toBe(1);
    expect(path(lineChart({ unit: '', points: points(0, 1, 2, 6, 7) }))).toBe(2);
  });

  it('that are long are means of the same steps, gaps or not', () => {
    const many = points(...Array.from({ length: 400 }, (_, i) => (i < 200 ? i : i + 100)));
    const bins = meanBins(many, 100);
    expect(bins.slice(0, 2)).toEqual([
      { step: 0, value: 2 },
      { step: 5, value: 7 },
    ]);
    expect(bins.filter(({ step }) => step > 200 && step < 300)).toEqual([]);
    expect(bins.at(-1)).toEqual({ step: 495, value: 497 });
  });

  it('have labels that end inside the picture', () => {
    const svg = lineChart({ unit: '', points: points(0, 10, 20), marks: [{ step: 20, label: 'peak' }] });
    expect(svg).toMatch(/text-anchor="end"[^<]*<text[^>]*>peak/);
    const early = lineChart({ unit: '', points: points(0, 10, 20), marks: [{ step: 0, label: 'peak' }] });
    expect(early).toMatch(/text-anchor="start"[^<]*<text[^>]*>peak/);
  });
});

describe('heat maps', () => {
  it('name their groups and say what the colours are', () => {
    const cells = ['a', 'b'].flatMap((x) => ['a', 'b'].map((y) => ({ x, y, value: x === y ? 1 : -0.5 })));
    const texts = textsOf(matrices([{ title: 'layer 0', cells }], ['a', 'b']));
    for (const text of ['layer 0', 'a', 'b', '1', '-.50', 'cosine', '-1', '0', '0.5'])
      expect(texts).toContain(text);
    const steps = textsOf(
      stepHeatMap([
        { x: 0, y: 1, value: 0.5 },
        { x: 1, y: 1, value: null },
      ]),
    );
    for (const text of ['step', 'layer', 'cosine', '0.5']) expect(steps).toContain(text);
  });
});

describe('names of runs', () => {
  const config = (change: object) => runSchema.parse({ ...change });
  const namesOf = (configs: ReturnType<typeof config>[]) =>
    distinctNames(configs.map((one) => ({ config: one })));
  it('say what differs, and nothing else', () => {
    const rate = (learningRate: number) => ({ policies: { sharing: 'shared', defaults: { learningRate } } });
    expect(namesOf([config(rate(1e-4)), config(rate(2e-4))])).toEqual([
      'learningRate 0.0001',
      'learningRate 0.0002',
    ]);
    const other = { policies: { sharing: 'isolated' }, rollout: { promptsPerStep: 9 } };
    expect(namesOf([config({ policies: { sharing: 'shared' } }), config(other)])).toEqual([
      expect.stringMatching(/^shared, promptsPerStep \d+$/),
      'isolated, promptsPerStep 9',
    ]);
  });

  it('are the same for runs that differ in their seeds, or in where they are kept', () => {
    const all = [config({ seed: 1 }), config({ seed: 2, run: { folder: 'x' }, checkpoints: { keep: 7 } })];
    const [first, second] = all.map((one) => [...settingsOf({ config: one })]);
    expect(first).toEqual(second);
  });

  it('tell runs apart that came to the same settings another way, or have other files', () => {
    const now = config({ policies: { defaults: { learningRate: 2e-4 } } });
    const key = 'policies.defaults.learningRate';
    const changes = [{ step: 30, key, from: 1e-4, to: 2e-4 }];
    expect(distinctNames([{ config: now }, { config: now, changes }])).toEqual([
      'learningRate unchanged',
      'learningRate 0.0001 until step 30',
    ]);
    const files = ['a', 'b'].map((digit) => [{ file: '/x/reward.ts', sha256: digit.repeat(64) }]);
    expect(distinctNames(files.map((its) => ({ config: now, files: its })))).toEqual([
      'file reward.ts aaaaaaaaaaaa',
      'file reward.ts bbbbbbbbbbbb',
    ]);
    const models = ['a', 'b'].map((digit) => ({ config: now, model: digit.repeat(64) }));
    expect(distinctNames(models)).toEqual(['model files aaaaaaaaaaaa', 'model files bbbbbbbbbbbb']);
    expect(distinctNames(models.slice(0, 1))).toEqual(['']);
    // A longer run, and one that was moved, are what they were.
    const same = [
      { step: 30, key: 'steps', from: 60, to: 90 },
      { step: 30, key: 'task.files', from: ['/a/x.jsonl'], to: ['/b/x.jsonl'] },
      { step: 30, key: 'checkpoints.keep', from: 1, to: 2 },
    ];
    expect(settingsOf({ config: now, changes: same })).toEqual(settingsOf({ config: now }));
  });

  it('tell runs apart that differ in a fourth setting only', () => {
    const base = { steps: 1, rollout: { promptsPerStep: 1 }, policies: { sharing: 'shared' } };
    const runs = [
      config(base),
      config({
        steps: 2,
        rollout: { promptsPerStep: 2 },
        policies: { sharing: 'isolated' },
        evaluation: { problems: 3 },
      }),
      config({
        steps: 2,
        rollout: { promptsPerStep: 2 },
        policies: { sharing: 'isolated' },
        evaluation: { problems: 4 },
      }),
    ];
    expect(new Set(namesOf(runs)).size).toBe(3);
  });
});
