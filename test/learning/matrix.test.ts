/** Cells of a study: what combinations there are, in what order, and what is said about a wrong matrix. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { loadStudy, selectCells } from '../../src/learning/study/matrix.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-matrix-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let files = 0;
function matrix(text: string): string {
  files += 1;
  const file = join(folder, `study${files}.yaml`);
  writeFileSync(file, text);
  return file;
}

const AXES = `
axes:
  workflow: [voting, eval-opt]
  sharing: [shared, isolated]
  seed: [0, 1]
`;

describe('cells', () => {
  it('are every combination, with one single agent for each seed, whole seeds first', async () => {
    const { cells } = await loadStudy(matrix(AXES));
    expect(cells.map(({ id }) => id)).toEqual(
      [0, 1].flatMap((seed) => [
        `voting-shared-seed${seed}`,
        `voting-isolated-seed${seed}`,
        `eval-opt-shared-seed${seed}`,
        `eval-opt-isolated-seed${seed}`,
        `single-seed${seed}`,
      ]),
    );
    const single = cells.find(({ id }) => id === 'single-seed1');
    expect(single?.axes).toEqual({ workflow: 'single', sharing: null, seed: '1' });
    expect(single?.config).toMatchObject({ workflow: { name: 'single' }, seed: 1 });
    expect(cells[3]?.config).toMatchObject({
      workflow: { name: 'eval-opt' },
      policies: { sharing: 'isolated' },
    });
  });

  it('have no control that was not asked for', async () => {
    const { cells } = await loadStudy(matrix(`${AXES}singleAgent: false\n`));
    expect(cells.map(({ axes }) => axes.workflow)).not.toContain('single');
  });

  it('take the keys of maps over those of `config`, and --set over both', async () => {
    const file = matrix(`
config: { extends: study-math-voting-isolated, task: { name: arithmetic }, steps: 7, evaluation: { every: 3 } }
axes:
  intervention:
    none: {}
    balanced: { interventions: { balance: mass }, steps: 8 }
`);
    const { cells, axes } = await loadStudy(file, ['evaluation.every=2']);
    expect(axes).toEqual(['intervention']);
    expect(cells.map(({ id, config }) => [id, config.steps, config.interventions.balance])).toEqual([
      ['none', 7, 'none'],
      ['balanced', 8, 'mass'],
    ]);
    expect(cells.map(({ config }) => config.evaluation.every)).toEqual([2, 2]);
    // From the preset.
    expect(cells[0]?.config.policies.defaults.learningRate).toBe(2e-5);
  });

  it('of the lab are 42 of arithmetic and 7 of mini-programs', async () => {
    const count = async (name: string) => (await loadStudy(`configs/lab/${name}.yaml`)).cells.length;
    expect(await count('arithmetic')).toBe(42);
    expect(await count('mini-programs')).toBe(7);
    expect(await count('smollm2')).toBe(4);
  });
});

describe('a selection', () => {
  it('takes values of axes, and slices that share the cells out', async () => {
    const study = await loadStudy(matrix(AXES));
    const ids = (only: string[], slice?: string) => selectCells(study, { only, slice }).map(({ id }) => id);
    expect(ids(['workflow=voting', 'seed=0'])).toEqual(['voting-shared-seed0', 'voting-isolated-seed0']);
    expect(ids(['workflow=voting,single', 'seed=1'])).toHaveLength(3);
    const slices = [1, 2, 3].map((i) => ids([], `${i}/3`));
    expect(slices.map(({ length }) => length)).toEqual([4, 3, 3]);
    expect(slices.flat().sort()).toEqual(study.cells.map(({ id }) => id).sort());
  });

  it('of something that is not there is an error', async () => {
    const study = await loadStudy(matrix(AXES));
    const select = (only: string[], slice?: string) => () => selectCells(study, { only, slice });
    expect(select(['workflw=voting'])).toThrow(/--only: .*workflw.*Did you mean "workflow"/);
    expect(select(['workflow=votin'])).toThrow(/--only: .*votin.*Did you mean "voting"/);
    for (const slice of ['0/2', '3/2', 'x']) expect(select([], slice)).toThrow(/--slice: .*2\/4/);
  });
});

describe('a wrong matrix', () => {
  const cases: [string, string, RegExp][] = [
    ['an unknown key', 'axis: {}\naxes: {}', /study\d+\.yaml:1.*axis.*"axes"/s],
    ['an unknown key of a run', `${AXES}config:\n  stepps: 3\n`, /study\d+\.yaml:7.*stepps.*"steps"/s],
    ['a wrong value in an axis', 'axes:\n  workflow: [votin]\n', /study\d+\.yaml:2.*votin.*"voting"/s],
    [
      'a wrong key in a map',
      'axes:\n  rate:\n    low: { learnin: {} }\n',
      /study\d+\.yaml:3.*learnin.*"learning"/s,
    ],
    ['a list for an axis of its own', 'axes:\n  rate: [1, 2]\n', /study\d+\.yaml:2.*rate.*map/s],
    ['two cells of one name', 'axes:\n  rate:\n    "a b": {}\n    "a,b": {}\n', /a_b/],
  ];
  it.each(cases)('%s', async (_, text, message) => {
    await expect(loadStudy(matrix(text))).rejects.toThrow(message);
  });
});
