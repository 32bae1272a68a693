/** Grades solutions of mathematical problems: finds the answer (extract.ts) and compares it (compare.ts). */
import { sameAnswer } from './math-answers/compare.js';
import { extractAnswer } from './math-answers/extract.js';
import type { Grade } from './types.js';

export { extractAnswer, sameAnswer };

/**
 * Grades a whole solution. Reasons: correct, wrong, no-answer. With the `question`, an answer that only repeats a
 * calculation which the question asks for is wrong, unless the right answer is written so too.
 */
export function gradeMath(text: string, answer: string, question = ''): Grade {
  const got = extractAnswer(text);
  if (got === undefined) return { correct: false, reward: 0, reason: 'no-answer' };
  const correct = sameAnswer(got, answer) && !echoes(got, answer, question);
  return { correct, reward: correct ? 1 : 0, reason: correct ? 'correct' : 'wrong' };
}

/** Whether a fraction is a number as one writes it, not a division that is left to do. */
function isReduced(over: bigint, under: bigint): boolean {
  let [a, b] = [over, under];
  while (b > 0n) [a, b] = [b, a % b];
  return a === 1n && under !== 1n;
}

/** A calculation, "48 / 2", that stands in the question as it is. */
function echoes(got: string, answer: string, question: string): boolean {
  const plain = (text: string): string =>
    text
      .replace(/\\(?:left|right|,|;|!|\(|\))|[\s$]/g, '')
      .replace(/\\times|\\cdot|×|·|(?<=\d)(?:times|multipliedby)(?=\d)/g, '*')
      .replace(/\\[dt]?frac\{(\d+)\}\{(\d+)\}/g, (written, over: string, under: string) =>
        isReduced(BigInt(over), BigInt(under)) ? written : `${over}/${under}`,
      )
      .replace(/\\div|÷|(?<=\d)dividedby(?=\d)/g, '/');
  const calculation = plain(got);
  return (
    /\d[-+*/^!]/.test(calculation) && plain(answer) !== calculation && plain(question).includes(calculation)
  );
}
