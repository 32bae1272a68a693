/**
 * Which products of a rollout are measured, on the CUDA kernels' emulation: those of recorded steps, once for each size, and
 * never while a step is recorded. How they are compared: test/kernels/products.test.ts.
 */
import { afterEach, expect, test } from 'vitest';
import { native, type RolloutOptions } from '../../src/engine/native.js';
import type { AdapterConfig, NativePolicy } from '../../src/engine/native-model.js';
import { counts, useEmulation } from '../kernels/counting.js';
import { measured, plantedRuns, plantProducts } from '../kernels/products.js';
import { maxDifference, request, run, text, tinyConfig, Workshop } from './tiny.js';

useEmulation();
const workshop = new Workshop();
afterEach(() => {
  plantProducts();
  workshop.dispose();
});

const LAYERS = 2;
const config = tinyConfig({ layers: LAYERS, headDim: 64, hiddenSize: 64, heads: 4 });
const lora: AdapterConfig = { rank: 16, alpha: 16, targets: ['q', 'k', 'v', 'o', 'gate', 'up', 'down'] };
/** Of a layer: inputs, and outputs without adapters. */
const PRODUCTS = [
  { inputs: 64, outputs: 512 },
  { inputs: 256, outputs: 64 },
  { inputs: 64, outputs: 128 },
  { inputs: 64, outputs: 64 },
];

/** Prompts that have nothing in common, and are computed together. */
const calls = (policy: NativePolicy, count: number, maxTokens = 6) =>
  Array.from({ length: count }, (_, i) =>
    request(policy, [i, ...text(i, 9 + i)], { maxTokens, counter: [count, i, 0, 0, 0] }),
  );

function rollout(policy: NativePolicy, count: number, options: Partial<RolloutOptions> = {}) {
  const engine = workshop.engine(config, options);
  return run(engine, calls(policy, count));
}

const shapes = () =>
  measured('emulated')
    .map(({ inputs, outputs, rows }) => ({ inputs, outputs, rows }))
    .sort((a, b) => a.rows - b.rows || a.inputs - b.inputs || a.outputs - b.outputs);
const wanted = (rows: number[]) =>
  rows.flatMap((count) =>
    PRODUCTS.map((product) => ({ ...product, rows: count })).sort(
      (a, b) => a.inputs - b.inputs || a.outputs - b.outputs,
    ),
  );

test('those of steps that decode, by their padded rows: neither of prompts nor of steps that hold some', () => {
  plantProducts({ kind: 'right', microseconds: 50 });
  const policy = workshop.policy(config, 'bfloat16');
  const ours = rollout(policy, 3);
  rollout(policy, 5);
  expect(shapes()).toEqual(wanted([4, 8]));
  const theirs = rollout(policy, 3, { measureProducts: false });
  for (const [i, { ids, logprobs }] of ours.entries()) {
    expect(ids).toEqual(theirs[i]?.ids);
    expect(maxDifference(logprobs, theirs[i]?.logprobs ?? [])).toBeLessThan(0.02);
  }
});

test('each once, by the weights of every layer: what was measured is there for other bases and other engines', () => {
  plantProducts({ kind: 'right', microseconds: 50 });
  rollout(workshop.policy(config, 'bfloat16'), 3);
  const runs = () => plantedRuns()[0] ?? 0;
  // Five steps decode, of which four are replays, the first of these after the step that measured.
  const steps = 5 * LAYERS * PRODUCTS.length;
  const measuring = PRODUCTS.length * (1 + LAYERS);
  expect(runs()).toBe(measuring + steps);
  rollout(workshop.policy(config, 'bfloat16', 2), 3);
  expect(runs()).toBe(measuring + 2 * steps);
});

test('with adapters behind the weights their columns are a part of the sizes', () => {
  plantProducts({ kind: 'right', microseconds: 50 });
  const base = workshop.frozenBase(config, 'bfloat16');
  const adapter = workshop.adapter(config, lora, 'bfloat16', 3);
  rollout(workshop.keep(native().createPolicy(config, base, adapter, lora)), 2);
  const ranks = [3, 1, 2, 1].map((matrices) => matrices * 16);
  expect(
    shapes()
      .map(({ outputs }) => outputs)
      .sort((a, b) => a - b),
  ).toEqual(PRODUCTS.map(({ outputs }, i) => outputs + (ranks[i] ?? 0)).sort((a, b) => a - b));
});

test.each<[string, Partial<RolloutOptions>]>([
  ['deterministic', { deterministic: true }],
  ['whose steps are not recorded', { recordSteps: false }],
  ['that is told not to', { measureProducts: false }],
])('none in an engine %s, even where another has measured these sizes', (_, options) => {
  const policy = workshop.policy(config, 'bfloat16');
  plantProducts({ kind: 'wrong', microseconds: 50 });
  rollout(policy, 3, options);
  expect(measured('emulated')).toEqual([]);
  plantProducts({ kind: 'right', microseconds: 50 });
  rollout(policy, 3);
  const before = plantedRuns();
  rollout(policy, 3, options);
  expect(plantedRuns()).toEqual(before);
});

test('products with a bias are the usual ones', () => {
  plantProducts({ kind: 'right', microseconds: 50 });
  const biased = { ...config, qkvBias: true };
  run(workshop.engine(biased), calls(workshop.policy(biased, 'bfloat16'), 3));
  expect(shapes()).toEqual(wanted([4]).filter(({ outputs }) => outputs !== 512));
});

test('a size that is first met while a step is recorded keeps the usual product', () => {
  plantProducts({ kind: 'right', microseconds: 50 });
  const engine = workshop.engine(config, { runAhead: false });
  for (const one of calls(workshop.policy(config, 'bfloat16'), 4, 20)) engine.submit(one);
  for (let step = 0; step < 2; step++) engine.step(); // prompts, and the first step of the size
  expect(measured('emulated').length).toBe(PRODUCTS.length);
  plantProducts({ kind: 'right', microseconds: 50 }); // nothing is known of it any more
  for (let step = 0; step < 3; step++) engine.step();
  expect(engine.statistics().replayedSteps).toBe(3);
  expect(measured('emulated')).toEqual([]);
  expect(plantedRuns()).toEqual([0]);
});

test('a step of a size that was measured waits once', async () => {
  plantProducts({ kind: 'right', microseconds: 50 });
  const engine = workshop.engine(config, { runAhead: false });
  for (const one of calls(workshop.policy(config, 'bfloat16'), 4, 20)) engine.submit(one);
  engine.step(); // prompts
  const measuring = await counts(() => engine.step());
  const recording = await counts(() => engine.step());
  const replaying = await counts(() => engine.step());
  // Of each product one copy of what was compared; on a GPU one more, for the times.
  expect(measuring.waits).toBe(1 + PRODUCTS.length);
  expect([recording.waits, replaying.waits]).toEqual([1, 1]);
});
