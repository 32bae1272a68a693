/** What a micro-batch launches on the CUDA kernels, by their own counter and ATen's dispatcher, on their emulation. */
import { expect, test } from 'vitest';
import type { AdapterConfig, NativePolicy, PackCall } from '../../src/engine/native-model.js';
import { counts, useEmulation } from '../kernels/counting.js';
import { addon, backward, checkTensorsAreFreed, keep, randomBase, tinyConfig } from './support.js';

checkTensorsAreFreed();
useEmulation();

/**
 * A layer's flash attention, on trees of two levels three calls forward, one kernel each, and three backward, five each
 * (bench/results/gpu/2026-11-26-afternoon-profile.txt): what they are more than calls, of which each counts as one.
 */
const FLASH = 3 * (5 - 1);

const lora: AdapterConfig = { rank: 8, alpha: 16, targets: ['q', 'k', 'v', 'o', 'gate', 'up', 'down'] };

/** Launches of a forward and backward pass over calls that share a prompt (and each its own part of it, or not). */
async function launches(layers: number, calls: PackCall[], groups: number): Promise<number> {
  const config = tinyConfig({ layers, hiddenSize: 64, intermediateSize: 64, headDim: 16, heads: 4 });
  const base = randomBase(config, 'bfloat16', 1, false);
  const adapter = keep(addon.createAdapter(config, lora, 'bfloat16', 'cpu'));
  addon.initialize(adapter, 2, 0.2);
  const policy: NativePolicy = keep(addon.createPolicy(config, base, adapter, lora));
  const pass = () => {
    adapter.beginGradients(groups);
    const batch = keep(addon.pack(calls, groups, true));
    const tokens = calls.reduce((sum, { response }) => sum + response.length, 0);
    backward(policy, batch, new Float64Array(tokens).fill(1));
  };
  pass(); // tables, buffers and adapters are set up
  return (await counts(pass)).launches;
}

/** Pairs of calls: two levels of tree, a pair's prompt and its own continuations. */
const calls = (pairs: number): PackCall[] =>
  Array.from({ length: 2 * pairs }, (_, i) => ({
    prompt: Int32Array.from({ length: 6 }, (_, at) => 1 + ((i >> 1) % 50) + at),
    response: Int32Array.of(60 + (i % 2), 70, 71),
    group: i % 2,
  }));

test('a micro-batch of 36 layers takes at most 3,000 launches, whatever its number of nodes', async () => {
  const one = await launches(1, calls(1), 2);
  const layer = (await launches(2, calls(1), 2)) - one;
  expect(layer).toBeGreaterThan(20); // or nothing was counted
  expect(one + 35 * layer + 36 * FLASH).toBeLessThanOrEqual(3000);
  expect(await launches(1, calls(5), 2)).toBe(one);
});
