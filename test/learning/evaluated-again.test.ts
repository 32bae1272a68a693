/**
 * A repeated evaluation finds the episodes that it has played, and no others: none of another workflow file, of other
 * problems or on other weights, though all of them have the names that they had.
 */
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { packageRoot } from '../../src/config/package.js';
import { command, troupe } from '../cli/troupe.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-evaluated-again-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const write = (name: string, text: string) => writeFileSync(join(folder, name), text);

const workflow = (answer: number) => `
export default { name: 'mine', roles: ['solver'], async run({ call, problem }) {
  await call('solver', [{ role: 'user', content: problem.question }]);
  return { answer: '\\\\boxed{${answer}}' };
} };`;
const rows = (answer: number) =>
  Array.from({ length: 4 }, (_, i) => JSON.stringify({ question: `${i}+1`, answer: `${answer}` })).join('\n');

/** Accuracy, and how many evaluations the folder holds the episodes of. */
function evaluated(): [accuracy: number, kept: number] {
  const output = join(folder, 'out');
  // A process loads a file once.
  const { stdout, stderr } = troupe(['eval', join(folder, 'run.yaml'), '--output', output, '--json']);
  expect(stdout, stderr).not.toBe('');
  return [JSON.parse(stdout).results[0].accuracy.mean, readdirSync(join(output, 'episodes')).length];
}

test('what was played with other files is played again', () => {
  cpSync(join(packageRoot(), 'models/troupe-0.3m'), join(folder, 'model'), {
    recursive: true,
    dereference: true,
  });
  write(
    'run.yaml',
    `
model: { path: ./model, dtype: float32 }
workflow: { module: ./workflow.mjs }
task: { name: math, files: [./test.jsonl], holdout: 2 }
rollout: { sampling: { maxTokens: 1 } }
evaluation: { problems: 2, greedy: false }
`,
  );
  write('workflow.mjs', workflow(3));
  write('test.jsonl', rows(3));
  expect(evaluated()).toEqual([1, 1]);
  expect(evaluated()).toEqual([1, 1]);
  write('workflow.mjs', workflow(4));
  expect(evaluated()).toEqual([0, 2]);
  write('test.jsonl', rows(4));
  expect(evaluated()).toEqual([1, 3]);
  const weights = join(folder, 'model/model.safetensors');
  writeFileSync(weights, readFileSync(weights).fill(0, 100_000));
  expect(evaluated()).toEqual([1, 4]);
});

test('a run is not evaluated on what it was trained on', async () => {
  write(
    'small.yaml',
    `
steps: 1
model: { path: troupe-0.3m, dtype: float32 }
workflow: { name: single, prompts: small }
task: { name: math, files: [${join(folder, 'rows.jsonl')}], holdout: 2 }
rollout: { promptsPerStep: 1, episodesPerPrompt: 2, sampling: { maxTokens: 1 } }
evaluation: { every: 0, problems: 2, greedy: false }
`,
  );
  write('rows.jsonl', rows(3));
  const run = join(folder, 'run');
  expect((await command(['train', join(folder, 'small.yaml'), '--run', run])).status).toBe(0);
  expect((await command(['eval', run])).status).toBe(0);
  write('rows.jsonl', rows(3).replaceAll('+1', '+2'));
  const refused = await command(['eval', run]);
  expect(refused.stderr).toContain(`${run}/split.json: the data files hold out other problems now`);
  expect(refused.status).toBe(1);
  // The same file in another place is the same data.
  mkdirSync(join(folder, 'moved'));
  cpSync(join(folder, 'rows.jsonl'), join(folder, 'moved/rows.jsonl'));
  const moved = ['eval', run, '--set', `task.files=[${join(folder, 'moved/rows.jsonl')}]`];
  expect((await command(moved)).stderr).toContain('the data files hold out other problems now');
  write('moved/rows.jsonl', rows(3));
  expect((await command(moved)).status).toBe(0);
  // Other data is asked for.
  write('others.jsonl', rows(5));
  expect((await command(['eval', run, '--set', `task.files=[${join(folder, 'others.jsonl')}]`])).status).toBe(
    0,
  );
});
