/**
 * Guards against a run of several ranks that is another run than that of one: other samples, other gradients, other
 * rows. The ranks are engines of this process, each with a thread and a group of its own, that meet over TCP.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { printConfig } from '../../src/config/print.js';
import type { RunInput } from '../../src/config/schema.js';
import { Engine } from '../../src/engine/engine.js';
import { freePort } from '../../src/engine/rank-place.js';
import { Ranks } from '../../src/engine/ranks.js';
import { RankRecorder } from '../../src/learning/rank-recorder.js';
import { DirectoryRecorder } from '../../src/learning/run-recorder.js';
import { trainRun } from '../../src/learning/train.js';
import { listCheckpoints } from '../../src/runs/checkpoint.js';
import { describeEnvironment } from '../../src/runs/environment.js';
import { createRun, resumeRun } from '../../src/runs/run-directory.js';
import { newFolder, rowsOfRun, smallConfig } from './trained-run.js';

const environment = { ...describeEnvironment({ libtorch: null, devices: [] }), commit: null };
const host = '127.0.0.1';

/** Trains on `size` ranks; returns the folder. `resume`: goes on with that run. */
async function trainOn(size: number, over: RunInput, resume?: string): Promise<string> {
  const config = smallConfig(over);
  const folder = resume ?? newFolder();
  const port = await freePort();
  const one = async (rank: number) => {
    await using engine = new Engine();
    const place = { rank, size, localRank: rank, localSize: size, host, port, serve: rank === 0 };
    const started = { ...place, prefix: 'test', restarts: 0, maxRestarts: 0 };
    const ranks = await Ranks.join(engine, started, { timeoutSeconds: 20 });
    const open = () => {
      if (resume === undefined) return createRun(folder, printConfig(config), environment);
      return resumeRun(folder, { config: printConfig(config), environment, warn: () => {} });
    };
    const recorder = rank === 0 ? new DirectoryRecorder(await open(), config) : undefined;
    try {
      await trainRun(engine, config, new RankRecorder(ranks, recorder), { ranks });
      await ranks.leave();
    } finally {
      recorder?.close();
    }
  };
  await Promise.all(Array.from({ length: size }, (_, rank) => one(rank)));
  return folder;
}

type Row = Record<string, unknown>;

/** What is rounding itself (drift within fp32, the identity's deviation) lies below. */
const FLOOR = 0.1;

/** Numbers agree to `tolerance` of the largest in their column, everything else exactly. */
function expectEqual(found: Row[], expected: Row[], tolerance: number, ignored: readonly string[]): void {
  expect(found.length).toBe(expected.length);
  const columns = Object.keys(expected[0] ?? {}).filter((name) => !ignored.includes(name));
  for (const name of columns) {
    const isFraction = expected.some((row) => typeof row[name] === 'number' && !Number.isInteger(row[name]));
    if (!isFraction) {
      expect(
        found.map((row) => row[name]),
        name,
      ).toEqual(expected.map((row) => row[name]));
      continue;
    }
    const largest = Math.max(FLOOR, ...expected.map((row) => Math.abs(Number(row[name] ?? 0))));
    const off = expected.map((row, i) => Math.abs(Number(row[name]) - Number(found[i]?.[name])));
    // AdamW's first step scales every element to one size: what rounding leaves of small ones shows.
    const allowed = name === 'optimizer_share' ? Math.min(0.01, 1000 * tolerance) : tolerance;
    expect(Math.max(...off) / largest, name).toBeLessThan(allowed);
  }
}

/** What depends on how calls are batched: prefixes that a cache has, rows that calls share. */
const BATCHING = ['cached_tokens', 'tokens_computed', 'extra_rows', 'rows'];

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
  beforeAll(async () => {
    one = await trainOn(1, over);
    two = await trainOn(2, over);
  });

  it('samples', () => {
    const ignored = [...BATCHING, 'trainer_logprob', 'entropy', 'rollout_logprob'];
    expectEqual(rowsOfRun(two, 'calls'), rowsOfRun(one, 'calls'), tolerance, ignored);
    expectEqual(rowsOfRun(two, 'episodes'), rowsOfRun(one, 'episodes'), tolerance, []);
    expect(rowsOfRun(two, 'evaluations')).toEqual(rowsOfRun(one, 'evaluations'));
  });

  it('and says what the ranks exchanged', () => {
    expect(rowsOfRun(one, 'timings').map((row) => row.communication_bytes)).toEqual([0n, 0n]);
    for (const row of rowsOfRun(two, 'timings')) {
      expect(Number(row.communication_bytes)).toBeGreaterThan(100_000);
      expect(row.communication_seconds).toBeGreaterThan(0);
    }
  });

  it('gradients, statistics and totals', () => {
    for (const table of ['updates', 'gradients', 'gradient_pairs', 'roles', 'steps'] as const) {
      expectEqual(rowsOfRun(two, table), rowsOfRun(one, table), tolerance, BATCHING);
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
