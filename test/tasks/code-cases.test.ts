/**
 * The code grader on answers with known verdicts: no wrong answer passes, and at most 2 % of the right ones fail.
 * Own cases by kind (code-cases.ts); attacks such as reinforcement learning finds (code-attacks.jsonl, one a line);
 * and answers remade from public bug reports, where that file is present.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { gradeProgram } from '../../src/tasks/code-grading.js';
import { codeProblem } from '../../src/tasks/code-rows.js';
import type { CodeTests } from '../../src/tasks/code-tests.js';
import { SandboxPool } from '../../src/tasks/sandbox.js';
import { dataFolder, has, needs } from '../needs.js';
import { cases } from './code-cases.js';

interface Answer {
  row: Record<string, unknown>;
  response: string;
  want: boolean;
}

const MOST_REFUSED = 0.02;
// Grades hundreds of answers: minutes on a busy machine.
const TIMEOUT = 600_000;
let pool: SandboxPool;

beforeAll(async () => {
  if (has('bubblewrap')) pool = await SandboxPool.open({ jobs: 2 });
});
afterAll(async () => {
  await pool?.close();
});
beforeEach(needs('bubblewrap'));

/** The answers that get another verdict than they should: those that pass, and those that fail. */
async function misgraded(answers: readonly Answer[]): Promise<{ accepted: string[]; refused: string[] }> {
  const grades = await Promise.all(
    answers.map(async ({ row, response }) => {
      return gradeProgram(pool, response, codeProblem(row, 'x:1').data?.tests as CodeTests);
    }),
  );
  const texts = (correct: boolean) =>
    answers.flatMap(({ row, response, want }, i) =>
      grades[i]?.correct === correct && want !== correct
        ? [`${grades[i]?.reason}: ${JSON.stringify(row)} ${response}`]
        : [],
    );
  return { accepted: texts(true), refused: texts(false) };
}

function lines(file: string): (Answer & { soft?: boolean })[] {
  const text = readFileSync(file, 'utf8').trim();
  return text.split('\n').map((line) => JSON.parse(line) as Answer & { soft?: boolean });
}

describe('own cases', () => {
  const kinds = [...new Set(cases.map(({ kind }) => kind))];
  test('are many, of both verdicts', () => {
    expect(cases.length).toBeGreaterThan(300);
    expect(cases.filter(({ want }) => want).length).toBeGreaterThan(100);
    expect(cases.filter(({ want }) => !want).length).toBeGreaterThan(100);
  });
  test.each(kinds)(
    '%s',
    async (kind) => {
      const found = await misgraded(cases.filter((one) => one.kind === kind));
      expect(found).toEqual({ accepted: [], refused: [] });
    },
    TIMEOUT,
  );
});

test(
  'attacks fail, and what looks like them passes',
  async () => {
    const attacks = lines(new URL('code-attacks.jsonl', import.meta.url).pathname);
    expect(attacks.length).toBeGreaterThan(150);
    expect(await misgraded(attacks)).toEqual({ accepted: [], refused: [] });
  },
  TIMEOUT,
);

test(
  'answers from bug reports',
  async (context) => {
    needs('data sets')(context);
    const answers = lines(join(dataFolder, 'cases/code-grading.jsonl')).filter(({ soft }) => soft !== true);
    const { accepted, refused } = await misgraded(answers);
    expect(accepted).toEqual([]);
    expect(refused.length, refused.join('\n')).toBeLessThanOrEqual(MOST_REFUSED * answers.length);
  },
  TIMEOUT,
);

test('packages that the interpreter lacks are named before anything is graded', async () => {
  const open = (packages: string[]) => SandboxPool.open({ jobs: 1, packages });
  await expect(open(['json', 'no_such_package'])).rejects.toThrow(/cannot import no_such_package inside/);
  await (await open(['json', 'collections.abc'])).close();
});
