/**
 * The form of an answer: a number or expression with its unit, a list, tuple, interval, set or union, a matrix, an
 * equation or inequality, or words. Which two of them say the same is for compare.ts.
 */
import type { Token } from './notation.js';
import { type Quantity, readQuantity } from './units.js';

export type Answer =
  | Quantity
  /** Brackets as written; "" for a list without any, "\{" for a set. */
  | { form: 'sequence'; open: string; close: string; parts: Answer[] }
  | { form: 'union'; parts: Answer[] }
  | { form: 'ratio'; parts: Answer[] }
  | { form: 'matrix'; determinant: boolean; rows: Answer[][] }
  /** a < b ≤ c: signs between sides. */
  | { form: 'relation'; signs: string[]; sides: Answer[]; sideTokens: Token[][] }
  | { form: 'words'; tokens: Token[] };

const OPENING = new Set(['(', '[', '{', '\\{', '⟨', 'begin']);
const CLOSING = new Set([')', ']', '}', '\\}', '⟩', 'end']);
const RELATIONS = new Set(['=', '<', '>', '≤', '≥', '≠', '∈', '≈', '→', '≡', 'setminus', '∩', '~']);
/** Lists and brackets inside one another; what is deeper is words. */
const DEEPEST = 12;

/** Never throws: what has no other form is words. */
export function parseAnswer(tokens: readonly Token[], depth = 0): Answer {
  const inside = trimmed(tokens);
  if (depth > DEEPEST || inside.length === 0) return { form: 'words', tokens: inside };
  const parts = split(inside, (token) => isSeparator(token));
  if (parts.length > 1) {
    return flat({
      form: 'sequence',
      open: '',
      close: '',
      parts: parts.map((part) => parseAnswer(part, depth + 1)),
    });
  }
  return (
    union(inside, depth) ??
    relation(inside, depth) ??
    ratio(inside, depth) ??
    bracketed(inside, depth) ??
    matrix(inside, depth) ??
    plusMinus(inside, depth) ??
    readQuantity(inside) ?? { form: 'words', tokens: inside }
  );
}

/** Without the period at the end, braces around all of it, and "and" or commas at its edges. */
function trimmed(tokens: readonly Token[]): Token[] {
  let [from, to] = [0, tokens.length];
  for (let changed = true; changed && from < to; ) {
    changed = false;
    const [first, last] = [tokens[from], tokens[to - 1]];
    if (last?.kind === 'sign' && ['.', ',', ';'].includes(last.text)) [to, changed] = [to - 1, true];
    else if (['and', 'or', '=', '≈'].includes(first?.text ?? '')) [from, changed] = [from + 1, true];
    else if (first?.kind === 'word') [from, changed] = behindIs(tokens, from);
    else if (first?.text === '{' && closer(tokens, from) === to - 1) {
      [from, to, changed] = [from + 1, to - 1, true];
    }
  }
  return tokens.slice(from, to);
}

/** Behind "the area is" and "the value of x is". */
function behindIs(tokens: readonly Token[], from: number): [number, boolean] {
  let at = from;
  while (isToldOf(tokens[at]) && !/^(?:is|are|equals)$/.test(tokens[at]?.text ?? '')) at++;
  const said = tokens[at]?.kind === 'word' && tokens[at + 1] !== undefined;
  return said && isToldOf(tokens[at]) && tokens[at + 1]?.text !== 'not' ? [at + 1, true] : [from, false];
}

function isToldOf(token: Token | undefined): boolean {
  if (token?.kind === 'word') return !/^(?:not|no|or|and|if|neither|nor)$/.test(token.text);
  return token?.kind === 'letter';
}

function isSeparator(token: Token): boolean {
  if (token.kind === 'word') return token.text === 'and' || token.text === 'or';
  return token.kind === 'sign' && /^(?:[,;&]|and|or)$/.test(token.text);
}

function opens(token: Token | undefined): boolean {
  return token !== undefined && token.kind !== 'word' && OPENING.has(token.text);
}

function closes(token: Token | undefined): boolean {
  return token !== undefined && token.kind !== 'word' && CLOSING.has(token.text);
}

/** Where the bracket at `from` closes, or −1. Brackets of different kinds close each other: [0, 1). */
function closer(tokens: readonly Token[], from: number): number {
  let depth = 0;
  for (let i = from; i < tokens.length; i++) {
    if (opens(tokens[i])) depth++;
    else if (closes(tokens[i]) && --depth === 0) return i;
  }
  return -1;
}

/** Splits where no bracket is open; empty parts are dropped. */
function split(tokens: readonly Token[], at: (token: Token) => boolean): Token[][] {
  const parts: Token[][] = [[]];
  let depth = 0;
  for (const token of tokens) {
    if (opens(token)) depth++;
    else if (closes(token)) depth--;
    if (depth === 0 && at(token)) parts.push([]);
    else parts.at(-1)?.push(token);
  }
  return parts.filter((part) => part.length > 0);
}

/** A part that stands for several, ±1, is as many parts. */
function flat(answer: Answer & { form: 'sequence' }): Answer {
  const parts = answer.parts.flatMap((part) =>
    part.form === 'sequence' && part.open === '' ? part.parts : [part],
  );
  return { ...answer, parts };
}

function union(tokens: Token[], depth: number): Answer | undefined {
  const parts = split(tokens, (token) => token.text === '∪');
  if (parts.length < 2) return undefined;
  return { form: 'union', parts: parts.map((part) => parseAnswer(part, depth + 1)) };
}

