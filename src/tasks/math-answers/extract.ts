/**
 * Finds the answer in a solution. Thoughts are not part of it, and a box that is cut off is no answer. Texts are hostile
 * input: no step takes more than linear time.
 */
import { answerBlock, withoutLastTokens, withoutThoughts } from '../model-text.js';

/** An answer is short: longer texts in a box count as none. */
const LONGEST_ANSWER = 1000;
/** Without a box, the answer is looked for in this many characters at the end. */
const LONGEST_TAIL = 20_000;

/**
 * The answer: the content of the last \boxed{} (\fbox, \framebox; boxes side by side are a list), else what the last
 * <answer> holds, else what follows the last "####", "answer is", "answer:" or the like, else the last number. undefined: there is none, as where the last
 * box or the thoughts before it are cut off.
 */
export function extractAnswer(text: string): string | undefined {
  const solution = withoutThoughts(withoutLastTokens(text));
  if (solution === undefined) return undefined;
  const boxed = lastBoxes(solution);
  if (boxed !== 'none') return boxed === 'cut off' ? undefined : short(boxed);
  const block = answerBlock(solution);
  const tail = (block === undefined ? solution : `Answer: ${block}`).slice(-LONGEST_TAIL);
  return markedAnswer(tail) ?? lastNumber(tail);
}

function short(answer: string): string | undefined {
  const trimmed = answer.trim();
  return trimmed === '' || trimmed.length > LONGEST_ANSWER ? undefined : trimmed;
}

const BOX = /\\(?:boxed|fbox|framebox)(?![a-zA-Z])\s*/g;

interface Box {
  content: string;
  start: number;
  end: number;
}

function lastBoxes(text: string): string | 'none' | 'cut off' {
  const found = [...text.matchAll(BOX)];
  let boxes: Box[] = [];
  for (const match of found.slice(-12)) {
    const box = boxAt(text, match);
    if (box === undefined) {
      boxes = [];
      continue;
    }
    const last = boxes.at(-1);
    if (last !== undefined && last.end >= box.end) {
      // A box in a box: the inner one.
      boxes[boxes.length - 1] = box;
    } else if (last !== undefined && isJoint(text.slice(last.end, box.start))) boxes.push(box);
    else boxes = [box];
  }
  if (found.length === 0) return 'none';
  return boxes.length === 0 ? 'cut off' : boxes.map(({ content }) => content).join(', ');
}

/** Whether only "and", "or", a comma and a name stand between two boxes: they are one list. */
function isJoint(between: string): boolean {
  return (
    between.length <= 60 &&
    /^[\s$\\()[\],.;]*(?:\\?text\{)?\s*(?:and|or|,|;|\\quad)\s*\}?[\s$\\()[\],]*(?:[a-zA-Z](?:_\{?\w\}?)?\s*=\s*)?$/.test(
      between,
    )
  );
}

/** "\boxed 5" is read up to the next space or $. undefined: the braces do not close. */
function boxAt(text: string, match: RegExpExecArray): Box | undefined {
  const open = match.index + match[0].length;
  if (text[open] !== '{') {
    const content = /^[^\s${}]+/.exec(text.slice(open, open + LONGEST_ANSWER))?.[0].replace(/[.,]$/, '');
    return content === undefined ? undefined : { content, start: match.index, end: open + content.length };
  }
  let depth = 0;
  for (let i = open; i < Math.min(text.length, open + 4 * LONGEST_ANSWER); i++) {
    const letter = text[i];
    if (letter === '\\') i++;
    else if (letter === '{') depth++;
    else if (letter === '}' && --depth === 0) {
      return { content: text.slice(open + 1, i), start: match.index, end: i + 1 };
    }
  }
  return undefined;
}

const MARK =
  /####|\b(?:final answer|#+ *answer)[:*]*\s*\n|\b(?:answers?|correct (?:option|choice))\b(?: to [^\n.:]{1,80}?)?[*_ ]*(?:is\b|are\b|=|:|：)[ :*_]*(?:therefore|thus|simply|equal to|then|given by)?|答案(?:是|为|：|:)/gi;
/** Words that end an answer: what follows explains or denies. */
const ENDS =
  /,? +(?:because|since|as|where|which|when|so|for|by|if|due to|obtained)\b|,? +(?:and )?not\b|[,;] +(?=[a-z]{2,})|\.(?=\s|$)|[!?](?=\s+[A-Z])/;

