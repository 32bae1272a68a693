/**
 * Reads the answer out of a solution and compares it with the right one: element by element for tuples,
 * intervals and lists, by value where both are numbers (math-number.ts), else as text in the normal form of
 * the MATH data set (math-text.ts). Answers are hostile input: lengths are limited, and no step takes more than
 * linear time in a long text. Expressions with variables are compared as text only.
 */
import { parseNumber, sameNumber } from './math-number.js';
import { listParts, normalText, withoutName, withoutUnits } from './math-text.js';
import type { Grade } from './types.js';

/** An answer is short: longer texts in a box count as none. */
const LONGEST_ANSWER = 1000;
/** Without a box, the answer is looked for in this many characters at the end. */
const LONGEST_TAIL = 20_000;

/**
 * The answer of a solution: the content of its last complete \boxed{} (or \fbox{}), else what follows the last
 * "####" or "answer is" or "answer:" on its line, else its last number. undefined: there is none.
 */
export function extractAnswer(text: string): string | undefined {
  const boxed = lastBoxed(text);
  if (boxed !== undefined) return short(boxed);
  const tail = text.slice(-LONGEST_TAIL);
  const marked = [...tail.matchAll(/####|\banswer *(?:is\b|:)[ :]*/gi)].at(-1);
  if (marked !== undefined) {
    const [line = ''] = tail.slice(marked.index + marked[0].length).split('\n', 1);
    const said = line.replaceAll('**', '').trim().replace(/\.$/, '');
    const prose = (said.slice(0, 200).match(/(?<!\\)\b[a-z]{2,}/gi)?.length ?? 0) > 3;
    const answer = prose ? lastNumber(line) : /\w/.test(said) ? short(said) : undefined;
    if (answer !== undefined) return answer;
  }
  return lastNumber(tail);
}

function short(answer: string): string | undefined {
  const trimmed = answer.trim();
  return trimmed === '' || trimmed.length > LONGEST_ANSWER ? undefined : trimmed;
}

/** Content of the last \boxed{…} whose braces balance; "\boxed 5" is read up to the next space or $. */
function lastBoxed(text: string): string | undefined {
  let end = text.length;
  for (let tries = 0; tries < 50 && end > 0; tries++) {
    const start = Math.max(text.lastIndexOf('\\boxed', end - 1), text.lastIndexOf('\\fbox', end - 1));
    if (start < 0) return undefined;
    const rest = text.slice(start, start + 2 * LONGEST_ANSWER);
    const [command = ''] = /^\\(?:boxed|fbox) */.exec(rest) ?? [];
    const content =
      rest[command.length] === '{'
        ? balanced(rest, command.length)
        : /^[^\s$]+/.exec(rest.slice(command.length))?.[0];
    if (content !== undefined) return content;
    end = start;
  }
  return undefined;
}

/** What stands between the brace at `open` and the one that closes it. Escaped braces do not count. */
function balanced(text: string, open: number): string | undefined {
  let depth = 0;
  for (let i = open; i < text.length; i++) {
    const letter = text[i];
    if (letter === '\\') i++;
    else if (letter === '{') depth++;
    else if (letter === '}' && --depth === 0) return text.slice(open + 1, i);
  }
  return undefined;
}

function lastNumber(text: string): string | undefined {
  const numbers = text.match(/(?:(?<![\w).])-)?\d[\d,]*(?:\.\d+)?(?:\/\d+)?/g);
  return short((numbers?.at(-1) ?? '').replace(/,+$/, ''));
}

/** Grades a whole solution. Reasons: correct, wrong, no-answer. */
export function gradeMath(text: string, answer: string): Grade {
  const got = extractAnswer(text);
  if (got === undefined) return { correct: false, reward: 0, reason: 'no-answer' };
  const correct = sameAnswer(got, answer);
  return { correct, reward: correct ? 1 : 0, reason: correct ? 'correct' : 'wrong' };
}

/** Whether two answers (contents of boxes) say the same. */
export function sameAnswer(got: string, right: string): boolean {
  if (got.trim() === right.trim()) return true;
  if (got.length > LONGEST_ANSWER || right.length > LONGEST_ANSWER) return false;
  return same(got, right, 0);
}

function same(got: string, right: string, depth: number): boolean {
  const [a, b] = [normalText(got), normalText(right)];
  if (a === b) return a !== '';
  if (sameValue(got, right)) return true;
  const [x, y] = [listParts(got), listParts(right)];
  if (x === undefined || y === undefined || depth > 3) return false;
  if (x.open !== y.open || x.close !== y.close || x.parts.length !== y.parts.length) return false;
  const ordered = x.open === '(' || x.open === '[';
  return ordered
    ? x.parts.every((part, i) => same(part, y.parts[i] ?? '', depth + 1))
    : sameSet(x.parts, y.parts, depth + 1);
}

const LARGEST_SET = 30;

/** In any order; each part of one stands for one part of the other. */
function sameSet(got: string[], right: string[], depth: number): boolean {
  if (got.length > LARGEST_SET) return false;
  const left = [...right];
  return got.every((part) => {
    const found = left.findIndex((candidate) => same(part, candidate, depth));
    if (found >= 0) left.splice(found, 1);
    return found >= 0;
  });
}

/** By number, without a name "x =" and units. A percentage equals the number before its sign, or the fraction. */
function sameValue(got: string, right: string): boolean {
  const [a, b] = [numeric(got), numeric(right)];
  const [x, y] = [parseNumber(a), parseNumber(b)];
  if (x === undefined || y === undefined) return false;
  if (sameNumber(x, y)) return true;
  if (a.includes('%') === b.includes('%')) return false;
  const [p, q] = [parseNumber(a, true), parseNumber(b, true)];
  return p !== undefined && q !== undefined && sameNumber(p, q);
}

function numeric(text: string): string {
  return withoutUnits(withoutName(text));
}
