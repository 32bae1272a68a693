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
    const started = { ...place, prefix: 'test', restarts: 0, maxRestarts: 0, nccl: undefined };
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

/** The same run in float64. */
export const inFloat64 = (over: RunInput): RunInput => ({
  ...over,
  model: { path: 'troupe-0.3m', ...over.model, dtype: 'float64' },
});

/**
 * Everything that two runs say of samples, gradients and totals. `exact`: in float32, the same run in float64, by which it
 * shows what rounding makes of shares.
 */
export function expectSameRun(found: string, expected: string, tolerance: number, exact = expected): void {
  const ignored = [...BATCHING, 'trainer_logprob', 'entropy', 'rollout_logprob'];
  expectEqual(rowsOfRun(found, 'calls'), rowsOfRun(expected, 'calls'), tolerance, ignored);
  expectEqual(rowsOfRun(found, 'episodes'), rowsOfRun(expected, 'episodes'), tolerance, []);
  expect(rowsOfRun(found, 'evaluations')).toEqual(rowsOfRun(expected, 'evaluations'));
  for (const table of ['updates', 'gradients', 'gradient_pairs', 'roles', 'steps'] as const) {
    const apart = [...BATCHING, 'optimizer_share'];
    expectEqual(rowsOfRun(found, table), rowsOfRun(expected, table), tolerance, apart);
  }
  const [ours, theirs, best] = [found, expected, exact].map((run) => rowsOfRun(run, 'gradients'));
  expectSameShares(ours ?? [], theirs ?? [], best ?? [], Math.min(1e-3, 1000 * tolerance));
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
    expect(Math.max(...off) / largest, name).toBeLessThan(tolerance);
  }
}

/** Rounding by another order of sums beside that by one, of the same sums: up to five times as large where it was measured. */
const OTHER_ROUNDING = 8;

/**
 * Shares of the optimizer's steps agree to the tolerance and what rounding makes of them. AdamW's first steps scale every
 * element to one size, so that where roles' gradients nearly cancel, or are but rounding (of a role that is sure of every
 * token), the shares are that as well, up to the whole of a step. How much, the difference between `expected` and the
 * `exact` run says, of all shares of one kind and update together.
 */
function expectSameShares(found: Row[], expected: Row[], exact: Row[], tolerance: number): void {
  const keys = ['step', 'update', 'policy', 'scope'];
  const changeOf = (row: Row) => keys.map((key) => String(row[key])).join();
  const share = (row: Row | undefined) => row?.optimizer_share as number | null;
  const rounding = new Map<string, number>();
  for (const [i, row] of expected.entries()) {
    const change = changeOf(row);
    expect(changeOf(exact[i] ?? {})).toBe(change);
    const off = Math.abs((share(row) ?? 0) - (share(exact[i]) ?? 0));
    rounding.set(change, Math.max(off, rounding.get(change) ?? 0));
  }
  for (const [i, row] of expected.entries()) {
    const what = `optimizer_share of row ${i}, ${changeOf(row)}`;
    if (share(row) === null) expect(share(found[i]), what).toBe(null);
    else {
      const allowed = tolerance + OTHER_ROUNDING * (rounding.get(changeOf(row)) ?? 0);
      expect(Math.abs((share(found[i]) ?? Number.NaN) - (share(row) ?? 0)), what).toBeLessThan(allowed);
    }
  }
}

/** What depends on how calls are batched: prefixes that a cache has, rows that calls share. */
export const BATCHING = ['cached_tokens', 'tokens_computed', 'extra_rows', 'rows'];
