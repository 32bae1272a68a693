/**
 * Reads what aggregators, evaluators and orchestrators say. Each function takes the terse forms that the small
 * prompts ask for and the marked ones that the full prompts ask for, and returns undefined (or no strategies)
 * for anything else: what happens then is the workflow's to say.
 */

import type { FormatContext } from './types.js';

/** Whether a text holds an answer that the task can read: a number or a box, a program. */
export function hasAnswer(text: string, { task }: FormatContext): boolean {
  return task.extract(text) !== undefined;
}

/**
 * The candidate that a text picks, 1 to `candidates`: the number in the last \boxed{}, else a number after
 * "candidate", "answer", "choice" or "pick", the last of them, else the only number of the text.
 */
export function parsePick(text: string, candidates: number): number | undefined {
  const boxed = [...text.matchAll(/\\boxed\s*\{\s*(\d+)\s*\}/g)].at(-1);
  const named = [
    ...text.matchAll(/\b(?:candidate|answer|choice|pick)\b\W{0,4}(?:is|number|no\.?|#)?\W{0,4}(\d+)/gi),
  ].at(-1);
  const numbers = [...text.matchAll(/\d+/g)];
  const found = boxed?.[1] ?? named?.[1] ?? (numbers.length === 1 ? numbers[0]?.[0] : undefined);
  const pick = Number(found);
  return found !== undefined && pick >= 1 && pick <= candidates ? pick : undefined;
}

const ACCEPT = new Set(['yes', 'correct', 'right', 'accept', 'accepted', 'approve', 'approved', 'pass']);
const REJECT = new Set(['no', 'incorrect', 'wrong', 'reject', 'rejected', 'revise', 'fail', 'false']);

/**
 * Whether an evaluator accepts: the word after the last "verdict", else the text's first word, else its last.
 * Accepting: yes, correct, right, accept(ed), approve(d), pass; rejecting: no, incorrect, wrong, reject(ed),
 * revise, fail, false.
 */
export function parseVerdict(text: string): boolean | undefined {
  const marked = [...text.matchAll(/verdict\W*(?:is\W*)?(\w+)(?:\W+(\w+))?/gi)].at(-1);
  if (marked !== undefined) {
    return marked[1]?.toLowerCase() === 'not' && meaning(marked[2]) === true ? false : meaning(marked[1]);
  }
  const words = text.match(/\w+/g) ?? [];
  return meaning(words[0]) ?? (words.at(-2)?.toLowerCase() === 'not' ? undefined : meaning(words.at(-1)));
}

function meaning(word: string | undefined): boolean | undefined {
  const lower = word?.toLowerCase() ?? '';
  if (ACCEPT.has(lower)) return true;
  return REJECT.has(lower) ? false : undefined;
}

/** A line no longer than this may list its strategies with semicolons. */
const TERSE = 120;

/** Strategies of an orchestrator: the numbered or bulleted lines, else the parts of one terse line "a ; b". */
export function parseStrategies(text: string): string[] {
  const listed = [...text.matchAll(/^\s*(?:\d+\s*[.):]|[-*•])\s+(\S.*)$/gm)].map((match) =>
    (match[1] ?? '').trim(),
  );
  if (listed.length > 0) return listed;
  const line = text.trim();
  if (line.includes('\n') || line.length > TERSE || !line.includes(';')) return [];
  return line
    .split(';')
    .map((part) => part.trim())
    .filter((part) => part !== '');
}
