/** What a command line loads, and what it says where no command is named rightly. */
import { spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it, test } from 'vitest';
import { COMMANDS } from '../../src/cli/commands.js';
import { command, fails, main, troupe } from './troupe.js';

const temporary = mkdtempSync(join(tmpdir(), 'troupe-command-line-'));
afterAll(() => rmSync(temporary, { recursive: true, force: true }));

/** Prints the address of each module that Node loads, on standard error. */
const HOOKS = `import { writeSync } from 'node:fs';
  export function load(url, context, next) { writeSync(2, 'loads ' + url + '\\n'); return next(url, context); }`;
const dataUrl = (code: string) => `data:text/javascript,${encodeURIComponent(code)}`;
const TELL = dataUrl(`import { register } from 'node:module'; register(${JSON.stringify(dataUrl(HOOKS))});`);

/** The program's own modules that a command line loads, as paths in build/js, and the packages. */
function loaded(args: readonly string[]): { own: string[]; packages: string[] } {
  const { stderr } = spawnSync('node', ['--import', TELL, main, ...args], { encoding: 'utf8' });
  const urls = [...stderr.matchAll(/^loads (file:.*)$/gm)].map(([, url = '']) => fileURLToPath(url));
  const packageOf = (path: string) => path.match(/.*\/node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1] ?? [];
  return {
    own: urls.flatMap((path) => path.match(/\/build\/js\/(.*)\.js$/)?.[1] ?? []),
    packages: [...new Set(urls.flatMap(packageOf))],
  };
}

const modules = readdirSync(new URL('../../src/cli', import.meta.url)).map((name) => name.replace('.ts', ''));
const OTHERS = ['main', 'command-line', 'commands'];

describe('what is loaded', () => {
  it.each([['--help'], ['--version'], ['trian'], ['--frob']])('%s: no code of any command', (arg) => {
    const { own, packages } = loaded([arg]);
    expect(own.filter((path) => !path.startsWith('config/')).sort()).toEqual(
      OTHERS.map((name) => `cli/${name}`).sort(),
    );
    expect(packages).toContain('yargs');
    for (const heavy of ['zod', 'yaml', 'apache-arrow', 'typescript']) expect(packages).not.toContain(heavy);
  });

  it.each([
    ['grade', '--help'],
    ['--help', 'grade'],
    ['grade', '--frob'],
  ])('%s %s: that command alone', (...args) => {
    const commands = loaded(args).own.filter((path) => modules.includes(path.replace('cli/', '')));
    expect(commands.sort()).toEqual([...OTHERS, 'grade'].map((name) => `cli/${name}`).sort());
  });
});

describe('each command', () => {
  it.each(Object.entries(COMMANDS))('%s says what the list says of it', async (name, { usage, describe }) => {
    const { status, stdout } = await command([name, '--help']);
    expect(status).toBe(0);
    expect(stdout).toContain(`troupe ${usage}`);
    expect(stdout).toContain(describe);
    expect(usage.split(' ')[0]).toBe(name);
  });

  it('stands in the help', async () => {
    const { status, stdout } = await command(['--help']);
    expect(status).toBe(0);
    for (const { usage } of Object.values(COMMANDS)) expect(stdout).toContain(`troupe ${usage} `);
  });
});

test('options may stand before the command', async () => {
  await fails(['--table', 'calls', 'tail', '/nowhere'], ['/nowhere: is no run directory']);
});

test.each([
  [[], 'Which command?', 'troupe --help'],
  [['trian'], 'Did you mean train?', 'troupe COMMAND --help'],
  [['frobnicate'], 'Unknown command: frobnicate', 'troupe COMMAND --help'],
  [['tail', '--table', 'calls'], 'Arguments are missing: got 0, need at least 1', 'troupe tail --help'],
  [['config', '--frob'], 'Unknown argument: frob', 'troupe config --help'],
  [['--frob', '3', 'config'], 'Unknown argument: frob', 'troupe COMMAND --help'],
])('%j is wrong usage', async (args, said, see) => {
  await fails(args, [said, see], 2);
});

test.each([['train'], ['config'], ['plan'], ['play'], ['sft']])(
  '%s: what stands behind --set KEY=VALUE is the file',
  async (name) => {
    await fails([name, '--set', 'steps=1', '/nowhere.yaml'], ['/nowhere.yaml']);
  },
);

test.each([
  ['watch', '99999'],
  ['serve', '-1'],
  ['watch', '1.5'],
])('%s: %s is no port', async (name, port) => {
  await fails([name, '/nowhere', '--port', port], ['--port', 'a whole number from 0 to 65535']);
});

test.each(['0', '1.5', '1025'])('train --ranks %s: is no number of processes', async (ranks) => {
  await fails(['train', '--ranks', ranks], [`--ranks: is ${ranks}; it takes a whole number from 1 to 1024.`]);
});

