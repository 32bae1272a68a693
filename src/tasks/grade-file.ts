/**
 * Grades a file of answers: JSON lines {"response": text, "row": {a data row}}, the rows with any of the field
 * names that the tasks math and code read.
 */
import { existsSync } from 'node:fs';
import { basename } from 'node:path';
import { TroupeError } from '../config/errors.js';
import { readText } from '../config/json.js';
import { programGrading, sandboxFields } from './code.js';
import { codeProblem } from './code-rows.js';
import { mathProblem } from './math.js';
import { gradeMath } from './math-grading.js';
import { BadRow, parseLines, type ReadRow, type Row } from './rows.js';
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
  const answers = [...answersOf(file, options)];
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

function* answersOf(file: string, { task, strict, skipped }: GradeFileOptions): Generator<Answer> {
  for (const read of parseLines(basename(file), textOf(file))) {
    try {
      yield answerOf(read, task === 'math' ? mathProblem : codeProblem);
    } catch (error) {
      if (!(error instanceof BadRow)) throw error;
      if (strict) throw new TroupeError(`${error.message}.`, { where: read.where });
      skipped(`${read.where}: ${error.message}`);
    }
  }
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

function textOf(file: string): string {
  if (!existsSync(file)) throw new TroupeError('there is no such file.', { where: file });
  return readText(file);
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
