/**
 * Reads the number that a text gives as its answer. Only a literal is one: a text that repeats the question, such
 * as "\boxed{(15+6)*4}", has not answered it. The last box decides, else the last "####" or "answer is", else
 * what the prose says that something is; where two numbers could be meant the reading is none.
 */
import { ending, lastBoxes, plainText, sentences, withoutQuotes } from './model-text.js';

const LITERAL = '(?:\\d{1,3}(?:,\\d{3})+|\\d+)(?:\\.\\d+)?';
const SIGNED = `[-+\\u2212]?\\s?${LITERAL}`;
const OPERATOR =
  '(?:\\*\\*|[-+*/\\u2212\\u00d7\\u00f7\\u00b7\\u22c5\\u2217\\u2022\\u2215\\u2044\\u2236\\u2013\\u00b1^%xX]|\\\\(?:times|cdot|ast|div|pm)\\b)';
/** Numbers, operators, brackets and equal signs in a row, such as "17 + 25 = 42"; the whole is one thing said. */
const RUN = new RegExp(
  `(?<![\\w.]|\\d[,:])(?:(?:\\({0,3}[-+\\u2212])?\\({0,9}${LITERAL}\\)*)(?:\\s*(?:=|${OPERATOR})\\s*(?:[-+\\u2212]?\\({0,9}\\s*${LITERAL}\\s*\\)*))*(?:\\s*(?:${OPERATOR}|=)(?=\\s*$))?(?!\\w|[.,/:]\\d)`,
  'g',
);

const WORDS_THAT_COMPUTE =
  'plus|minus|(?:times|over)\\s+(?:\\d+|as)|multiplied|divided|added|subtracted|more than|less than|fewer than|mod(?:ulo)?|(?:raised )?to the|squared|cubed|factorial|choose|take away|remainder|(?:base|by|less|r(?:em)?)\\s*\\d+';
const WORDS_THAT_MULTIPLY =
  'hundreds?|thousands?|millions?|billions?|trillions?|dozens?|percent|per cent|halves|thirds|quarters|fourths|fifths|tenths|hundredths';
/** Behind a number: it is not the whole of what is said ("2²", "17 plus 25", "42 million", "40 to 44"). */
const UNFINISHED = new RegExp(
  `^(?:[\\u00b2\\u00b3\\u00b9\\u2070-\\u209c\\u00bc-\\u00be\\u2150-\\u215f(]|\\s*\\\\?%|\\s*${OPERATOR}\\s*(?:[-+\\u2212(\\\\\\d]|[a-z](?![a-z]))|\\s*[+*/\\u00d7\\u00f7^]|\\s+\\d+\\s?/\\s?\\d|\\s+and (?:a|one|two|three) (?:half|third|quarter|fourth)|\\s+:\\s+\\d|\\s*=|(?:\\s*[,;|\\u2014]|,?\\s*(?:or|and|to)\\s)\\s*[-+$]?\\d|\\s*(?:${WORDS_THAT_COMPUTE}|${WORDS_THAT_MULTIPLY})\\b)`,
  'i',
);
/** Before a number: something else than the number itself is said. */
const COMPARED =
  /(?:\b(?:more|less|greater|fewer|larger|smaller|higher|lower|bigger) than|\bat (?:least|most)|\bup to|\b(?:half|twice|double|triple)(?: of)?|\broot of|(?<![-=])[<>\u2264\u2265\u2260\u221a!])\s*$/i;
