/** What a micro-batch launches on the CUDA kernels, by their own counter and ATen's dispatcher, on their emulation. */
import { expect, test } from 'vitest';
import type { AdapterConfig, NativePolicy, PackCall } from '../../src/engine/native-model.js';
import { scope } from '../../src/engine/scope.js';
import { GPU_LEVELS } from '../../src/learning/plan/tree-rows.js';
import { type Counts, counts, useEmulation } from '../kernels/counting.js';
import { generator, type Kernels, random, wrap } from '../kernels/kernels.js';
import { addon, backward, checkTensorsAreFreed, keep, randomBase, tinyConfig } from './support.js';

checkTensorsAreFreed();
useEmulation();

/**
 * A layer's flash attention, on trees of two levels two calls forward, one kernel each, and two backward, five each
 * (bench/results/gpu/2026-11-26-afternoon-profile.txt): what they are more than calls, of which each counts as one.
 */
const FLASH = 2 * (5 - 1);

type EmulatedKernels = Kernels & { readonly launches: number; dispose(): void };

const lora: AdapterConfig = { rank: 8, alpha: 16, targets: ['q', 'k', 'v', 'o', 'gate', 'up', 'down'] };

/** Of a forward and backward pass over calls that share a prompt (and each its own part of it, or not). */
async function pass(layers: number, calls: PackCall[], groups: number): Promise<Counts> {
  const config = tinyConfig({ layers, hiddenSize: 64, intermediateSize: 64, headDim: 16, heads: 4 });
  const base = randomBase(config, 'bfloat16', 1, false);
  const adapter = keep(addon.createAdapter(config, lora, 'bfloat16', 'cpu'));
  addon.initialize(adapter, 2, 0.2);
  const policy: NativePolicy = keep(addon.createPolicy(config, base, adapter, lora));
  expect(policy.treeLevels).toBe(GPU_LEVELS); // as plans take it
  const work = () => {
    adapter.beginGradients(groups);
    const batch = keep(addon.pack(calls, groups, true, policy.treeLevels));
    const tokens = calls.reduce((sum, { response }) => sum + response.length, 0);
    backward(policy, batch, new Float64Array(tokens).fill(1));
  };
  work(); // tables, buffers and adapters are set up
  return await counts(work);
}
const launches = async (...of: Parameters<typeof pass>) => (await pass(...of)).launches;

/** Pairs of calls of one group that share a prompt: two levels of tree. */
const pairs = (count: number): PackCall[] =>
  Array.from({ length: 2 * count }, (_, i) => ({
    prompt: Int32Array.from({ length: 6 }, (_, at) => 1 + ((i >> 1) % 50) + at),
    response: Int32Array.of(60 + (i % 2), 70, 71),
    group: (i >> 1) % 2,
  }));

/**
 * Answers as models write them, each beginning as some before it do, after prompts that begin alike: ten levels. As many
 * rows as two groups' weight gradients are cut into parts for, and more loss entries than one chunk of the head has.
 */
const answers: PackCall[] = pairs(4).flatMap((call, i) =>
  Array.from({ length: 8 }, (_, sample) => ({
    ...call,
    prompt: Int32Array.of(...Array(40).fill(90), ...call.prompt),
    response: Int32Array.of(...Array(10 * (sample + 1)).fill(80), 2 * sample + (i % 2), 71),
  })),
);

/** Launches of one layer more. */
const layer = async (these: PackCall[]) => (await launches(2, these, 2)) - (await launches(1, these, 2));

test('a micro-batch of 36 layers takes at most 3,000 launches, whatever its number of nodes', async () => {
  const one = await launches(1, pairs(2), 2);
  const each = await layer(pairs(2));
  expect(each).toBe(61);
  expect(one + 35 * each + 36 * FLASH).toBeLessThanOrEqual(3000);
  expect(await launches(1, pairs(6), 2)).toBe(one);
});

test('nor where many answers begin alike', async () => {
  expect(keep(addon.pack(answers, 2, true)).levels).toBe(10);
  const { groupRows, entries } = keep(addon.pack(answers, 2, true, 2));
  expect(groupRows[1]).toBeGreaterThan(512);
  expect(entries).toBeGreaterThan(2048);
  const one = await launches(1, answers, 2);
  const each = await layer(answers);
  // Nor has any of eleven weight gradients a launch more for its parts, whose counters are cleared once.
  expect(each).toBe(61);
  expect(one + 35 * each + 36 * FLASH).toBeLessThanOrEqual(3000);
});

test('nothing is uploaded in a layer, and with the calls themselves once', async () => {
  for (const these of [pairs(2), pairs(5), answers]) {
    const [one, two] = [await pass(1, these, 2), await pass(2, these, 2)];
    expect(one.uploads).toBe(2); // the plan, and the test's gradient of the log-probabilities
    expect(two.uploads).toBe(one.uploads);
  }
});

/** Own kernels, beside flash attention's, of attention over nodes of [start, length, parent] each, and of its backward pass. */
function ownOfAttention(nodes: number[], rows: number): number {
  const kernels = (addon as unknown as { kernels(name: string): EmulatedKernels }).kernels('emulated');
  const before = kernels.launches;
  scope(() => {
    const next = generator(1);
    const [q, k, v, grad] = Array.from({ length: 4 }, () => random(next, [rows, 2, 16], 'bfloat16').native);
    if (q === undefined || k === undefined || v === undefined) throw new Error('no tensors');
    wrap(kernels.treeAttention(q, k, v, nodes, 0.25, grad));
  });
  const launched = kernels.launches - before;
  kernels.dispose();
  return launched;
}

test('attention merges nothing where there is one part, and copies no rows that lie in order', () => {
  expect(ownOfAttention([0, 5, -1, 5, 3, -1], 8)).toBe(0);
  // A prompt and what follows it: merged in place, and three gradients summed.
  expect(ownOfAttention([0, 5, -1, 5, 3, 0], 8)).toBe(2);
  // Two of them: the output goes into the batch's order, and it and its gradient come back.
  expect(ownOfAttention([0, 5, -1, 5, 3, 0, 8, 2, -1, 10, 2, 2], 12)).toBe(3);
});
