/** Room for adapters' A behind a model's weights, on the CUDA kernels' emulation, which want it. */
import { expect, test } from 'vitest';
import { LoadedModel } from '../../src/engine/loaded-model.js';
import { resolveModel } from '../../src/engine/model-catalogue.js';
import { scope } from '../../src/engine/scope.js';
import { ranksOf } from '../../src/learning/evaluation/evaluate.js';
import type { Player } from '../../src/learning/evaluation/lineups.js';
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

test('an evaluation has room for the adapters that its largest line-up decodes with', () => {
  const player = (name: string, rank: number | null): Player =>
    ({
      run: 'run',
      checkpoint: { folder: `/run/${name}`, files: {} },
      policy: {
        name,
        freeze: false,
        start: null,
        parameters: rank === null ? 'full' : 'lora',
        lora: { rank: rank ?? 16 },
      },
    }) as unknown as Player;
  const [small, large, full] = [player('a', 8), player('b', 64), player('c', null)];
  const lineup = (...players: Player[]) => ({
    name: '',
    players: Object.fromEntries(players.map((one, i) => [`role ${i}`, one])),
  });
  expect(ranksOf([lineup('base', 'base')])).toEqual([]);
  expect(ranksOf([lineup(small, small, large), lineup(large, 'base'), lineup(full, small)])).toEqual([
    64, 64,
  ]);
});