/** Before the only number of a text: it is a part of what is asked. */
const PART = /\b(?:of|by|between|from|plus|minus|times)\s*$/i;
const DENIED = /(?:\b(?:not|never|nor|cannot|instead of|rather than)|n't)\s+(?:(?!but\b)[a-z]+\s+){0,3}$/i;
const HEDGED = /\b(?:might|may|could|would)(?: also)? be\s*$|\b(?:maybe|perhaps|possibly)\s*$/i;

const MARKED = /####|\b(?:final )?answer["']?\s*(?:is\b|[:=])[\s:=]*/gi;
const NUMBER_WORD =
  '(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty|hundred|thousand|and)[\\s-]+';
/** What stands before a number that something is said to be. */
const CLAIM = new RegExp(
  `(?:(?:[=:]|\\b(?:is|are|was))\\s*["'[{]|=|\\b(?:answer|result|sum|total|product|difference|solution|value)["']?\\s*:|\\u2192|->|等[于於]|得[到出]|[是为為]|\\b(?:is|are|was|be|equals?|equal to|(?:gives?|leaves?|makes?|nets?)(?: (?:us|you|me|them))?(?: with)?|get|yields?|so|thus|therefore|hence|totals?|total of|sum of all|result|results? in|answer|obtain|have|has|leaves|left with|ends? up with|becomes?|to get|(?:add|sum|come)s? (?:up )?to|that's|it's|approximately|about|around|roughly|exactly|but|only|just|simply|indeed|actually|finally|now))[\\s:,]*(?:a total of |the number |exactly |also |now |equal to |therefore |thus |then |hence |simply |just |indeed |actually |clearly |about |around |of course |(?:obvious|certain|sure|definite|precise|evident|natural|approximate|rough|final)ly |${NUMBER_WORD})*$`,
  'i',
);
const IS_IT =
  /^\s*(?:is (?:the (?:\w+ )?answer|what (?:you|we|I|one) get)\b|(?:\w+\s+){0,3}?(?:in all|in total|altogether|total|combined)\b)/i;
/** A reason, whose numbers are not the answer. */
const REASON =
  /[,;(\u2013\u2014-]?\s*\b(?:because|since|as|due to|given that|for example|checking|check|which means)\b[\s\S]*$/i;
const CHECK = /^\W*(?:(?:let's|let us|let me|to|we can)\s+)?(?:double-)?(?:check|verif(?:y|ication))\b/i;
const SUPPOSED = /^\W*(?:assum\w+|suppose|imagine)\b/i;

/** Canonical digits, e.g. "1234" for "1,234.00"; undefined where the text gives no single number. */
export function extractNumber(text: string): string | undefined {
  const plain = withoutQuotes(ending(withSigns(plainText(withMarks(text)))));
  const boxed = lastBoxes(plain).map(boxedLiteral);
  if (boxed.length > 0) return only(boxed);
  // A box that was cut off.
  if (/\\(?:boxed|fbox)\s*\{[^}]*$/.test(plain)) return undefined;
  const marked = [...plain.matchAll(MARKED)].at(-1);
  if (marked === undefined) return told(sentences(plain));
  const [sentence = '', ...later] = sentences(plain.slice(marked.index + marked[0].length));
  const before =
    plain
      .slice(0, marked.index)
      .split(/[.!?]\s|\n/)
      .at(-1) ?? '';
  const isMeant = !sentence.endsWith('?') && !/\b(?:assum\w+|suppose|imagine|if)\b/i.test(before);
  const said = isMeant ? stated(`= ${sentence}`) : undefined;
  const goesOn = !isMeant || /^(?:not|never|neither)\b/i.test(sentence);
  return said ?? (goesOn ? told(later) : undefined);
}

/** "#### 42" marks an answer, where Markdown would see a heading; "#### 1. Add" is one. */
function withMarks(text: string): string {
  return text.replace(/^([ \t]*)####[ \t]*(?=[-+\u2212$\u20ac\u00a3]*\d)(?!\d+[.)]\s)/gm, '$1Answer: ');
}

/** "is minus 3" is said of a number, "50 minus 8" is a calculation. */
function withSigns(plain: string): string {
  return plain.replace(
    /(^|[:={]|\b(?:is|be|equals?|to|gives?|get|was))(\s*)(?:minus|negative)\s+(?=\d)/gi,
    '$1$2-',
  );
}

/** What the sentences say, from the last one up; else their only number. */
function told(all: readonly string[]): string | undefined {
  const said = all.filter((sentence) => !sentence.endsWith('?') && !SUPPOSED.test(sentence));
  const meant = said.filter((sentence) => !CHECK.test(sentence));
  for (const sentence of meant.toReversed()) {
    const claimed = stated(sentence);
    if (claimed !== undefined) return claimed;
  }
  return alone(said);
}

/** The number that a sentence says something is; the last of several, reasons and offers aside. */
function stated(sentence: string): string | undefined {
  const said = sentence.replace(/(?<=\S\s)if\b.*$/i, '');
  const main = said.replace(REASON, '');
  return claims(claims(main).length > 0 ? main : said).at(-1);
}

function claims(sentence: string): string[] {
  return [...sentence.matchAll(RUN)].flatMap((run) => {
    const before = sentence.slice(Math.max(0, run.index - 80), run.index);
    const after = sentence.slice(run.index + run[0].length);
    const isClaim = run[0].includes('=') || CLAIM.test(before) || IS_IT.test(after);
    const value = isClaim && !HEDGED.test(before) ? numberIn(run, sentence) : undefined;
    return value === undefined ? [] : [value];
  });
}

/** The value of a run of numbers; undefined where more than it is said, or it is denied. */
function numberIn(run: RegExpMatchArray & { index: number }, sentence: string): string | undefined {
  const before = sentence.slice(Math.max(0, run.index - 80), run.index);
  const after = sentence.slice(run.index + run[0].length);
  const isWhole = !UNFINISHED.test(after) && !DENIED.test(before) && !COMPARED.test(before);
  return isWhole ? literal(run[0]) : undefined;
}

/** The only number of a text, or the one that is its whole last line. */
function alone(said: readonly string[]): string | undefined {
  const last = literal(said.at(-1)?.replace(/!$/, '.') ?? '');
  if (last !== undefined) return last;
  return only(
    said.flatMap((sentence) =>
      [...sentence.matchAll(RUN)].map((run) =>
        PART.test(sentence.slice(0, run.index)) || run[0].startsWith('(')
          ? undefined
          : numberIn(run, sentence),
      ),
    ),
  );
}

/** The one value of a list, however often; undefined for none or several. */
function only<T>(values: readonly T[]): T | undefined {
  const [first, ...others] = new Set(values);
  return others.length === 0 ? first : undefined;
}

const NO_UNIT = `(?:(?:${WORDS_THAT_COMPUTE}|${WORDS_THAT_MULTIPLY}|and|or|not|is|if|wrong|st|nd|rd|th)\\b|[xyznie](?![a-z]))`;
const UNIT = `(?:\\^\\{?\\\\circ\\}?|\\u00b0|\\\\?(?:(?:[cdkm]?m|in|ft|yd|mi)\\^?\\{?[23\\u00b2\\u00b3]\\}?|[a-z]+(?:/[a-z]+)?)(?!\\w))`;
const WHOLE = new RegExp(
  `^(?:.*(?<![<>!~\\u2260])=)?\\s*(?:(?:the )?(?:final )?answer(?: is|:)\\s*)?(?:\\u2248|\\\\approx\\b)?\\s*[$\\u20ac\\u00a3]?\\s*(?:(?<number>${SIGNED})|\\((?<enclosed>${SIGNED})\\))(?:(?:\\s+|(?![a-z]{5}))(?!${NO_UNIT})${UNIT}(?:\\s+(?!${NO_UNIT})[a-z]{2,}){0,2})?\\s*\\.?$`,
  'i',
);

/** The same of a box, whose spaces and braces say nothing, and where "6!" is a calculation. */
function boxedLiteral(content: string): string | undefined {
  const shown = content.replace(/\\(?:[,;:! ]|q?quad|displaystyle|bf\b)|[~{}"]/g, ' ');
  return /[!?]\s*$/.test(shown) ? undefined : literal(shown);
}

/** Of "42", "x = 42", "17+25=42", "42 clips": 42. Of "15+6", "84/2", "42 or 43": nothing. */
function literal(content: string): string | undefined {
  const { number: plain, enclosed } = WHOLE.exec(content.trim())?.groups ?? {};
  const number = plain ?? enclosed;
  if (number === undefined) return undefined;
  const digits = number.replace(/[,\s+]/g, '').replace('\u2212', '-');
  return digits
    .replace(/^(-?)0+(?=\d)/, '$1')
    .replace(/(\.\d*?)0+$/, '$1')
    .replace(/\.$/, '')
    .replace(/^-0$/, '0');
}
