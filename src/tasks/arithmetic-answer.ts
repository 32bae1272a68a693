/**
 * Reads the number that a text gives as its answer. Only a literal is one: a text that repeats the question, such
 * as "\boxed{(15+6)*4}", has not answered it. The last box decides, else the last "####" or "answer is", else
 * what the prose says that something is; where two numbers could be meant the reading is none.
 */
import { ending, lastBoxes, plainText, sentences, withoutQuotes } from './model-text.js';

const LITERAL = '(?:\\d{1,3}(?:,\\d{3})+|\\d+)(?:\\.\\d+)?';
const SIGNED = `[-+\\u2212]?\\s?${LITERAL}`;
const OPERATOR = '(?:[-+*/\\u2212\\u00d7\\u00f7\\u00b7^xX]|\\*\\*|\\\\(?:times|cdot|div))';
/** Numbers, operators, brackets and equal signs in a row, such as "17 + 25 = 42"; the whole is one thing said. */
const RUN = new RegExp(
  `(?<![\\w.])(?:[-+\\u2212]?\\(*${LITERAL}\\)*)(?:\\s*(?:=|${OPERATOR})\\s*(?:[-+\\u2212]?\\(*\\s*${LITERAL}\\s*\\)*))*(?:\\s*(?:${OPERATOR}|=)(?=\\s|$))?(?![\\w%]|[.,/]\\d)`,
  'g',
);

const MARKED = /####|\b(?:final )?answer["']?\s*(?:is\b|:|=)/gi;
/** What stands before a number that something is said to be. */
const CLAIM =
  /(?:=|\b(?:answer|result|sum|total|product|difference|solution|value)\s*:|\u2192|->|\b(?:is|are|was|be|equals?|equal to|gives?|get|makes?|yields?|so|thus|therefore|hence|totals?|total of|sum of all|result|answer|obtain|have|has|leaves|left with|becomes?|to get|comes to|that's|it's|approximately|exactly|but|only|just|simply|indeed|actually|finally|now))[\s:,]*(?:a total of |the number |exactly |also |now |equal to |therefore |thus |then |hence |simply |just |indeed |actually |clearly )*$/i;
const IN_ALL = /^\s*(?:\w+\s+){0,3}?(?:in all|in total|altogether|total|combined)\b/i;
/** A reason, whose numbers are not the answer. */
const REASON =
  /[,;(\u2013\u2014-]?\s*\b(?:because|since|as|due to|given that|for example|checking|check|which means)\b[\s\S]*$/i;
const DENIED = /(?:\b(?:not|never|nor|instead of|rather than)|n't)\s+(?:(?!but\b)[a-z]+\s+){0,3}$/i;

/** Canonical digits, e.g. "1234" for "1,234.00"; undefined where the text gives no single number. */
export function extractNumber(text: string): string | undefined {
  const plain = withoutQuotes(ending(plainText(text)));
  const boxed = lastBoxes(plain).map(literal);
  if (boxed.length > 0) return only(boxed);
  // A box that was cut off.
  if (/\\(?:boxed|fbox)\s*\{[^}]*$/.test(plain)) return undefined;
  const marked = [...plain.matchAll(MARKED)].at(-1);
  if (marked !== undefined) {
    const [line = ''] = plain
      .slice(marked.index + marked[0].length)
      .trimStart()
      .split('\n', 1);
    return stated(`= ${sentences(line)[0] ?? ''}`);
  }
  const said = sentences(plain).filter((sentence) => !sentence.endsWith('?'));
  for (const sentence of said.toReversed()) {
    const claimed = stated(sentence);
    if (claimed !== undefined) return claimed;
  }
  return alone(said);
}

/** The number that a sentence says something is; the last of several, reasons and offers aside. */
function stated(sentence: string): string | undefined {
  const said = sentence.replace(/\bif you\b.*$/i, '');
  const main = said.replace(REASON, '');
  return claims(claims(main).length > 0 ? main : said).at(-1);
}

function claims(sentence: string): string[] {
  return [...sentence.matchAll(RUN)].flatMap((run) => {
    const before = sentence.slice(Math.max(0, run.index - 80), run.index);
    const after = sentence.slice(run.index + run[0].length);
    const isOne = !/^,?\s*(?:or|and)\s+[-+$]?\d/i.test(after);
    const isClaim = run[0].includes('=') || CLAIM.test(before) || IN_ALL.test(after);
    const value = isClaim && isOne && !DENIED.test(before) ? literal(run[0]) : undefined;
    return value === undefined ? [] : [value];
  });
}

/** The only number of a text, or the one that is its whole last line. */
function alone(said: readonly string[]): string | undefined {
  const last = literal(said.at(-1) ?? '');
  if (last !== undefined) return last;
  return only(
    said.flatMap((sentence) =>
      [...sentence.matchAll(RUN)].map((run) =>
        DENIED.test(sentence.slice(0, run.index)) ? undefined : literal(run[0]),
      ),
    ),
  );
}

/** The one value of a list, however often; undefined for none or several. */
function only<T>(values: readonly T[]): T | undefined {
  const [first, ...others] = new Set(values);
  return others.length === 0 ? first : undefined;
}

const WHOLE = new RegExp(
  `^(?:.*=)?\\s*[$\\u20ac\\u00a3]?\\s*(?<number>${SIGNED})\\s*(?:\\\\?[a-z]+\\.?)?[.!]?$`,
  'i',
);

/** Of "42", "x = 42", "17+25=42", "42 clips": 42. Of "15+6", "84/2", "42 or 43": nothing. */
function literal(content: string): string | undefined {
  const number = WHOLE.exec(content.trim())?.groups?.number;
  if (number === undefined) return undefined;
  const digits = number.replace(/[,\s+]/g, '').replace('\u2212', '-');
  return digits
    .replace(/^(-?)0+(?=\d)/, '$1')
    .replace(/(\.\d*?)0+$/, '$1')
    .replace(/\.$/, '')
    .replace(/^-0$/, '0');
}