/** What stands behind the last mark, on its line or the next one that is not empty. */
function markedAnswer(tail: string): string | undefined {
  const mark = [...tail.matchAll(MARK)].findLast(({ 0: found, index }) => {
    // "####" may begin a heading.
    return found !== '####' || !HEADING.test(tail.slice(index + 4, index + 80));
  });
  if (mark === undefined) return undefined;
  const behind = tail.slice(mark.index + mark[0].length);
  const line =
    (/[^\s*]/.test(behind)
      ? behind.replace(/^[\s*_:：]+/, '').replace(/^(?:\$\$|\\\[)\s*\n\s*/, '')
      : ''
    ).split('\n', 1)[0] ?? '';
  const said = line.replace(/\*\*|__|`/g, '').trim();
  const phrase = cut(said);
  if (phrase === undefined) return undefined;
  const prose = (phrase.slice(0, 300).match(/(?<![\\a-z])[a-z]{2,}/gi)?.length ?? 0) > 3;
  return prose && !/^\\/.test(phrase) ? lastNumber(said) : short(phrase);
}

const HEADING =
  /^#*[ \t]*\**(?:step|part|case|solution|explanation|conclusion|check|verif|method|approach|note|calculat|find|determin|comput|solv|simplif|understand|set|appl|analy|answer|final)/i;

/** "42 (see step 3)" */
const REMARK = /(?<=\S) +\((?=[^()]*[a-z]{2})[^()]*\)$/;

/** Up to where the explanation begins, without the formula's marks. */
function cut(said: string): string | undefined {
  const formula = /^(?:\$\$?|\\\(|\\\[)(.+?)(?:(?<!\\)\$\$?|\\\)|\\\])(.*)$/.exec(said);
  // "$5$ cm" keeps its unit; "$5$, because …" does not.
  if (formula !== null) {
    const [, inside = '', rest = ''] = formula;
    const unit = /^ ?(?:\\?%|[a-zA-Z]+(?:\^\{?\d\}?)?)\.?$/.exec(rest)?.[0] ?? '';
    const more = /^\s*(?:,|and|or)\s+(?:\$|\\\()/.test(rest);
    if (more) return said.replace(/\.$/, '');
    return `${inside}${unit.replace(/\.$/, '')}`;
  }
  const end = said.search(ENDS);
  const text = (end < 0 ? said : said.slice(0, end)).replace(/[.,;:!。，；]+$/, '').replace(REMARK, '');
  return /[\p{L}\p{N}]/u.test(text) ? text : undefined;
}

/** Commas between digits as TeX writes them, and what else stands between groups of digits. */
const COMMAS = /(?<=\d)(?:\{,\}|,\\!)(?=\d)/g;
const GAPS = /(?<=\d)(?:\\[,!](?=\d)|[\u2009\u202f](?=\d)|[\u00a0'\u2019](?=\d{3}(?!\d)))/g;

/** From a digit on, with the commas and gaps behind it. */
const DIGITS = String.raw`\d(?:[\d,]|\\,(?=\d))*`;
const NUMBERS = new RegExp(
  String.raw`(?:(?<![\w).}\]])[-−–]\$?)?(?:${DIGITS}|(?<![\w.])(?=\.\d))(?:[./]${DIGITS})*(?: ?\\?%)?`,
  'g',
);

/**
 * A number with its sign, unless that is a subtraction; of 1,234.5, 3/4 and 12.5 % all of it. What stands between digits
 * without a space is taken with them, be it a number or a list: of 3.141,592 and 1/10,000 the end is no answer.
 */
function lastNumber(text: string): string | undefined {
  const numbers = text.replace(COMMAS, ',').replace(GAPS, '\\,').match(NUMBERS);
  // "3 or 4" is a guess of two, "is not 3" and "I do not think that it is 3" are none.
  if (/(?:\bnot|n't|\bcannot be|n't be) (?:equal to )?[$-]*\d[\d.,%]*\D*$/.test(text.slice(-200)))
    return undefined;
  if (
    /(?:\bnot|n't|\bcannot) (?:think|believe|say|claim|agree)\b[^.!?,;\n]*$/.test(
      text.slice(-200).trimEnd().replace(/[.!]$/, ''),
    )
  )
    return undefined;
  if (/\d,? or (?:perhaps |maybe )?[$-]*\d[\d.,%]*\D*$/.test(text.slice(-200))) return undefined;
  return short((numbers?.at(-1) ?? '').replace(/,+(?=\D*$)/, ''));
}
