/** Runs on several ranks inside the test process: engines with a thread and a group of their own each, that meet over TCP. */
import { expect } from 'vitest';
import { printConfig } from '../../src/config/print.js';
import type { RunInput } from '../../src/config/schema.js';
import { Engine } from '../../src/engine/engine.js';
import { freePort } from '../../src/engine/rank-place.js';
import { Ranks } from '../../src/engine/ranks.js';
import { RankRecorder } from '../../src/learning/rank-recorder.js';
import { DirectoryRecorder } from '../../src/learning/run-recorder.js';
import { trainRun } from '../../src/learning/train.js';
import { describeEnvironment } from '../../src/runs/environment.js';
import { createRun, resumeRun } from '../../src/runs/run-directory.js';
import { newFolder, rowsOfRun, smallConfig } from './trained-run.js';

const environment = { ...describeEnvironment({ libtorch: null, devices: [] }), commit: null };
const host = '127.0.0.1';

/** Trains on `size` ranks; returns the folder. `resume`: goes on with that run. */
export async function trainOn(size: number, over: RunInput, resume?: string): Promise<string> {
  const config = smallConfig(over);
  const folder = resume ?? newFolder();
  const port = await freePort();
  const one = async (rank: number) => {
    await using engine = new Engine();
    const place = { rank, size, localRank: rank, localSize: size, host, port, serve: rank === 0 };
    const started = { ...place, prefix: 'test', restarts: 0, maxRestarts: 0, nccl: false };
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

/** Everything that two runs say of samples, gradients and totals. */
export function expectSameRun(found: string, expected: string, tolerance: number): void {
  const ignored = [...BATCHING, 'trainer_logprob', 'entropy', 'rollout_logprob'];
  expectEqual(rowsOfRun(found, 'calls'), rowsOfRun(expected, 'calls'), tolerance, ignored);
  expectEqual(rowsOfRun(found, 'episodes'), rowsOfRun(expected, 'episodes'), tolerance, []);
  expect(rowsOfRun(found, 'evaluations')).toEqual(rowsOfRun(expected, 'evaluations'));
  for (const table of ['updates', 'gradients', 'gradient_pairs', 'roles', 'steps'] as const) {
    expectEqual(rowsOfRun(found, table), rowsOfRun(expected, table), tolerance, BATCHING);
  }
}

type Row = Record<string, unknown>;

/** What is rounding itself (drift within fp32, the identity's deviation) lies below. */
const FLOOR = 0.1;

/** Numbers agree to `tolerance` of the largest in their column, everything else exactly. */
export function expectEqual(
  found: Row[],
  expected: Row[],
  tolerance: number,
  ignored: readonly string[],
): void {
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
    // AdamW's first steps scale every element to one size: of an adapter's A, whose gradient is nearly 0 then, mostly
    // what fp32 rounds shows. fp64 holds the shares.
    const share = tolerance > 1e-8 ? 0.05 : 1000 * tolerance;
    const allowed = name === 'optimizer_share' ? share : tolerance;
    expect(Math.max(...off) / largest, name).toBeLessThan(allowed);
  }
}

/** What depends on how calls are batched: prefixes that a cache has, rows that calls share. */
export const BATCHING = ['cached_tokens', 'tokens_computed', 'extra_rows', 'rows'];
