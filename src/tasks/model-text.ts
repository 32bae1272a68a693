/**
 * What a model said, without what it only thought and without the look of it: the text that readers of answers,
 * picks, verdicts and strategies work on. The input is hostile: what is not linear in the length of a text works on
 * its end alone (`ending`).
 */

const THOUGHTS = 'think|thinking|thoughts?|reasoning|reflection|scratchpad';
const OPENED = new RegExp(
  `<(?:${THOUGHTS})>|<\\|begin_of_thought\\|>|◁think▷|<\\|channel\\|>(?:analysis|commentary)`,
  'i',
);
const CLOSED = new RegExp(
  `</(?:${THOUGHTS})>|<\\|end_of_thought\\|>|◁/think▷|<\\|channel\\|>final<\\|message\\|>`,
  'gi',
);

/**
 * The text after the last closed block of thoughts (<think>…</think> and its like). undefined: a block was never closed,
 * and a thought that was cut off decides nothing, nor does what stands before it.
 */
export function withoutThoughts(text: string): string | undefined {
  const closed = [...text.matchAll(CLOSED)].at(-1);
  const rest = closed === undefined ? text : text.slice(closed.index + closed[0].length);
  return OPENED.test(rest) ? undefined : rest;
}

/** Characters at the end of a text that are searched for them. */
const LONGEST_LAST_TOKENS = 200;

/** Without special tokens that a template or a server left at the end. */
export function withoutLastTokens(text: string): string {
  const end = text
    .slice(-LONGEST_LAST_TOKENS)
    .replace(/(?:\s*(?:<\|[\w.]{1,40}\|>|<｜[^｜<>]{1,40}｜>|<\/s>|<eos>|<end_of_turn>)){1,4}\s*$/, '');
  return text.slice(0, -LONGEST_LAST_TOKENS) + end;
}

/** What the last <answer>…</answer> holds, also one that was not closed; undefined where there is none, or it is empty. */
export function answerBlock(said: string): string | undefined {
  const blocks = said.split(/<(?:final_)?answer>/i).slice(1);
  return blocks
    .map((block) => block.split(/<\/(?:final_)?answer>/i, 1)[0] ?? '')
    .findLast((content) => content.trim() !== '');
}

/** Characters of a text that are searched for its decision. */
const LONGEST_ENDING = 4000;

/** The last characters of a long text, from the beginning of a sentence on: what a model decides stands there. */
export function ending(text: string): string {
  if (text.length <= LONGEST_ENDING) return text;
  const tail = text.slice(-LONGEST_ENDING);
  const begin = /[.!?]\s|\n/.exec(tail);
  return begin === null ? tail : tail.slice(begin.index + begin[0].length);
}

/** Signs without a look (zero-width, direction marks), full-width forms and the other dashes before a digit. */
function plainUnicode(text: string): string {
  return text
    .replace(/[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g, '')
    .replace(/(?<=\d)[\u2009\u202f\u00a0'\u2019](?=\d{3}(?!\d))/g, ',')
    .replace(/\uff0c/g, ', ')
    .replace(/\u3002/g, '. ')
    .replace(/[\uff01-\uff5e]/g, (wide) => String.fromCharCode(wide.charCodeAt(0) - 0xfee0))
    .replace(/[\u2010-\u2013\ufe63](?=\d)/g, '-')
    .replace(/[\u00a0\u2000-\u200a\u202f]/g, ' ')
    .replace(/[\u2018\u2019]/g, "'")
    .replace(/[\u201c\u201d]/g, '"');
}

/**
 * What is said in the end, in the answer block where there is one, without Markdown's emphasis, headings, quotes and
 * code marks, without LaTeX's text commands and dollars, with plain letters, digits, quotation marks and spaces. Line
 * breaks, indentation and list marks stay, and so does what multiplies: 2**5, 2*(3+4).
 */
export function plainText(text: string): string {
  return plainMarks(spoken(text));
}

/** What is said in the end, as it was written: "" where it is nothing but thoughts. */
export function spoken(text: string): string {
  const said = withoutThoughts(withoutLastTokens(text)) ?? '';
  return answerBlock(said) ?? said;
}

/** The same of a part of what was said. */
export function plainMarks(said: string): string {
  return plainUnicode(said)
    .replace(/\r\n?/g, '\n')
    .replace(/\\(?:text|textbf|textit|mathbf|mathrm|textrm)\s*\{([^{}]*)\}/g, '$1')
    .replace(/(?<=\d)(?:\{,\}|\\[,;!])(?=\d{3}(?!\d))/g, ',')
    .replace(/\\[()[\]]|\\?\$/g, '')
    .replace(/^([ \t]*)(?:>[ \t]*)+/gm, '$1')
    .replace(/^([ \t]*)#{1,6}[ \t]+/gm, '$1')
    .replace(/__|`/g, '')
    .replace(/(?<!\w)_([^_\n]+)_(?!\w)/g, '$1')
    .replace(/(?<![\w)])\*\*|\*\*(?![-(]?\d)/g, '')
    .replace(/(?<![\w*)\]}])\*(?=[^\s*])([^*\n]*[^\s*])\*(?![\w*([{])/g, '$1');
}

/**
 * Contents of the last box of a text; of several where "or" or "and" joins them to it. Boxes that were not closed do
 * not count.
 */
export function lastBoxes(text: string): string[] {
  let last: string[] = [];
  let end = 0;
  for (const { index, 0: command } of text.matchAll(/\\(?:boxed|fbox)\s*\{/g)) {
    const close = closing(text, index + command.length);
    if (close === undefined) continue;
    const content = text.slice(index + command.length, close).trim();
    const joined = last.length > 0 && /^\s*(?:or|and|,|\/)+\s*$/.test(text.slice(end, index));
    last = joined ? [...last, content] : [content];
    end = close + 1;
  }
  return last;
}

/** Characters that a box is searched for its closing brace. */
const LONGEST_BOX = 1000;

function closing(text: string, from: number): number | undefined {
  let depth = 1;
  for (let i = from; i < Math.min(text.length, from + LONGEST_BOX); i++) {
    if (text[i] === '{') depth++;
    else if (text[i] === '}' && --depth === 0) return i;
  }
  return undefined;
}

/** Spaces for what is quoted, so that places stay; a single quoted word is the speaker's own. */
export function withoutQuotes(plain: string): string {
  return plain.replace(/"[^"\n]*"/g, (quoted) => (/\s/.test(quoted) ? ' '.repeat(quoted.length) : quoted));
}

/** Sentences of a plain text, with single spaces; a line break ends one too, a point within a number does not. "is... 42". */
export function sentences(plain: string): string[] {
  return plain
    .replace(/(?:\.{3}|\u2026)(?=[ \t]*[-+$]?\d)/g, ' ')
    .split(/(?<=[.!?])(?<!\bno\.(?=\s*\d))["')\]]*\s+|\n+/i)
    .map((sentence) => sentence.replace(/\s+/g, ' ').trim())
    .filter((sentence) => sentence !== '');
}
