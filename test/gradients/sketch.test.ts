/**
 * Sketched group gradients against exact ones: over many seeds the totals are unbiased and spread as their standard
 * error says, at the default size by 2 % at most; every kind of parameter counts; a whole run.
 */
import { describe, expect, it } from 'vitest';
import { runSchema } from '../../src/config/schema.js';
import { sketchSize } from '../../src/engine/training.js';
import { standardError } from '../../src/gradients/statistics.js';
import { trainedRun } from '../learning/trained-run.js';
import {
  addon,
  backward,
  checkTensorsAreFreed,
  keep,
  randomBase,
  read,
  relativeError,
  tinyConfig,
} from '../model/support.js';

checkTensorsAreFreed();

const GROUPS = 3;
const SEEDS = 100;
const { replicates } = runSchema.parse({}).gradients.sketch;
const config = tinyConfig({ hiddenSize: 64, heads: 4, headDim: 16, intermediateSize: 160, layers: 4 });

const calls = Array.from({ length: 48 }, (_, i) => ({
  prompt: Int32Array.from({ length: 8 }, (_, j) => (7 * i + 13 * j) % 101),
  response: Int32Array.from({ length: 12 }, (_, j) => (31 * i + 17 * j + 5) % 101),
  group: i % GROUPS,
}));
const weights = Array.from({ length: 48 * 12 }, (_, i) => Math.sin(1 + 2.3 * i));

const total = (gram: Float64Array, parameters: readonly number[], cell: number) =>
  parameters.reduce((sum, p) => sum + (gram[p * GROUPS * GROUPS + cell] as number), 0);
const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

describe.each([
  ['tied embeddings', true],
  ['a head of its own', false],
])('%s', (_name, tiedEmbeddings) => {
  const trained = randomBase({ ...config, tiedEmbeddings, qkvBias: !tiedEmbeddings }, 'float32', 3);
  const policy = keep(addon.createPolicy({ ...config, tiedEmbeddings, qkvBias: !tiedEmbeddings }, trained));
  const batch = keep(addon.pack(calls, GROUPS, true));
  const all = trained.parameters.map((_, p) => p);
  const size = sketchSize(trained.parameters.filter(({ shape }) => shape.length === 2).length);
  const kinds = [...new Set(trained.parameters.map(({ kind }) => kind))];
  const ofKind = (kind: string) => all.filter((p) => trained.parameters[p]?.kind === kind);

  trained.beginGradients(GROUPS);
  backward(policy, batch, weights, { entropyWeight: 0.05 });
  const exact = trained.gram();
  const exactTotal = read(keep(trained.totalGradient()));

  const trials = Array.from({ length: SEEDS }, (_, seed) => {
    trained.beginSketch(GROUPS, { replicates, size, seed });
    backward(policy, batch, weights, { entropyWeight: 0.05 });
    return trained.sketchGram();
  });
  const applied = read(keep(trained.totalGradient()));
  /** Each trial's estimate of a cell of the Gram matrix over some parameters, and its standard error. */
  const estimates = (parameters: readonly number[], cell: number) =>
    trials.map((gram) => {
      const length = gram.length / replicates;
      const each = Array.from({ length: replicates }, (_, r) =>
        total(gram.subarray(r * length, (r + 1) * length), parameters, cell),
      );
      return { value: mean(each), error: standardError(each) };
    });

  it('the one accumulator holds the gradient of all groups', () => {
    expect(relativeError(applied, exactTotal)).toBeLessThan(1e-5);
  });

  it.each([0, 1, 4, 5, 8])(
    'totals (cell %i of the Gram matrix) are unbiased and spread as they say',
    (cell) => {
      const truth = total(exact, all, cell);
      const found = estimates(all, cell);
      const values = found.map(({ value }) => value);
      const spread = standardError(values) * Math.sqrt(SEEDS);
      const said = Math.sqrt(mean(found.map(({ error }) => error ** 2)));
      expect(Math.abs(mean(values) - truth)).toBeLessThan((3.5 * spread) / Math.sqrt(SEEDS));
      expect(said / spread).toBeGreaterThan(2 / 3);
      expect(said / spread).toBeLessThan(4 / 3);
    },
  );

  it('the standard error of a total is 2 % at most', () => {
    for (const cell of [0, 4, 8]) {
      const truth = total(exact, all, cell);
      expect(mean(estimates(all, cell).map(({ error }) => error)) / truth).toBeLessThan(0.02);
    }
  });

  it.each(kinds)('every kind of parameter counts: %s', (kind) => {
    const truth = total(exact, ofKind(kind), 0);
    const values = estimates(ofKind(kind), 0).map(({ value }) => value);
    const error = standardError(values);
    expect(truth).toBeGreaterThan(0);
    expect(Math.abs(mean(values) - truth)).toBeLessThan(3.5 * error + 1e-5 * truth);
  });
});

describe('a run', () => {
  const over = { policies: { sharing: 'shared' as const, defaults: { learningRate: 1e-3 } } };

  it('trains with sketches as with exact gradients, and says how far off they may be', async () => {
    const exact = await trainedRun(over);
    const sketched = await trainedRun({ ...over, gradients: { method: 'sketch' } });
    const norms = [exact, sketched].map((run) =>
      run.rows('updates').map((row) => row.gradient_norm as number),
    );
    norms[0]?.forEach((norm, i) => {
      expect(norms[1]?.[i]).toBeCloseTo(norm, 3);
    });
    const roles = (run: typeof exact) =>
      run
        .rows('gradients')
        .filter((row) => row.grouping === 'role' && row.scope === 'total' && row.step === 0);
    roles(sketched).forEach((row, i) => {
      const truth = roles(exact)[i]?.norm as number;
      expect(row).toMatchObject({ method: 'sketch', optimizer_share: null });
      expect(row.norm_error).toBeGreaterThan(0);
      expect(Math.abs((row.norm as number) - truth)).toBeLessThan(6 * (row.norm_error as number));
    });
    expect(sketched.rows('updates').some((row) => (row.identity_deviation as number) > 1e-5)).toBe(true);
    for (const row of sketched.rows('gradient_pairs')) {
      const unsure = Math.abs(row.gram as number) < 2 * (row.gram_error as number);
      if (unsure) expect(row.cosine).toBeNull();
    }
  });

  it('repeats itself to the bit', async () => {
    const run = () => trainedRun({ ...over, steps: 1, gradients: { method: 'sketch' } });
    expect((await run()).rows('gradients')).toEqual((await run()).rows('gradients'));
  });

  it('takes no intervention that needs the gradients of roles', async () => {
    const gradients = { method: 'sketch' as const };
    const training = trainedRun({ ...over, gradients, interventions: { balance: 'mass' } });
    await expect(training).rejects.toThrow(/gradients\.method/);
  });
});
