/**
 * Whole small runs under every sharing of policies: how many optimizer steps they make, which policies move and at
 * what rate, and what happens to gradients that are not finite, to a role that never speaks, and to a run of no
 * steps.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it, test } from 'vitest';
import { TroupeError } from '../../src/config/errors.js';
import { countSkipped, newLoopState } from '../../src/learning/loop-state.js';
import type { PolicyUpdate } from '../../src/learning/update-policy.js';
import { newFolder, rowsOfRun, trainedRun } from './trained-run.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-sharing-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const SHARINGS = [
  ['shared', 'shared'],
  ['isolated', 'isolated'],
  ['mapped', { orchestrator: 'lead', worker: 'crew', synthesizer: 'lead' }],
] as const;

describe('matched updates', () => {
  it.each(SHARINGS)('of three roles are three a step, %s', async (_name, sharing) => {
    const run = await trainedRun({
      steps: 1,
      workflow: { name: 'orch-workers', prompts: 'small' },
      policies: { sharing },
      learning: { updates: 'matched' },
    });
    const updates = run.rows('updates');
    expect(updates).toHaveLength(3);
    for (const row of updates) {
      const ofPolicy = updates.filter(({ policy }) => policy === row.policy);
      expect(row.updates).toBe(ofPolicy.length);
    }
    const groups = run.rows('gradients').filter((row) => row.role !== null);
    for (const row of groups) expect(row.row_weight).toBeGreaterThan(0);
  });
});

describe('settings of single policies', () => {
  it.each([
    ['isolated', 'isolated', ['generator', 'aggregator']],
    ['mapped', { generator: 'left', aggregator: 'right' }, ['left', 'right']],
  ] as const)('rate and freeze count for that policy alone, %s', async (_name, sharing, names) => {
    const [first, second] = names;
    const rates = await trainedRun({
      policies: { sharing, overrides: { [first]: { learningRate: 1e-3 }, [second]: { learningRate: 1e-4 } } },
    });
    const learned = new Map(rates.rows('updates').map((row) => [row.policy, row.learning_rate]));
    expect(learned).toEqual(
      new Map([
        [first, 1e-3],
        [second, 1e-4],
      ]),
    );

    const frozen = await trainedRun({
      policies: { sharing, overrides: { [first]: { learningRate: 1e-3 }, [second]: { freeze: true } } },
    });
    expect(new Set(frozen.rows('updates').map(({ policy }) => policy))).toEqual(new Set([first]));
    const versions = (policy: string) =>
      frozen.rows('calls').flatMap((row) => (row.policy === policy ? [row.version] : []));
    expect(Math.max(...(versions(first) as number[]))).toBe(1);
    expect(new Set(versions(second))).toEqual(new Set([0]));
    // A frozen policy's role is measured all the same, without gradients.
    expect(frozen.rows('roles').map(({ policy }) => policy)).toContain(second);
  });
});

describe('gradients that are not finite', () => {
  const loss = join(folder, 'broken-loss.mjs');
  writeFileSync(loss, 'export default ({ logprobs }) => logprobs.mul(Number.NaN).sum();\n');

  it('are named, their steps skipped and counted, and the third in a row ends the run', async () => {
    const run = newFolder();
    const training = trainedRun({ steps: 9, learning: { loss: { module: loss } } }, run);
    await expect(training).rejects.toThrow(TroupeError);
    await expect(training).rejects.toThrow(/policy generator.*3 optimizer steps in a row/);
    const updates = rowsOfRun(run, 'updates');
    expect(updates.map(({ step }) => step)).toEqual([0, 0, 1, 1, 2, 2]);
    for (const row of updates) {
      expect(row.skipped).toMatch(/^the gradient of policy \w+, group \w+\/0, at .+ is not finite$/);
      expect(row).toMatchObject({ loss: null, gradient_norm: null, clip_factor: null, version: 0 });
    }
    expect(rowsOfRun(run, 'gradients')).toEqual([]);
  });

  it('only count in a row, for each policy by itself', () => {
    const state = newLoopState();
    const updates = (policy: string, ...skipped: boolean[]) =>
      skipped.map((skip) => ({ policy, result: skip ? { skipped: 'NaN at q' } : {} })) as PolicyUpdate[];
    countSkipped(state, updates('a', true, true, false));
    countSkipped(state, [...updates('a', true, true), ...updates('b', true)]);
    expect(state.skippedInARow).toEqual({ a: 2, b: 1 });
    expect(() => countSkipped(state, updates('a', true))).toThrow(/policy a: .*NaN at q/);
  });
});

describe('little to measure', () => {
  it('one role alone', async () => {
    const run = await trainedRun({ steps: 3, workflow: { name: 'single', prompts: 'small' } });
    const whole = run.rows('gradients').filter((row) => row.grouping === 'policy' && row.scope === 'total');
    expect(whole).toHaveLength(3);
    for (const row of whole) {
      // A step whose rewards are all alike has no gradient to share.
      const one = row.norm === 0 ? null : 1;
      expect(row).toMatchObject({ dominance: one, effective_roles: one, coherence: one, members: 1 });
    }
  });

  it('a role that never speaks', async () => {
    const workflow = join(folder, 'quiet.mjs');
    writeFileSync(
      workflow,
      `export default { name: 'quiet', roles: ['speaker', 'silent'], run: async ({ problem, call }) => ({
        answer: (await call('speaker', [{ role: 'user', content: problem.question }])).text }) };`,
    );
    for (const sharing of ['shared', 'isolated'] as const) {
      const run = await trainedRun({ steps: 1, workflow: { module: workflow }, policies: { sharing } });
      expect(new Set(run.rows('updates').map(({ policy }) => policy)).size).toBe(1);
      const silent = run.rows('signals').filter(({ role }) => role === 'silent');
      expect(silent.length).toBeGreaterThan(5);
      expect(silent.every(({ value }) => value === null)).toBe(true);
    }
  });

  it('a run of no steps', async () => {
    const run = await trainedRun({ steps: 0 });
    expect(run.rows('evaluations')).toHaveLength(3);
    expect(run.rows('gradients')).toEqual([]);
  });
});

test('a role, a policy and a count may have the name of something that every object has', async () => {
  const module = join(folder, 'names.mjs');
  writeFileSync(
    module,
    `export default {
      name: 'names',
      roles: ['constructor'],
      async run({ call, count, problem }) {
        count('valueOf');
        const { text } = await call('constructor', [{ role: 'user', content: problem.question }]);
        return { answer: text };
      },
    };`,
  );
  const run = await trainedRun({ workflow: { module }, learning: { estimator: { name: 'rae' } } });
  const counted = run.rows('signals').filter(({ signal }) => signal === 'valueOf');
  expect(counted.map(({ value }) => value)).toEqual([3, 12, 12, 3]);
  const calls = run.rows('calls');
  expect(calls).toHaveLength(24);
  for (const call of calls) {
    expect(call).toMatchObject({ role: 'constructor', policy: 'constructor' });
    expect(call.advantage).toSatisfy(Number.isFinite);
  }
});
