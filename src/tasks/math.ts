/** Mathematical problems from data files, graded on the last \boxed{} or the final answer (math-grading.ts). */
import { z } from 'zod';
import { dataSet, dataSetFields } from './data-set.js';
import { extractAnswer, gradeMath } from './math-grading.js';
import { BadRow, questionOf, type Row, type RowOptions, readRows, textOf } from './rows.js';
import type { Problem, Task } from './types.js';

export const mathSchema = z.strictObject({
  ...dataSetFields,
});

export type MathOptions = z.output<typeof mathSchema>;

export async function math(options: MathOptions, rowOptions: RowOptions): Promise<Task> {
  const problems = await readRows(options.files, fromRow, rowOptions);
  const held =
    options.evaluationFiles.length === 0 ? [] : await readRows(options.evaluationFiles, fromRow, rowOptions);
  return {
    name: 'math',
    kind: 'math',
    ...dataSet(problems, held, options.holdout),
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

/**
 * A problem from a row with the field names of GSM8K (question, answer "… #### 72"), MATH (problem, solution
 * with \boxed or answer) or DAPO (prompt, reward_model.ground_truth). Throws a BadRow.
 */
export function mathProblem(row: Row, where: string): Problem {
  const asked = questionOf(row, ['question', 'problem', 'extra_info.raw_problem', 'prompt']);
  if (asked === undefined) throw new BadRow('has no question (question, problem or prompt)');
  const answer = rightAnswer(row);
  if (answer === undefined) {
    throw new BadRow('has no answer (answer, solution with \\boxed, or reward_model.ground_truth)');
  }
  return { id: where, question: asked.replace(DAPO_BEFORE, '').replace(DAPO_AFTER, ''), answer };
}

function rightAnswer(row: Row): string | undefined {
  const given = textOf(row, ['answer', 'reward_model.ground_truth', 'final_answer', 'expected_answer']);
  if (given === undefined) {
    const solution = textOf(row, ['solution']);
    return solution?.includes('\\boxed') ? extractAnswer(solution) : undefined;
  }
  const steps = given.lastIndexOf('####');
  if (steps >= 0) return given.slice(steps + 4).trim() || undefined;
  return given.includes('\\boxed') ? extractAnswer(given) : given;
}
