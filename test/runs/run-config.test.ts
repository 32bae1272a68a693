/** The configuration of a run is the one that it ran with: an edited one is refused by whoever reads it. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { loadRunConfig } from '../../src/config/load.js';
import { printConfig } from '../../src/config/print.js';
import { describeEnvironment } from '../../src/runs/environment.js';
import { editsOf, loadRun } from '../../src/runs/run-config.js';
import { createRun } from '../../src/runs/run-directory.js';
import { fails } from '../cli/troupe.js';
import { temporaryFolder } from './temporary.js';

const environment = { ...describeEnvironment({ libtorch: null, devices: [] }), commit: null };

/** A run whose model, data and reward lie in folders of their own. */
function newRun(): { run: string; edit(from: string, to: string): void } {
  const folder = temporaryFolder();
  mkdirSync(join(folder, 'models', 'small'), { recursive: true });
  const set = [
    'steps=4',
    `model.path=${folder}/models/small`,
    'task.name=math',
    `task.files=[${folder}/data/train.jsonl]`,
    `learning.reward=[{ module: ${folder}/brief.ts }]`,
  ];
  const run = join(folder, 'run');
  createRun(run, printConfig(loadRunConfig(undefined, set).config), environment).release();
  const file = join(run, 'config.yaml');
  const edit = (from: string, to: string) => {
    const before = readFileSync(file, 'utf8');
    expect(before).toContain(from);
    writeFileSync(file, before.replaceAll(from, to));
  };
  return { run, edit };
}

it('an edited one is refused, with the keys and what to do', () => {
  const { run, edit } = newRun();
  expect(loadRun(run, ['steps=7']).config.steps).toBe(7);
  edit('seed: 0', 'seed: 7');
  edit('steps: 4', 'steps: 9');
  expect(() => loadRun(run)).toThrow(
    /config\.yaml: was changed since .*seed \(0 → 7\), steps \(4 → 9\).*go on with --set steps=9\.$/,
  );
});

it.each([
  ['eval'],
  ['export', '--merged', 'x'],
  ['serve'],
  ['report', '--output', 'x.html'],
  ['train', '--ranks', '2', '--resume'],
])('troupe %s refuses it', async (name, ...options) => {
  const { run, edit } = newRun();
  edit('alpha: 32', 'alpha: 64');
  const args = name === 'train' ? [name, ...options, run] : [name, run, ...options];
  await fails(args, ['config.yaml: was changed since the run wrote it', 'alpha']);
});

it('a run of an earlier version has keys that are no more', () => {
  const { run } = newRun();
  const file = join(run, 'config.yaml');
  const before = readFileSync(file, 'utf8');
  writeFileSync(file, before.replace('  capture:\n', '  capture:\n    effectiveRoles: 1.5\n'));
  expect(readFileSync(file, 'utf8')).toContain('effectiveRoles');
  expect(loadRun(run).config.steps).toBe(4);
  writeFileSync(file, before.replace('  capture:\n', '  capture:\n    neverThere: 1\n'));
  expect(() => loadRun(run)).toThrow(/neverThere/);
});

it('one of another version, whose keys this one does not know, names that version', () => {
  const { run } = newRun();
  // The run's own record of what it ran with has the key, too: nobody edited it. Early runs have no such record.
  const records = join(run, 'environment.json');
  const [record] = JSON.parse(readFileSync(records, 'utf8'));
  const { configuration, ...early } = record;
  const file = join(run, 'config.yaml');
  writeFileSync(file, readFileSync(file, 'utf8').replace('learning:\n', 'learning:\n  driftSample: 1\n'));
  const later = { ...early, configuration: { ...configuration, learning: { driftSample: 1 } } };
  for (const last of [later, early]) {
    writeFileSync(records, JSON.stringify([{ ...last, commit: '552f184b20a2445d06b9c30cac0d0ff2ee036892' }]));
    expect(() => loadRun(run)).toThrow(
      /config\.yaml.*unknown key "learning\.driftSample".*The run is of Troupe \S+ at 552f184b20a2\. Read it with that version/,
    );
  }
});

it.each([
  ['an unknown key, which this version would not have written', 'seed: 0', 'sede: 0', undefined],
  [
    'a wrong value, whatever the version',
    'seed: 0',
    'seed: zero',
    '552f184b20a2445d06b9c30cac0d0ff2ee036892',
  ],
])('of an early run it is the user who is told of %s', (_, from, to, commit) => {
  const { run, edit } = newRun();
  edit(from, to);
  // Early runs have no record of what they ran with.
  const here = describeEnvironment({ libtorch: null, devices: [] });
  writeFileSync(join(run, 'environment.json'), JSON.stringify([{ ...here, commit: commit ?? here.commit }]));
  expect(() => loadRun(run)).toThrow(
    /^(?!.*The run is of).*config\.yaml:\d+: (unknown key "sede"|seed is "zero")/s,
  );
});

it('paths may lead elsewhere, as in a run that was moved', () => {
  const { run, edit } = newRun();
  const [home = ''] = run.split('/run');
  edit(home, '/elsewhere');
  const { config } = loadRun(run);
  expect(config.model.path).toBe('/elsewhere/models/small');
  expect(editsOf(run).map(({ key }) => key)).toEqual(['model.path', 'task.files', 'learning.reward']);
  edit('train.jsonl', 'other.jsonl');
  expect(() => loadRun(run)).toThrow(/task\.files/);
});
