/** Files of a user's own that are edited between two processes of a run: it goes on, and says so wherever a person looks. */
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, expect, test } from 'vitest';
import { besideNow } from '../../src/learning/own-files.js';
import { readChanges } from '../../src/runs/run-directory.js';
import { command, troupe } from '../cli/troupe.js';
import { needs } from '../needs.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-edited-'));
const run = join(folder, 'run');
afterAll(() => rmSync(folder, { recursive: true, force: true }));
beforeEach(needs('python'));

function write(name: string, text: string): string {
  const file = join(folder, name);
  mkdirSync(join(file, '..'), { recursive: true });
  writeFileSync(file, text);
  return file;
}

const rows = (answer: number) =>
  Array.from({ length: 8 }, (_, i) => JSON.stringify({ question: `${i}+1`, answer: `${i + answer}` })).join(
    '\n',
  );

test('modules, what they import, Python files, prompts and data', async () => {
  const workflow = `import { ask } from './lib/ask.mjs';
    import { createRequire } from 'node:module';
    import words from './words.cjs';
    createRequire(import.meta.url)('./own.cjs');
    export default { name: 'mine', roles: ['solver'], async run({ problem, call, prompt }) {
      prompt('solver');
      await import(words.late);
      return { answer: (await call('solver', ask(problem.question))).text };
    } };`;
  write('workflow.mjs', workflow);
  write('lib/ask.mjs', "export const ask = (content) => [{ role: 'user', content }];");
  write('words.cjs', "exports.late = require('./lib/more.cjs') + '.mjs';");
  write('lib/more.cjs', "module.exports = './late';");
  write('own.cjs', '');
  write('late.mjs', '');
  write('prompts/math/mine.yaml', 'solver: [{ user: "{{ question }}" }]');
  write(
    'rewards.py',
    `from lengths import length
def short(completion_ids):
    from shifts import shift
    return [length(c) + shift for c in completion_ids]`,
  );
  write('shifts.py', 'shift = 1');
  write('lengths.py', 'def length(ids): return -len(ids)');
  write('train.jsonl', rows(1));
  const config = write(
    'run.yaml',
    `
steps: 1
model: { path: troupe-0.3m, dtype: float32 }
task: { name: math, files: [${folder}/train.jsonl], holdout: 2 }
workflow: { module: ${folder}/workflow.mjs, prompts: ${folder}/prompts }
learning: { reward: [outcome, { python: ${folder}/rewards.py, function: short }] }
rollout: { promptsPerStep: 1, episodesPerPrompt: 2, sampling: { maxTokens: 4 } }
evaluation: { problems: 1, greedy: false }
`,
  );
  const first = troupe(['train', config, '--run', run]);
  expect(first.status, first.stderr).toBe(0);

  write('lib/ask.mjs', "export const ask = (content) => [{ role: 'user', content: content + '?' }];");
  write('prompts/math/mine.yaml', 'solver: [{ user: "{{ question }}!" }]');
  write('lengths.py', 'def length(ids): return len(ids)');
  for (const name of ['lib/more.cjs', 'own.cjs', 'late.mjs'])
    write(name, `${readFileSync(join(folder, name))}// edited`);
  write('shifts.py', 'shift = 2');
  write('train.jsonl', rows(2));
  const edited = troupe(['train', '--resume', run, '--set', 'steps=2']);
  expect(edited.status, edited.stderr).toBe(0);
  const code = ['own.cjs', 'ask.mjs', 'more.cjs', 'lengths.py'];
  const names = [...code, 'mine.yaml', 'train.jsonl', 'late.mjs', 'shifts.py'];
  const said = names.map((name) => `${name} was edited`).join(', ');
  expect(edited.stderr).toContain(`since the run last ran ${said}; it goes on with what is there now`);
  expect(readChanges(run).map(({ step, key }) => [step, key])).toEqual(
    ['steps', ...names.map((name) => `file ${name}`)].map((key) => [1, key]),
  );
  write('workflow.mjs', `${workflow}\n`);
  // An evaluation starts no rewards.
  write('lengths.py', 'def length(ids): return 1');
  write('shifts.py', 'shift = 3');
  const evaluated = await command(['eval', run]);
  expect(evaluated.status, evaluated.stderr).toBe(0);
  expect(evaluated.stderr).toContain(
    `${run}: since it last ran workflow.mjs was edited, lengths.py was edited, shifts.py was edited\n`,
  );
  const changes = readChanges(run);
  write('workflow.mjs', workflow.replace("['solver']", "['critic', 'solver']"));
  for (const args of [
    ['eval', run],
    ['train', '--resume', run, '--set', 'steps=3'],
  ]) {
    const other = troupe(args);
    expect(other.status).toBe(1);
    expect(other.stderr.trim().split('\n').at(-1)).toMatch(
      /^troupe: .*step-000002: holds no policy critic; it holds solver\. The run's workflow has other roles now/,
    );
  }
  expect(readChanges(run).filter(({ key }) => key !== 'steps')).toEqual(
    changes.filter(({ key }) => key !== 'steps'),
  );
  const page = join(folder, 'report.html');
  const reported = await command(['report', run, '--output', page]);
  expect(reported.status, reported.stderr).toBe(0);
  expect(readFileSync(page, 'utf8')).toMatch(/Changed on the way: .*step 1: file lengths\.py/);
});

test('a file that is loaded is compared wherever it lies now, one that is not where the record has it', async () => {
  const lib = write('old/lib.py', 'x = 1');
  const before = ['old/a.mjs', 'old/lib.py', 'old/gone.py'].map((name) => ({
    file: join(folder, name),
    sha256: 'recorded',
  }));
  const loaded = [
    { file: '/new/a.mjs', sha256: 'loaded' },
    { file: '/new/other.mjs', sha256: 'another' },
  ];
  const [a, one] = before;
  expect(await besideNow(before, loaded)).toEqual([
    { before: a, now: loaded[0] },
    { before: one, now: { file: lib, sha256: createHash('sha256').update('x = 1').digest('hex') } },
  ]);
});
