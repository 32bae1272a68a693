/** Every example row of docs/data.md goes through a data file into a problem whose own answer is right. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import type { CodeTests } from '../../src/tasks/code-tests.js';
import { createTask } from '../../src/tasks/registry.js';
import { needs } from '../needs.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-published-'));
afterAll(() => rmSync(folder, { recursive: true }));

interface Example {
  set: string;
  task: string;
  row: Record<string, unknown>;
}

const examples: Example[] = readFileSync('docs/data.md', 'utf8')
  .split('\n')
  .flatMap((line) => {
    const [, set, task, json] = /^\| (.+?) \| (math|code) \| .* \| `(\{.*\})` \|$/.exec(line) ?? [];
    if (set === undefined || task === undefined || json === undefined) return [];
    return [{ set, task, row: JSON.parse(json) as Record<string, unknown> }];
  });

function fileOf(task: string): { files: string; sets: string[] } {
  const some = examples.filter((example) => example.task === task);
  const files = join(folder, `${task}.jsonl`);
  writeFileSync(files, some.map(({ row }) => JSON.stringify(row)).join('\n'));
  return { files, sets: some.map(({ set }) => set) };
}

test('all named sets have a row', () => {
  const named = examples.map(({ set }) => set).join(' ');
  for (const set of ['GSM8K', 'MATH (', 'MATH-500', 'AIME', 'DAPO-Math-17k', 'Processed']) {
    expect(named).toContain(set);
  }
  for (const set of ['DeepCoder', 'LiveCodeBench', 'HumanEval', 'MBPP', 'LeetCode', 'code_contests']) {
    expect(named).toContain(set);
  }
  for (const set of ['codeforces', 'TACO', 'APPS']) expect(named).toContain(set);
});

test('math: the answers that the table names', async () => {
  const { files, sets } = fileOf('math');
  const task = await createTask({ name: 'math', files, holdout: 0 }, { strict: true });
  const problems = sets.map((_, i) => task.train(0, i)).toSorted((a, b) => a.id.localeCompare(b.id));
  expect(problems.map(({ answer }) => answer)).toEqual([
    '5',
    '\\frac{3}{2}',
    '32',
    '401',
    '60',
    '6',
    '6',
    '42',
  ]);
  for (const { question } of problems) expect(question).not.toMatch(/step by step|own line/);
  const answers = problems.map((problem) => ({ problem, text: `\\boxed{${problem.answer}}` }));
  expect((await task.grade(answers)).every(({ correct }) => correct)).toBe(true);
});

test('code: the tests of each row accept its own program and refuse another', async (context) => {
  needs('bubblewrap')(context);
  const { files, sets } = fileOf('code');
  const task = await createTask({ name: 'code', files, holdout: 0 }, { strict: true });
  try {
    const problems = sets.map((_, i) => task.train(0, i));
    expect(new Set(problems.map(({ id }) => id)).size).toBe(sets.length);
    const program = ({ style }: CodeTests) => (style === 'stdin' ? 'print(7)' : 'class Solution: double = 0');
    const double = ({ style }: CodeTests) =>
      style === 'stdin'
        ? 'print(2 * int(input()))'
        : 'class Solution:\n    def double(self, x): return 2 * x';
    const right = problems.map((problem) => ({
      problem,
      // Those without a program of their own ask for the same.
      text: problem.answer ?? double(problem.data?.tests as CodeTests),
    }));
    const wrong = problems.map((problem) => ({ problem, text: program(problem.data?.tests as CodeTests) }));
    const grades = await task.grade(
      [...right, ...wrong].map((one) => ({ ...one, text: `\`\`\`python\n${one.text}\n\`\`\`` })),
    );
    const verdicts = grades.map(({ correct, reason }, i) => ({
      id: problems[i % problems.length]?.id,
      correct,
      reason,
    }));
    expect(verdicts.slice(0, sets.length).filter(({ correct }) => !correct)).toEqual([]);
    expect(verdicts.slice(sets.length).filter(({ correct }) => correct)).toEqual([]);
  } finally {
    await task.close();
  }
});
