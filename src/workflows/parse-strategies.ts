/**
 * Reads the strategies that an orchestrator names: headed sections ("### Strategy 1: Algebra"), else the items of
 * its numbered list, else of its bulleted one, else the parts of one terse line "a ; b". What is indented under an
 * item or follows it in lines of its own belongs to it.
 */
import { plainMarks, spoken } from '../tasks/model-text.js';

/** A line no longer than this may list its strategies with semicolons. */
const TERSE = 120;

const SECTION =
  /^\s*(?:[-*•]\s*|\d+\s*[.)]\s*)?(?:strategy|approach|method|technique|hint|plan|option|idea|worker|subtask|策略|方法)\s*#?\s*(?:\d+|[A-D]|one|two|three|four|five)\s*(?:[:.)\u2013\u2014-]\s*|(?=\()|$)(?<text>.*)$/i;
const NUMBERED = /^(?<indent>\s*)[(#]?(?<number>\d{1,2})\s*[.):、](?!\d)\s*(?<text>.*)$/;
const BULLET = /^(?<indent>\s*)[-*•+\u2013\u2014\u25aa\u25cf\u25e6\u2023]\s+(?:\[[ x]\]\s+)?(?<text>\S.*)$/;
/** A strategy says something: an item that was cut off does not. */
const SAYS = /[\p{L}\p{N}]/u;
/** Of the text as it was written: what ends the item before it. */
const BREAK = /^\s*(?:#{1,6}\s|-{3,}\s*$|\*{3,}\s*$)/;

interface Item {
  indent: number;
  number: number;
  lines: string[];
}

/** In the order of the text; none where nothing is listed, or where two lists are. */
export function parseStrategies(text: string): string[] {
  const said = spoken(text);
  const lines = said
    .split(/\r?\n/)
    .map((written) => ({ written, plain: written === '' ? '' : plainMarks(written).trimEnd() }));
  const found = [SECTION, NUMBERED, BULLET]
    .map((begin) => items(lines, begin))
    .find(({ length }) => length > 0);
  const listed = found === undefined ? inLine(plainMarks(said).trim()) : strategiesOf(found);
  return listed.filter((strategy) => SAYS.test(strategy));
}

interface Line {
  written: string;
  plain: string;
}

/** What begins with a line that `begin` matches, and the lines that belong to it. */
function items(lines: readonly Line[], begin: RegExp): Item[] {
  const found: Item[] = [];
  let open = false;
  let blank = false;
  for (const { written, plain } of lines) {
    const { indent = '', number = '0', text } = begin.exec(plain)?.groups ?? {};
    if (text !== undefined) {
      found.push({ indent: indent.length, number: Number(number), lines: [text] });
      open = true;
    } else if (plain === '') blank = true;
    else {
      // A section goes on over paragraphs; an item of a list ends with the first one that is not indented.
      if (BREAK.test(written) || (blank && begin !== SECTION && !/^\s|^[-*•+]\s/.test(plain))) open = false;
      if (open) found.at(-1)?.lines.push(plain);
    }
    if (plain !== '') blank = false;
  }
  return found.filter(({ lines }) => SAYS.test(lines.join('')));
}

function strategiesOf(found: readonly Item[]): string[] {
  const outer = Math.min(...found.map(({ indent }) => indent));
  const folded: Item[] = [];
  for (const item of found) {
    const last = folded.at(-1);
    if (item.indent > outer && last !== undefined) last.lines.push(...item.lines);
    else folded.push({ ...item, lines: [...item.lines] });
  }
  // Two lists; but Markdown counts for itself where each number is a 1.
  const firsts = folded.filter(({ number }) => number === 1).length;
  if (firsts > 1 && firsts < folded.length) return [];
  const texts = folded.map(({ lines }) =>
    lines
      .map((line) => line.trim())
      .join('\n')
      .trim(),
  );
  const [only] = texts;
  return texts.length === 1 && only !== undefined ? (numberedInLine(`1. ${only}`) ?? texts) : texts;
}

function inLine(line: string): string[] {
  if (line.includes('\n') || line.length > TERSE || !line.includes(';')) return [];
  return line.split(';').map((part) => part.trim());
}

/** "1. Algebra 2. Geometry" in one line; undefined where the numbers do not go on. */
function numberedInLine(line: string): string[] | undefined {
  const parts = line.split(/(?:^|\s)\(?(\d{1,2})[.)]\s+/);
  const numbers = parts.filter((_, i) => i % 2 === 1).map(Number);
  if (numbers.length < 2 || numbers.some((number, i) => number !== i + 1)) return undefined;
  return parts.filter((_, i) => i > 0 && i % 2 === 0).map((part) => part.replace(/[;,]\s*$/, '').trim());
}
