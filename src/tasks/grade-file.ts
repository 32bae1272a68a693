/**
 * Grades a file of answers: JSON lines {"response": text, "row": {a data row}}, the rows with any of the field
 * names that the tasks math and code read.
 */
import { TroupeError } from '../config/errors.js';
import { programGrading, sandboxFields } from './code.js';
import { codeProblem } from './code-rows.js';
import { rowsOf } from './data-files/rows-of.js';
import { mathProblem } from './math.js';
import { gradeMath } from './math-grading.js';
import { BadRow, type ReadRow, type Row } from './rows.js';
import type { Grade, Problem } from './types.js';

export interface Verdict {
  correct: boolean;
  reason: string;
  /** Line of the file that it is about, from 1. */
  line: number;
}

export interface GradeFileOptions {
  task: 'math' | 'code';
  /** A line that cannot be graded is an error. */
  strict: boolean;
  /** Is told of each line that is skipped: "answers.jsonl:3: is not JSON …". */
  skipped(message: string): void;
  /** Interpreter for code. */
  python?: string;
}

interface Answer {
  problem: Problem;
  text: string;
  line: number;
}

/** Answers graded together; enough to keep every sandbox busy. */
const BATCH = 128;

/**
 * The verdicts, in the order of the lines. Throws a TroupeError for a file that cannot be read, and with
 * `strict` for the first line that cannot be graded.
 */
export async function* gradeFile(file: string, options: GradeFileOptions): AsyncGenerator<Verdict> {
  const answers = await answersOf(file, options);
  const { grade, close } = await grader(options);
  try {
    for (let start = 0; start < answers.length; start += BATCH) {
      const batch = answers.slice(start, start + BATCH);
      const grades = await grade(batch);
      for (const [i, { correct, reason }] of grades.entries()) {
        yield { correct, reason, line: batch[i]?.line ?? 0 };
      }
    }
  } finally {
    await close();
  }
}

async function answersOf(file: string, { task, strict, skipped }: GradeFileOptions): Promise<Answer[]> {
  const answers: Answer[] = [];
  for await (const rows of rowsOf(file)) {
    for (const read of rows) {
      try {
        answers.push(answerOf(read, task === 'math' ? mathProblem : codeProblem));
      } catch (error) {
        if (!(error instanceof BadRow)) throw error;
        if (strict) throw new TroupeError(`${error.message}.`, { where: read.where });
        skipped(`${read.where}: ${error.message}`);
      }
    }
  }
  return answers;
}

function answerOf(
  { row: value, where, error }: ReadRow,
  problemOf: (row: Row, where: string) => Problem,
): Answer {
  if (value === undefined) throw new BadRow(error ?? 'is not an object');
  const { response, row } = value;
  if (typeof response !== 'string') throw new BadRow('has no "response" text');
  if (typeof row !== 'object' || row === null) throw new BadRow('has no "row" object');
  const line = Number(where.slice(where.lastIndexOf(':') + 1));
  return { problem: problemOf(row as Row, where), text: response, line };
}

async function grader({ task, python }: GradeFileOptions): Promise<{
  grade(answers: readonly Answer[]): Promise<Grade[]>;
  close(): Promise<void>;
}> {
  if (task === 'code') {
    const limits = sandboxFields.limits.parse(undefined);
    return programGrading({ limits, python: python ?? 'python3', packages: [], jobs: undefined });
  }
  return {
    grade: async (answers) =>
      answers.map(({ problem, text }) => gradeMath(text, problem.answer ?? '', problem.question)),
    close: async () => {},
  };
}
