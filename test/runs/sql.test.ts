/** The questions of docs/sql, asked of exported runs by DuckDB in Node: made-up runs with known answers, and a real one. */
import { readdirSync, readFileSync } from 'node:fs';
import { DuckDBInstance } from '@duckdb/node-api';
import { describe, expect, it } from 'vitest';
import { exportParquet } from '../../src/runs/parquet.js';
import { trainedRun } from '../learning/trained-run.js';
import { madeUp, type Row } from './made-up-run.js';
import { temporaryFolder } from './temporary.js';

/** Rows of docs/sql/NAME.sql over the exported tables of a run. */
async function ask(run: string, name: string): Promise<Row[]> {
  const folder = temporaryFolder();
  exportParquet(run, folder);
  const instance = await DuckDBInstance.create();
  const connection = await instance.connect();
  try {
    await connection.run(`SET file_search_path = '${folder}'`);
    const reader = await connection.runAndReadAll(readFileSync(`docs/sql/${name}.sql`, 'utf8'));
    const plain = (value: unknown) => (typeof value === 'bigint' ? Number(value) : value);
    return reader
      .getRowObjectsJS()
      .map((row) => Object.fromEntries(Object.entries(row).map(([key, value]) => [key, plain(value)])));
  } finally {
    connection.closeSync();
    instance.closeSync();
  }
}

const total = { grouping: 'role', scope: 'total', policy: 'shared' };
const STEPS = Array.from({ length: 60 }, (_, step) => step);

describe('which role dominates when', () => {
  it('names each span of steps', async () => {
    const share = (step: number) => (step < 20 || step >= 50 ? 0.75 : 0.25);
    const gradients = STEPS.flatMap((step) => [
      { ...total, step, role: 'generator', mass_share: share(step) },
      { ...total, step, role: 'aggregator', mass_share: 1 - share(step) },
      // Of a layer: does not count.
      { ...total, scope: 'layer', layer: 0, step, role: 'aggregator', mass_share: 1 },
    ]);
    expect(await ask(madeUp({ gradients }), 'dominance')).toEqual([
      { policy: 'shared', role: 'generator', first_step: 0, last_step: 19, steps: 20, mean_share: 0.75 },
      { policy: 'shared', role: 'aggregator', first_step: 20, last_step: 49, steps: 30, mean_share: 0.75 },
      { policy: 'shared', role: 'generator', first_step: 50, last_step: 59, steps: 10, mean_share: 0.75 },
    ]);
  });
});

describe('which layers conflict', () => {
  const pair = { policy: 'shared', grouping: 'role', role_a: 'generator', role_b: 'aggregator' };
  const rows = (high: (step: number) => number | null) =>
    STEPS.flatMap((step) => [
      { ...pair, step, scope: 'total', cosine: 0.1, corrected_high: high(step) },
      { ...pair, step, scope: 'layer', layer: 0, cosine: 0.25 },
      { ...pair, step, scope: 'layer', layer: 1, cosine: step % 4 === 0 ? 0.25 : -0.25 },
      { ...pair, step, scope: 'layer', layer: 0, role_b: 'generator', cosine: 1 },
    ]);

  it('orders them, and says how many steps the noise floor speaks for', async () => {
    const run = madeUp({ gradient_pairs: rows((step) => (step % 2 === 0 ? null : step < 10 ? -0.1 : 0.1)) });
    const found = await ask(run, 'conflicts');
    expect(found).toMatchObject([
      { layer: 1, mean_cosine: -0.125, negative_share: 0.75, measured: 60, claimed: 5 },
      { layer: 0, mean_cosine: 0.25, negative_share: 0, measured: 60, claimed: 5 },
    ]);
  });

  it('claims nothing where there is no noise floor', async () => {
    const found = await ask(madeUp({ gradient_pairs: rows(() => null) }), 'conflicts');
    expect(found.map(({ claimed }) => claimed)).toEqual([null, null]);
  });
});

describe('whether amplification rose before the cliff', () => {
  const gradients = STEPS.flatMap((step) => [
    { ...total, step, role: 'generator', amplification: step < 30 ? 1.5 : 2.5 },
    { ...total, step, role: 'aggregator', amplification: 1 },
  ]);
  const evaluations = (accuracies: Record<number, number>) =>
    Object.entries(accuracies).flatMap(([step, right]) =>
      Array.from({ length: 20 }, (_, i) => ({ step: Number(step), problem: `${i}`, correct: i < right })),
    );

  it('compares the steps before it with the first ones', async () => {
    // A dip at 20 that is made up for, the peak at 30, the cliff from 50 on.
    const run = madeUp({
      gradients,
      evaluations: evaluations({ 0: 8, 10: 12, 20: 9, 30: 16, 40: 16, 50: 7, 60: 8 }),
    });
    expect(await ask(run, 'amplification')).toEqual([
      { role: 'aggregator', cliff_step: 50, first_steps: 1, before_cliff: 1 },
      { role: 'generator', cliff_step: 50, first_steps: 1.5, before_cliff: 2.5 },
    ]);
  });

  it('has no answer without a cliff', async () => {
    const run = madeUp({ gradients, evaluations: evaluations({ 0: 8, 20: 12, 40: 9, 60: 12 }) });
    expect(await ask(run, 'amplification')).toEqual([]);
  });
});

it('every question can be asked of a real run', async () => {
  const { folder, rows } = await trainedRun({ policies: { sharing: 'shared' } });
  const names = readdirSync('docs/sql').map((file) => file.replace('.sql', ''));
  expect(names.sort()).toEqual(['amplification', 'conflicts', 'dominance']);
  const [, conflicts, dominance] = await Promise.all(names.map((name) => ask(folder, name)));
  const layers = rows('gradient_pairs').filter(
    ({ grouping, scope, layer }) => grouping === 'role' && scope === 'layer' && Number(layer) >= 0,
  );
  expect(new Set(conflicts?.map(({ layer }) => layer)).size).toBe(
    new Set(layers.map(({ layer }) => layer)).size,
  );
  expect(dominance?.reduce((sum, { steps }) => sum + Number(steps), 0)).toBe(rows('steps').length);
});
