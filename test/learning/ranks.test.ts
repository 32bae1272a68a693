/**
 * Guards against a run of several ranks that is another run than that of one: other samples, other gradients, other
 * rows. Every kind of policy and number of ranks is in ranks.slow.test.ts, the update alone in test/engine/sharded.test.ts.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import type { RunInput } from '../../src/config/schema.js';
import { listCheckpoints } from '../../src/runs/checkpoint.js';
import { BATCHING, expectEqual, expectSameRun, inFloat64, trainOn } from './rank-runs.js';
import { rowsOfRun } from './trained-run.js';

/** Three problems: the second rank has one of them. */
const base: RunInput = {
  steps: 2,
  evaluation: { every: 0, problems: 3, greedy: false },
  rollout: { promptsPerStep: 3, episodesPerPrompt: 3, sampling: { temperature: 1, maxTokens: 6 } },
};

const kinds: [string, number, RunInput][] = [
  ['shared, full, fp32', 1e-5, { ...base, policies: { sharing: 'shared' } }],
  [
    'isolated, LoRA, fp64, problems taken over',
    1e-10,
    {
      ...base,
      deterministic: false,
      // A problem's voters fill the batch: whoever is done first begins the next problem, whose ever it was.
      rollout: { ...base.rollout, maxBatch: 9 },
      model: { path: 'troupe-0.3m', dtype: 'float64' },
      policies: { sharing: 'isolated', defaults: { parameters: 'lora' } },
      gradients: { groups: ['role', 'slot'] },
    },
  ],
];

describe.each(kinds)('two ranks train as one does: %s', (_name, tolerance, over) => {
  let one = '';
  let two = '';
  let exact = '';
  beforeAll(async () => {
    one = await trainOn(1, over);
    two = await trainOn(2, over);
    exact = over.model?.dtype === 'float64' ? one : await trainOn(1, inFloat64(over));
  });

  it('samples, gradients, statistics and totals', () => expectSameRun(two, one, tolerance, exact));

  it('and says what the ranks exchanged', () => {
    expect(rowsOfRun(one, 'timings').map((row) => row.communication_bytes)).toEqual([0n, 0n]);
    for (const row of rowsOfRun(two, 'timings')) {
      expect(Number(row.communication_bytes)).toBeGreaterThan(100_000);
      expect(row.communication_seconds).toBeGreaterThan(0);
    }
  });
});

it('resumes under another number of ranks, and with fewer problems than ranks', async () => {
  const over: RunInput = {
    ...base,
    rollout: { promptsPerStep: 2, episodesPerPrompt: 3, sampling: { temperature: 1, maxTokens: 6 } },
    checkpoints: { every: 1, keep: 5 },
  };
  const whole = await trainOn(1, over);
  const first = await trainOn(3, { ...over, steps: 1 });
  await trainOn(2, over, first);
  expect(listCheckpoints(first).map(({ step }) => step)).toEqual([1, 2]);
  for (const table of ['updates', 'steps'] as const) {
    expectEqual(rowsOfRun(first, table), rowsOfRun(whole, table), 2e-5, BATCHING);
  }
});
