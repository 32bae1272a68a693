/**
 * Answers to code problems by the themes of bug reports of other graders, with attacks (code-rows.jsonl, one a line): none
 * that is wrong passes, none that is right fails.
 */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { gradeProgram } from '../../src/tasks/code-grading.js';
import { codeProblem } from '../../src/tasks/code-rows.js';
import type { CodeTests } from '../../src/tasks/code-tests.js';
import { SandboxPool } from '../../src/tasks/sandbox.js';
import { has, needs } from '../needs.js';

interface Answer {
  theme: string;
  row: Record<string, unknown>;
  response: string;
  want: boolean;
}

const answers = readFileSync(new URL('code-rows.jsonl', import.meta.url), 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line) as Answer);
let pool: SandboxPool;

beforeAll(async () => {
  if (has('bubblewrap')) pool = await SandboxPool.open({ jobs: 2 });
});
afterAll(async () => {
  await pool?.close();
});
beforeEach(needs('bubblewrap'));

describe('answers by the themes of bug reports', () => {
  test.each([...new Set(answers.map(({ theme }) => theme))])('%s', async (theme) => {
    const graded = await Promise.all(
      answers
        .filter((answer) => answer.theme === theme)
        .map(async (answer) => {
          const tests = codeProblem(answer.row, 'x:1').data?.tests as CodeTests;
          return { ...answer, grade: await gradeProgram(pool, answer.response, tests) };
        }),
    );
    expect(graded.length).toBeGreaterThan(10);
    expect(graded.filter(({ want, grade }) => grade.correct !== want)).toEqual([]);
  });
});
