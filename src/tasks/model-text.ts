/**
 * What a model said, without what it only thought and without the look of it: the text that readers of answers,
 * picks, verdicts and strategies work on. The input is hostile: what is not linear in the length of a text works on
 * its end alone (`ending`).
 */

const THOUGHT = 'think|thinking|thought|reasoning|reflection|scratchpad';
const OPENED = new RegExp(`<(?:${THOUGHT})>`, 'i');
const CLOSED = new RegExp(`</(?:${THOUGHT})>`, 'gi');

/**
 * The text after the last closed block of thoughts (<think>…</think> and its like); of a block that was never
 * closed only what stands before it, since a thought that was cut off decides nothing.
 */
export function withoutThoughts(text: string): string {
  const closed = [...text.matchAll(CLOSED)].at(-1);
  const rest = closed === undefined ? text : text.slice(closed.index + closed[0].length);
  const open = rest.search(OPENED);
  return open < 0 ? rest : rest.slice(0, open);
}

const LONGEST_ENDING = 4000;

/** The last characters of a long text, from the beginning of a sentence on: what a model decides stands there. */
export function ending(text: string): string {
  if (text.length <= LONGEST_ENDING) return text;
  const tail = text.slice(-LONGEST_ENDING);
  const begin = /[.!?]\s|\n/.exec(tail);
  return begin === null ? tail : tail.slice(begin.index + begin[0].length);
}

/**
 * Without Markdown's emphasis, headings, quotes and code marks, without LaTeX's text commands and dollars, with
 * plain quotation marks and spaces. Line breaks, indentation and list marks stay.
 */
export function plainText(text: string): string {
  return withoutThoughts(text)
    .replace(/\r\n?/g, '\n')
    .replace(/[\u00a0\u2000-\u200a\u202f]/g, ' ')
    .replace(/[\u2018\u2019]/g, "'")
    .replace(/[\u201c\u201d]/g, '"')
    .replace(/\\(?:text|textbf|textit|mathbf|mathrm|textrm)\s*\{([^{}]*)\}/g, '$1')
    .replace(/\\[()[\]]|\$/g, '')
    .replace(/^([ \t]*)(?:>[ \t]*)+/gm, '$1')
    .replace(/^([ \t]*)#{1,6}[ \t]+/gm, '$1')
    .replace(/\*\*|__|`/g, '')
    .replace(/(?<![\w*])\*(?=[^\s*])|(?<=[^\s*])\*(?![\w*])/g, '');
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

/** Sentences of a plain text, with single spaces; a line break ends one too, a point within a number does not. */
export function sentences(plain: string): string[] {
  return plain
    .split(/(?<=[.!?])["')\]]*\s+|\n+/)
    .map((sentence) => sentence.replace(/\s+/g, ' ').trim())
    .filter((sentence) => sentence !== '');
}
