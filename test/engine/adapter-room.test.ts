/** Room for adapters' A behind a model's weights, on the CUDA kernels' emulation, which want it. */
import { expect, test } from 'vitest';
import { LoadedModel } from '../../src/engine/loaded-model.js';
import { resolveModel } from '../../src/engine/model-catalogue.js';
import { scope } from '../../src/engine/scope.js';
import { useEmulation } from '../kernels/counting.js';

useEmulation();

test('a model has as much room as the adapters that are going to decode on it take, and only the base that they share', async () => {
  const folder = await resolveModel('troupe-0.3m');
  const rollout = { cacheBytes: 0, maxBatch: 1, prefillTokens: 1, seed: 0, deterministic: false };
  const request = { name: 'model', folder, dtype: 'float32', device: 'cpu', rollout } as const;
  const rowsOf = (adapterRanks: number[]) =>
    scope(() => {
      const model = new LoadedModel({ ...request, adapterRanks }, undefined);
      const { hiddenSize, heads, headDim, intermediateSize, layers } = model.config;
      const own = model.loadBase();
      // What q, k and v, o, gate and up, and down read.
      const inputs = 3 * hiddenSize + heads * headDim + 2 * hiddenSize + intermediateSize;
      const rows = (model.sharedBase().size - own.size) / (layers * inputs);
      own.dispose();
      model.dispose();
      return rows;
    });
  expect(rowsOf([])).toBe(0);
  expect(rowsOf([6, 16])).toBe(24);
});
