/**
 * The tests of a code problem, and how results compare with right ones. Running them is in code-grading.ts,
 * reading them out of data rows in code-rows.ts.
 */
import type { Json } from './sandbox.js';

/** Three styles of tests; an answer has to pass all of its problem's. */
export type CodeTests =
  /** The answer is a program: it reads `input` and has to print `output`. */
  | { style: 'stdin'; cases: { input: string; output: string }[] }
  /** The answer defines a function (or a method of `Solution`). Values as in `toChannel`. */
  | { style: 'function'; name: string; cases: { args: Json[]; outputs: Json[] }[] }
  /** `code` asserts; `names` are the answer's, `context` stands before the answer. */
  | { style: 'asserts'; code: string; names: string[]; context: string };

export function testCount(tests: CodeTests): number {
  return tests.style === 'asserts' ? (tests.code.match(/^\s*assert\b/gm)?.length ?? 1) : tests.cases.length;
}

/** A JSON value as the sandbox's harness takes it: objects become dicts, whole numbers beyond 2^53 exact. */
export function toChannel(value: unknown): Json {
  if (typeof value === 'bigint') return { $int: `${value < 0n ? '-' : ''}0x${abs(value).toString(16)}` };
  if (Array.isArray(value)) return value.map(toChannel);
  if (typeof value !== 'object' || value === null) return value as Json;
  return { $dict: Object.entries(value).map(([key, item]) => [key, toChannel(item)]) };
}

function abs(value: bigint): bigint {
  return value < 0n ? -value : value;
}

/**
 * JSON.parse, but whole numbers that a double cannot hold become bigints. Throws a SyntaxError.
 */
export function parseJson(text: string): unknown {
  if (!/\d{16}/.test(text)) return JSON.parse(text);
  const tagged = text.replace(/"[^"\\]*(?:\\.[^"\\]*)*"|(?<![\d.])-?\d{16,}(?![\d.eE])/g, (found) =>
    found.startsWith('"') || Number.isSafeInteger(Number(found)) ? found : `{"$int":"${found}"}`,
  );
  return JSON.parse(tagged, (_, value: unknown) =>
    typeof value === 'object' && value !== null && '$int' in value ? BigInt(String(value.$int)) : value,
  );
}

/** Whether a value of the program equals the right one, as Python's == does, but with tuples as lists. */
export function sameValue(right: Json, got: Json | undefined): boolean {
  if (got === undefined) return false;
  const [x, y] = [scalar(right), scalar(got)];
  if (x !== undefined || y !== undefined) return x === y;
  const [a, b] = [items(right), items(got)];
  if (a !== undefined && b !== undefined) {
    return a.length === b.length && a.every((item, i) => sameValue(item, b[i]));
  }
  const [p, q] = [entries(right), entries(got)];
  if (p === undefined || q === undefined || p.size !== q.size) return false;
  return [...p].every(([key, item]) => sameValue(item, q.get(key)));
}

/** Numbers and truth values as one of both (True == 1), text marked as such; undefined for containers. */
function scalar(value: Json): string | undefined {
  if (value === null) return 'None';
  if (typeof value === 'string') return `"${value}`;
  if (typeof value === 'number' || typeof value === 'boolean') return String(Number(value));
  if (Array.isArray(value)) return undefined;
  if (typeof value.$int === 'string') return bigintText(value.$int);
  return typeof value.$float === 'string' ? value.$float : undefined;
}

function bigintText(text: string): string {
  return /^-?0x[0-9a-f]+$/.test(text)
    ? `${text.startsWith('-') ? '-' : ''}${BigInt(text.replace('-', ''))}`
    : 'not a number';
}

function items(value: Json): Json[] | undefined {
  if (Array.isArray(value)) return value;
  const tuple = value !== null && typeof value === 'object' ? value.$tuple : undefined;
  return Array.isArray(tuple) ? tuple : undefined;
}

/** JSON knows only text as keys, so a program's key 1 stands for "1". */
function entries(value: Json): Map<string, Json> | undefined {
  const pairs =
    value !== null && typeof value === 'object' && !Array.isArray(value) ? value.$dict : undefined;
  if (!Array.isArray(pairs)) return undefined;
  return new Map(
    pairs.map((pair) => {
      const [key = null, item = null] = Array.isArray(pair) ? pair : [];
      return [typeof key === 'string' ? key : (scalar(key) ?? JSON.stringify(key)), item];
    }),
  );
}

/**
 * Whether a program printed what it should: the same number of lines, each equal without the space around it,
 * or equal number by number as decimals ("1.50 2" equals "1.5 2.0").
 */
export function sameOutput(right: string, got: string): boolean {
  const [a, b] = [stripped(right), stripped(got)];
  return a.length === b.length && a.every((line, i) => sameLine(line, b[i] ?? ''));
}

function stripped(text: string): string[] {
  return text
    .trim()
    .split('\n')
    .map((line) => line.trim());
}

function sameLine(right: string, got: string): boolean {
  if (right === got) return true;
  const [a, b] = [right.split(/\s+/), got.split(/\s+/)];
  if (a.length !== b.length) return false;
  return a.every((word, i) => {
    const value = canonicalDecimal(word);
    return value !== undefined && value === canonicalDecimal(b[i] ?? '');
  });
}

/** A decimal number in one form: sign, digits without zeros at the ends, and a power of ten. */
function canonicalDecimal(text: string): string | undefined {
  const match = /^([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d{1,9}))?$/.exec(text);
  const [, sign = '', whole = '', fraction = '', exponent = '0'] = match ?? [];
  const digits = `${whole}${fraction}`;
  if (match === null || digits === '') return undefined;
  const leading = digits.replace(/^0+/, '');
  let end = leading.length;
  while (end > 0 && leading[end - 1] === '0') end--;
  if (end === 0) return '0';
  const power = Number(exponent) - fraction.length + (leading.length - end);
  return `${sign === '-' ? '-' : ''}${leading.slice(0, end)}e${power}`;
}
