/** What a micro-batch launches on the CUDA kernels, by their own counter and ATen's dispatcher, on their emulation. */
import { expect, test } from 'vitest';
import type { AdapterConfig, NativePolicy, PackCall } from '../../src/engine/native-model.js';
import { scope } from '../../src/engine/scope.js';
import { type Counts, counts, useEmulation } from '../kernels/counting.js';
import { generator, type Kernels, random, wrap } from '../kernels/kernels.js';
import { addon, backward, checkTensorsAreFreed, keep, randomBase, tinyConfig } from './support.js';

checkTensorsAreFreed();
useEmulation();

/**
 * A layer's flash attention, on trees of two levels three calls forward, one kernel each, and three backward, five each
 * (bench/results/gpu/2026-11-26-afternoon-profile.txt): what they are more than calls, of which each counts as one.
 */
const FLASH = 3 * (5 - 1);

type EmulatedKernels = Kernels & { readonly launches: number; dispose(): void };

const lora: AdapterConfig = { rank: 8, alpha: 16, targets: ['q', 'k', 'v', 'o', 'gate', 'up', 'down'] };

/** Of a forward and backward pass over calls that share a prompt (and each its own part of it, or not). */
async function pass(layers: number, calls: PackCall[], groups: number): Promise<Counts> {
  const config = tinyConfig({ layers, hiddenSize: 64, intermediateSize: 64, headDim: 16, heads: 4 });
  const base = randomBase(config, 'bfloat16', 1, false);
  const adapter = keep(addon.createAdapter(config, lora, 'bfloat16', 'cpu'));
  addon.initialize(adapter, 2, 0.2);
  const policy: NativePolicy = keep(addon.createPolicy(config, base, adapter, lora));
  const work = () => {
    adapter.beginGradients(groups);
    const batch = keep(addon.pack(calls, groups, true));
    const tokens = calls.reduce((sum, { response }) => sum + response.length, 0);
    backward(policy, batch, new Float64Array(tokens).fill(1));
  };
  work(); // tables, buffers and adapters are set up
  return await counts(work);
}
const launches = async (...of: Parameters<typeof pass>) => (await pass(...of)).launches;

/** Pairs of calls: two levels of tree, a pair's prompt and its own continuations. */
const calls = (pairs: number): PackCall[] =>
  Array.from({ length: 2 * pairs }, (_, i) => ({
    prompt: Int32Array.from({ length: 6 }, (_, at) => 1 + ((i >> 1) % 50) + at),
    response: Int32Array.of(60 + (i % 2), 70, 71),
    group: i % 2,
  }));

/** Pairs that begin alike: three levels of tree, and four calls of attention. */
const beginAlike: PackCall[] = calls(3).map((call) => ({
  ...call,
  prompt: Int32Array.of(90, 91, 92, ...call.prompt),
}));

/** Launches of one layer more. */
const layer = async (these: PackCall[]) => (await launches(2, these, 2)) - (await launches(1, these, 2));

test('a micro-batch of 36 layers takes at most 3,000 launches, whatever its number of nodes', async () => {
  const one = await launches(1, calls(2), 2);
  const each = await layer(calls(2));
  expect(each).toBeGreaterThan(20); // or nothing was counted
  expect(one + 35 * each + 36 * FLASH).toBeLessThanOrEqual(3000);
  expect(await launches(1, calls(5), 2)).toBe(one);
});

test('nor where they have a third level', async () => {
  const one = await launches(1, beginAlike, 2);
  const each = await layer(beginAlike);
  expect(each).toBeGreaterThan(await layer(calls(2)));
  expect(one + 35 * each + (36 * FLASH * 4) / 3).toBeLessThanOrEqual(3000);
});

test('nothing is uploaded in a layer, and with the calls themselves once', async () => {
  for (const these of [calls(2), calls(5), beginAlike]) {
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
  // A prompt and what follows it: merged in place, and each of three gradients summed.
  expect(ownOfAttention([0, 5, -1, 5, 3, 0], 8)).toBe(4);
  // Two of them: the output goes into the batch's order, and it and its gradient come back.
  expect(ownOfAttention([0, 5, -1, 5, 3, 0, 8, 2, -1, 10, 2, 2], 12)).toBe(6);
});
