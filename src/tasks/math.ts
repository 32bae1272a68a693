/** Mathematical problems from data files, graded on the last \boxed{} or the final answer (math-grading.ts). */
import { z } from 'zod';
import { column, dataSet, dataSetFields } from './data-set.js';
import { extractAnswer, gradeMath } from './math-grading.js';
import { MissingColumn, questionOf, type Row, type RowOptions, textOf } from './rows.js';
import type { Problem, Task } from './types.js';

export const mathSchema = z.strictObject({
  ...dataSetFields,
  fields: z
    .strictObject({
      question: column.describe('Column of the question: text, or a chat.'),
      answer: column.describe('Column of the answer: itself, behind ####, or in a \\boxed{}.'),
    })
    .prefault({}),
});

export type MathOptions = z.output<typeof mathSchema>;

export async function math(options: MathOptions, rowOptions: RowOptions): Promise<Task> {
  return {
    name: 'math',
    kind: 'math',
    ...(await dataSet(options, fromRow, rowOptions)),
    grade: async (answers) =>
      answers.map(({ problem, text }) => gradeMath(text, problem.answer ?? '', problem.question)),
    extract: extractAnswer,
    close: async () => {},
  };
}

const fromRow = (row: Row, where: string): Problem => ({ ...mathProblem(row, where), columns: row });

/** DAPO's prompts wrap the problem in orders about the form of the answer, which the roles' prompts give. */
const DAPO_BEFORE = /^Solve the following math problem step by step\.[^\n]*\n+/;
const DAPO_AFTER = /\n+Remember to put your answer on its own line after "Answer:"\.\s*$/;

/** Capitals: some sets of AIME problems have them. */
const QUESTION = ['question', 'problem', 'extra_info.raw_problem', 'prompt', 'Question', 'Problem'];
const ANSWER = ['answer', 'reward_model.ground_truth', 'final_answer', 'expected_answer', 'Answer'];

/**
 * A problem from a row with the field names of GSM8K (question, answer "… #### 72"), MATH (problem, solution
 * with \boxed or answer) or DAPO (prompt, reward_model.ground_truth). Throws a BadRow.
 */
export function mathProblem(row: Row, where: string): Problem {
  const asked = questionOf(row, QUESTION);
  if (asked === undefined) throw new MissingColumn('has no question (question, problem or prompt)');
  const answer = rightAnswer(row);
  if (answer === undefined) {
    throw new MissingColumn('has no answer (answer, solution with \\boxed, or reward_model.ground_truth)');
  }
  return { id: where, question: asked.replace(DAPO_BEFORE, '').replace(DAPO_AFTER, ''), answer };
}

function rightAnswer(row: Row): string | undefined {
  const given = textOf(row, ANSWER);
  if (given === undefined) {
    const solution = textOf(row, ['solution', 'Solution']);
    return solution?.includes('\\boxed') ? extractAnswer(solution) : undefined;
  }
  const steps = given.lastIndexOf('####');
  if (steps >= 0) return given.slice(steps + 4).trim() || undefined;
  return given.includes('\\boxed') ? extractAnswer(given) : given;
}