test('train --ranks: what a module prints as it is loaded stays off standard output', () => {
  const path = join(temporary, 'prints.mjs');
  writeFileSync(path, "console.log('loaded'); export default { name: 'p', roles: ['a'], run: () => ({}) };");
  const wrong = ['--set', `workflow.module=${path}`, '--set', 'policies.overrides.b.learningRate=1'];
  const { status, stdout, stderr } = troupe(['train', '--ranks', '2', '--json', ...wrong]);
  expect([status, stdout], stderr).toEqual([1, '']);
  expect(stderr).toContain('loaded\n');
  expect(stderr).toContain('no policy is named "b"');
});

test('train --ranks: NCCL that is asked for and cannot be used is an error, not another way in silence', () => {
  const small = ['--ranks', '2', '--run', join(temporary, 'nccl')];
  const { status, stderr } = spawnSync('node', [main, 'train', ...small, '--set', 'model.device=cpu'], {
    encoding: 'utf8',
    env: { ...process.env, TROUPE_NCCL: '1' },
  });
  expect(status, stderr).toBe(1);
  expect(stderr).toMatch(
    /TROUPE_NCCL=1 asks for NCCL between GPUs, (which cannot be used here: |and this rank)/,
  );
  expect(stderr).not.toContain('train step');
});

test('a full disk under standard output is a sentence', () => {
  const full = openSync('/dev/full', 'w');
  const { status, stderr } = spawnSync('node', [main, 'config'], {
    encoding: 'utf8',
    stdio: ['ignore', full, 'pipe'],
  });
  closeSync(full);
  expect(status).toBe(1);
  expect(stderr).toBe('troupe: standard output: the disk is full. Make room, then run the command again.\n');
});

test.each([
  [['eval', '--samples', 'x'], '--samples is "x"; it takes a number.'],
  [['eval', '--samples', '2', '--k', '1', '--k', 'two'], '--k is "two"; it takes a number.'],
  [['generate', 'm', '--prompt', 'p', '--max-tokens=many'], '--max-tokens is "many"; it takes a number.'],
  [['generate', 'm', '--prompt', 'p', '--top-p=0,9'], '--top-p is "0,9"; it takes a number.'],
  [['--seed', 'x', 'init', 'f', '--shape', 'qwen3-0.6b'], '--seed is "x"; it takes a number.'],
  [['gradients', 'm', '--calls', 'c', '--micro-batch-rows', 'x'], '--micro-batch-rows is "x"; it takes'],
  [['plan', '--devices', 'x'], '--devices is "x"; it takes a number.'],
  [['plan', '--hosts', 'NaN'], '--hosts is "NaN"; it takes a number.'],
  [['play', '--problem', '--set', 'steps=1'], 'Not enough arguments following: problem'],
  [['play', '--problem='], '--problem is empty.'],
  [['serve', 'r', '--port', 'abc'], '--port is "abc"; it takes a number.'],
  [['study', 's.yaml', '--jobs', 'all'], '--jobs is "all"; it takes a number.'],
  [['train', '--ranks', 'two'], '--ranks is "two"; it takes a number.'],
])('%j: what stands for a number is said as it was written', async (args, said) => {
  await fails(args, [said], 2);
});

test.each([
  [['report', ''], 'runs is empty.'],
  [['report', 'a', ''], 'runs is empty.'],
  [['import', 'm', ''], 'folder is empty.'],
  [['score', '', '--text', 'a'], 'model is empty.'],
  [['train', '--run', ''], '--run is empty.'],
  [['train', '--resume='], '--resume is empty.'],
  [['report', 'r', '-o', ''], '--output is empty.'],
  [['--table', 'calls', 'tail', ''], 'run is empty.'],
])('%j: an empty path is not the working directory', async (args, said) => {
  await fails(args, [said], 2);
});

describe('an option that takes one value', () => {
  it.each([
    [['train', '--run', 'a', '--run', 'b'], '--run is given more than once.'],
    [['plan', '--device', 'h100', '--device', 'h200'], '--device is given more than once.'],
    [['generate', 'm', '--prompt', 'x', '--top-k', '1', '--top-k', '2'], '--top-k is given more than once.'],
    [['--shape', 'x', '--shape', 'y', 'plan'], '--shape is given more than once.'],
    [['train', '--run'], 'Not enough arguments following: run'],
    [['plan', '--devices'], 'Not enough arguments following: devices'],
  ])('is refused twice, and without one: %j', async (args, said) => {
    await fails(args, [said], 2);
  });

  it('is another than one that takes several, and may be empty', async () => {
    const { status, stdout } = await command(['config', '--set', 'steps=3', '--set', 'seed=4']);
    expect([status, stdout]).toEqual([0, expect.stringMatching(/^seed: 4\nsteps: 3$/m)]);
    const { stderr } = await command(['generate', 'nowhere', '--prompt', '']);
    expect(stderr).toContain('there is no model folder "nowhere"');
  });
});
