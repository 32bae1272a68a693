/** `troupe study` as a user runs it: cells in processes of their own, broken off, continued, compared. */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { tableFromIPC } from 'apache-arrow';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { rowsOfRun } from '../learning/trained-run.js';
import { fails, troupe } from './troupe.js';

const parent = mkdtempSync(join(tmpdir(), 'troupe-study-'));
afterAll(() => rmSync(parent, { recursive: true, force: true }));

const MATRIX = `
axes:
  workflow: [voting]
  sharing: [shared, isolated]
  seed: [0]
config:
  steps: 2
  model: { path: troupe-0.3m }
  task: { name: arithmetic, levels: [1] }
  workflow: { prompts: small }
  rollout: { promptsPerStep: 3, episodesPerPrompt: 4, sampling: { maxTokens: 6 } }
  evaluation: { every: 1, problems: 8 }
  checkpoints: { every: 1 }
`;

function matrix(name: string, text: string): { file: string; folder: string } {
  const file = join(parent, `${name}.yaml`);
  writeFileSync(file, text);
  return { file, folder: join(parent, name) };
}

const CELLS = ['voting-shared-seed0', 'voting-isolated-seed0', 'single-seed0'];
const runsOf = (folder: string) => CELLS.map((cell) => join(folder, 'runs', cell));

describe('a study', () => {
  const { file, folder } = matrix('whole', MATRIX);
  let stdout = '';
  let stderr = '';
  beforeAll(() => {
    const outcome = troupe(['study', file, '--folder', folder, '--jobs', '2']);
    expect(outcome.status, outcome.stderr).toBe(0);
    ({ stdout, stderr } = outcome);
  });

  it('runs every cell to its end, and says so', () => {
    for (const run of runsOf(folder)) {
      expect(JSON.parse(readFileSync(join(run, 'outcome.json'), 'utf8'))).toMatchObject({ steps: 2 });
    }
    for (const cell of CELLS) expect(stderr).toMatch(new RegExp(`done +2/2 .*${cell}`));
    expect(stdout).toMatch(/voting shared .*\n.*voting isolated .*\n.*single /s);
  });

  it('is paired: cells have the same problems in the same order, and start from the same accuracy', () => {
    const [shared = [], isolated = [], single = []] = runsOf(folder).map((run) => {
      const problems = rowsOfRun(run, 'calls').map(({ step, problem }) => `${step} ${problem}`);
      return [...new Set(problems)];
    });
    expect(shared).toHaveLength(6);
    expect(isolated).toEqual(shared);
    expect(single).toEqual(shared);
    const [before, other] = runsOf(folder).map((run) =>
      rowsOfRun(run, 'evaluations').filter(({ step }) => Number(step) === 0),
    );
    expect(before).toHaveLength(8);
    expect(other).toEqual(before);
  });

  it('has the results of its streams in two tables', () => {
    const table = (name: string) => tableFromIPC(readFileSync(join(folder, `${name}.arrow`)));
    const results = table('results')
      .toArray()
      .map((row) => row.toJSON());
    expect(results.map(({ cell }) => cell)).toEqual(CELLS);
    for (const [i, run] of runsOf(folder).entries()) {
      const last = rowsOfRun(run, 'evaluations').filter(({ step }) => Number(step) === 2);
      const right = last.filter(({ correct }) => correct).length / last.length;
      expect(results[i]).toMatchObject({ terminal: right, terminal_step: 2, state: 'ended' });
    }
    expect(results[2]).toMatchObject({ workflow: 'single', sharing: null, against_single: null });
    const [, isolated, single] = results;
    expect(isolated?.against_single).toBeCloseTo(isolated?.terminal - single?.terminal, 12);

    const measures = table('measures')
      .toArray()
      .map((row) => row.toJSON());
    const [shared = ''] = runsOf(folder);
    const shares = rowsOfRun(shared, 'gradients').filter(
      ({ grouping, scope }) => grouping === 'role' && scope === 'total',
    );
    expect(shares.length).toBeGreaterThan(0);
    for (const { step, role, mass_share } of shares) {
      const found = measures.find(
        (row) =>
          row.cell === CELLS[0] &&
          row.measure === 'mass_share' &&
          row.subject === role &&
          row.step === Number(step),
      );
      if (mass_share === null) expect(found).toBeUndefined();
      else expect(found?.value).toBeCloseTo(mass_share as number, 6);
    }
  });

  it('does not run again what has ended', () => {
    const times = () => runsOf(folder).map((run) => statSync(join(run, 'outcome.json')).mtimeMs);
    const before = times();
    const again = troupe(['study', file, '--folder', folder]);
    expect(again.status, again.stderr).toBe(0);
    expect(times()).toEqual(before);
    expect(again.stderr).not.toContain('running');
  });

  it('refuses cells of another configuration', async () => {
    const message = await fails(
      ['study', file, '--folder', folder, '--set', 'steps=3'],
      ['voting-shared-seed0', '--folder'],
    );
    expect(message).toContain('another configuration');
  });
});

it('runs the other cells when one fails, and says why', () => {
  const { file, folder } = matrix(
    'failing',
    MATRIX.replace('sharing: [shared, isolated]', 'task:\n    good: {}\n    bad: { task: { levels: [99] } }'),
  );
  const outcome = troupe(['study', file, '--folder', folder]);
  expect(outcome.status).toBe(1);
  expect(outcome.stderr).toMatch(/^voting-bad-seed0 failed: .*levels.*logs\/voting-bad-seed0\.log/m);
  expect(outcome.stderr).toMatch(/done +2\/2 .*voting-good-seed0/);
  expect(outcome.stdout).toContain('2 cells are left');
});

it('stops at a signal after the step, and goes on from there', async () => {
  const { file, folder } = matrix('stopped', MATRIX.replace('steps: 2', 'steps: 30'));
  const main = fileURLToPath(new URL('../../build/js/cli/main.js', import.meta.url));
  const args = ['study', file, '--folder', folder, '--only', 'sharing=shared'];
  const child = spawn('node', [main, ...args], { env: { ...process.env, OMP_NUM_THREADS: '1' } });
  const run = join(folder, 'runs', 'voting-shared-seed0');
  let printed = '';
  child.stdout.on('data', (text) => {
    printed += text;
  });
  const begun = () => existsSync(join(run, 'checkpoints')) && rowsOfRun(run, 'steps').length > 2;
  while (!begun()) await new Promise((resolve) => setTimeout(resolve, 50));
  const ended = new Promise((resolve) => child.on('close', resolve));
  child.kill('SIGINT');
  expect(await ended).toBe(0);
  expect(printed).toContain('are left');
  expect(existsSync(join(run, 'outcome.json'))).toBe(false);
  const done = rowsOfRun(run, 'steps').length;
  expect(done).toBeLessThan(30);

  const again = troupe(args);
  expect(again.status, again.stderr).toBe(0);
  expect(rowsOfRun(run, 'steps').map(({ step }) => Number(step))).toEqual(
    Array.from({ length: 30 }, (_, i) => i),
  );
});