function relation(all: Token[], depth: number): Answer | undefined {
  const tokens = all.map((token, i) => (isDifference(all, i) ? { ...token, text: 'setminus' } : token));
  const is = (token: Token): boolean => token.kind === 'sign' && RELATIONS.has(token.text);
  const sideTokens = split(tokens, is);
  const signs = signsOutside(tokens, is);
  if (signs.length === 0 || sideTokens.length !== signs.length + 1) return undefined;
  return {
    form: 'relation',
    signs,
    sideTokens,
    sides: sideTokens.map((side) => parseAnswer(side, depth + 1)),
  };
}

/** ℝ − {0} */
function isDifference(tokens: Token[], at: number): boolean {
  return tokens[at]?.text === '-' && tokens[at - 1]?.text === 'mathbb R' && tokens[at + 1]?.text === '\\{';
}

function signsOutside(tokens: Token[], is: (token: Token) => boolean): string[] {
  const signs: string[] = [];
  let depth = 0;
  for (const token of tokens) {
    if (opens(token)) depth++;
    else if (closes(token)) depth--;
    else if (depth === 0 && is(token)) signs.push(token.text);
  }
  return signs;
}

function ratio(tokens: Token[], depth: number): Answer | undefined {
  const parts = split(tokens, (token) => token.kind === 'sign' && token.text === ':');
  const [first = [], second = []] = parts;
  if (parts.length < 2) return undefined;
  // "Number of ways: 5"
  if (parts.length === 2 && first.every(({ kind }) => kind === 'word')) {
    const sides = parts.map((part) => parseAnswer(part, depth + 1));
    return { form: 'relation', signs: ['='], sides, sideTokens: [first, second] };
  }
  return { form: 'ratio', parts: parts.map((part) => parseAnswer(part, depth + 1)) };
}

/** A tuple, interval or set; brackets around one part only are those of an expression. */
function bracketed(tokens: Token[], depth: number): Answer | undefined {
  const [open, close] = [tokens[0], tokens.at(-1)];
  if (!opens(open) || open?.text === 'begin' || closer(tokens, 0) !== tokens.length - 1) return undefined;
  const inside = tokens.slice(1, -1);
  const parts = split(inside, (token) => isSeparator(token));
  const set = open?.text === '\\{';
  const condition = set ? conditionOf(inside, depth) : undefined;
  if (condition !== undefined) return condition;
  if (!set && parts.length < 2) return parts.length === 1 ? parseAnswer(inside, depth + 1) : undefined;
  const sequence: Answer & { form: 'sequence' } = {
    form: 'sequence',
    open: open?.text === '⟨' ? '(' : (open?.text ?? ''),
    close: close?.text === '⟩' ? ')' : (close?.text ?? ''),
    parts: parts.map((part) => parseAnswer(part, depth + 1)),
  };
  return set ? flat(sequence) : spread(sequence);
}

/** A tuple with one part that stands for several, (±1, 2), is as many tuples. */
function spread(tuple: Answer & { form: 'sequence' }): Answer {
  const at = tuple.parts.flatMap((part, i) => (part.form === 'sequence' && part.open === '' ? [i] : []));
  const [place = 0] = at;
  const choices = tuple.parts[place];
  if (at.length === 0 || choices?.form !== 'sequence') return tuple;
  if (at.length > 1) return { form: 'words', tokens: [] };
  const parts = choices.parts.map((choice) => ({ ...tuple, parts: tuple.parts.with(place, choice) }));
  return { form: 'sequence', open: '', close: '', parts };
}

/** The condition of {x | x > 3}, which says the same as the set. */
function conditionOf(tokens: Token[], depth: number): Answer | undefined {
  const from = tokens[1]?.text === '∈' && tokens[2]?.text === 'mathbb R' ? 3 : 1;
  if (tokens[0]?.kind !== 'letter' || !/^[|:]$/.test(tokens[from]?.text ?? '')) return undefined;
  const condition = parseAnswer(tokens.slice(from + 1), depth + 1);
  const all = condition.form === 'sequence' && condition.open === '' ? condition.parts : [condition];
  return all.every(({ form }) => form === 'relation') ? condition : undefined;
}

const MATRICES = /^(?:[pbBvV]?(?:small)?matrix|array)\*?$/;

function matrix(tokens: Token[], depth: number): Answer | undefined {
  if (tokens[0]?.text !== 'begin') return undefined;
  const [name, from] = group(tokens, 1);
  const end = closer(tokens, 0);
  if (!MATRICES.test(name) || end < 0 || group(tokens, end + 1)[1] !== tokens.length) return undefined;
  const columns = name === 'array' && tokens[from]?.text === '{' ? closer(tokens, from) + 1 : from;
  const rows = split(tokens.slice(columns, end), (token) => token.text === '\\\\').map((row) =>
    split(row, (token) => token.text === '&').map((cell) => parseAnswer(cell, depth + 1)),
  );
  return { form: 'matrix', determinant: /^[vV]/.test(name), rows };
}

/** The letters of a {group}, and the index behind it. */
function group(tokens: Token[], from: number): [string, number] {
  if (tokens[from]?.text !== '{') return ['', from];
  const to = closer(tokens, from);
  return to < 0
    ? ['', from]
    : [
        tokens
          .slice(from + 1, to)
          .map(({ text }) => text)
          .join(''),
        to + 1,
      ];
}

/** a ± b is the list of a + b and a − b; ∓ has the other sign. */
function plusMinus(tokens: Token[], depth: number): Answer | undefined {
  if (!tokens.some((token) => token.text === '±' || token.text === '∓')) return undefined;
  const signed = (plus: string, minus: string): Answer =>
    parseAnswer(
      tokens.map((token) =>
        token.text === '±'
          ? { ...token, text: plus }
          : token.text === '∓'
            ? { ...token, text: minus }
            : token,
      ),
      depth + 1,
    );
  return { form: 'sequence', open: '', close: '', parts: [signed('+', '-'), signed('-', '+')] };
}
