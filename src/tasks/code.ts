/** Code problems from data files, graded by running the answer's program in sandboxes (code-grading.ts). */
import { z } from 'zod';
import { extractProgram } from './code-extraction.js';
import { gradeProgram } from './code-grading.js';
import { codeProblem } from './code-rows.js';
import type { CodeTests } from './code-tests.js';
import { column, dataSet, dataSetFields } from './data-set.js';
import type { Row, RowOptions } from './rows.js';
import { limitsSchema, SandboxPool } from './sandbox.js';
import type { Grade, Problem, Task } from './types.js';

export const sandboxFields = {
  limits: limitsSchema.prefault({}).describe('Limits of the sandbox.'),
  python: z.string().min(1).default('python3').describe('Python interpreter that runs the programs.'),
  packages: z
    .array(z.string().regex(/^[A-Za-z_][\w.]*$/))
    .default([])
    .describe(
      'Packages, by the names that import them, which that interpreter must have inside the sandbox.',
    ),
  jobs: z.int().min(1).optional().describe('Answers graded at once. Default: the number of processors.'),
};

export const codeSchema = z.strictObject({
  ...dataSetFields,
  fields: z
    .strictObject({
      question: column.describe('Column of the question: text, or a chat.'),
      tests: column.describe('Column of the tests, in any of the forms of docs/data.md.'),
      solution: column.describe('Column of a right program.'),
      starter_code: column.describe('Column of code that the answer begins with.'),
      fn_name: column.describe('Column of the name of the function that the tests call.'),
    })
    .prefault({}),
  ...sandboxFields,
});

export type CodeOptions = z.output<typeof codeSchema>;

/** Throws a TroupeError for unreadable data, and where there is no sandbox. */
export async function code(options: CodeOptions, rowOptions: RowOptions): Promise<Task> {
  return {
    name: 'code',
    kind: 'code',
    ...(await dataSet(options, fromRow, rowOptions)),
    ...(await programGrading(options)),
  };
}

/** Columns of tests, as text: they are in `data` already, and may be most of a data set's size. */
const TEST_COLUMNS =
  /^(tests|test|test_list|input_output|reward_model|(public|private|generated|official)_test.*)$/;

function fromRow(row: Row, where: string): Problem {
  const columns = Object.entries(row).filter(([name]) => !TEST_COLUMNS.test(name));
  return { ...codeProblem(row, where), columns: Object.fromEntries(columns) };
}

/** The part of a Task that runs programs. Opens the sandbox at once, so that a run without one does not start. */
export async function programGrading(
  options: Pick<CodeOptions, 'limits' | 'python' | 'packages' | 'jobs'>,
): Promise<Pick<Task, 'grade' | 'extract' | 'close'>> {
  const { limits, python, packages, jobs } = options;
  const pool = await SandboxPool.open({
    limits,
    python,
    packages,
    ...(jobs === undefined ? {} : { jobs }),
  });
  return {
    grade: (answers) => Promise.all(answers.map(({ problem, text }) => grade(pool, problem, text))),
    extract: (text) => extractProgram(text)?.trim(),
    close: () => pool.close(),
  };
}

function grade(pool: SandboxPool, problem: Problem, text: string): Promise<Grade> {
  return gradeProgram(pool, text, problem.data?.tests as CodeTests);
}
