/** Values of data rows as they go to a program, and the comparison of its results with the right ones. */
import type { Json } from './sandbox.js';

/** A float that JavaScript would take for a whole number, as the row writes it: 3.0, 1e9, NaN, -Infinity. */
class Float {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }

  toString(): string {
    return this.text;
  }
}

const TAG = '$written';
/** Text, or a number or constant outside of text. */
const TOKENS = /"[^"\\]*(?:\\.[^"\\]*)*"|-?(?:\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|Infinity)|NaN/g;

/**
 * JSON.parse, but whole numbers that a double cannot hold become bigints, and NaN and Infinity as Python writes them are
 * numbers. Throws a SyntaxError.
 */
export function parseJson(text: string): unknown {
  return /\d{16}|NaN|Infinity/.test(text) ? parseWritten(text, false) : JSON.parse(text);
}

/** As parseJson, but NaN, Infinity and floats that look whole become a Float. */
export function parsePython(text: string): unknown {
  return /\d\.\d|\d[eE]|\d{16}|NaN|Infinity/.test(text) ? parseWritten(text, true) : JSON.parse(text);
}

function parseWritten(text: string, floats: boolean): unknown {
  const tagged = text.replace(TOKENS, (found) => {
    if (found.startsWith('"') || !isKept(found, floats)) return found;
    return `{"${TAG}":"${found}"}`;
  });
  return JSON.parse(tagged, (_, value: unknown) =>
    typeof value === 'object' && value !== null && TAG in value && typeof value[TAG] === 'string'
      ? numberOf(value[TAG], floats)
      : value,
  );
}

/** Whether the written form of a number says more than the number. */
function isKept(found: string, floats: boolean): boolean {
  const value = Number(found);
  const isWhole = /^-?\d+$/.test(found);
  if (isWhole) return !Number.isSafeInteger(value);
  return !/\d/.test(found) || (floats && !(value % 1 !== 0 && Number.isFinite(value)));
}

function numberOf(text: string, floats: boolean): bigint | number | Float {
  if (/^-?\d+$/.test(text)) return BigInt(text);
  return floats ? new Float(text) : Number(text);
}

/** Text, or a number or truth value as text; undefined for anything else, which a row may have too. */
export function written(value: unknown): string | undefined {
  const isText = value instanceof Float || /^(?:string|number|bigint|boolean)$/.test(typeof value);
  return isText ? String(value) : undefined;
}

/** A value of a row as the sandbox takes it: objects become dicts, whole numbers exact, floats floats. */
export function toChannel(value: unknown): Json {
  if (typeof value === 'bigint') return { $int: hex(value) };
  if (value instanceof Float) return { $float: value.text.replace('Infinity', 'inf').replace('NaN', 'nan') };
  if (typeof value === 'number') return isExact(value) ? value : { $float: pythonFloat(value) };
  if (Array.isArray(value)) return value.map(toChannel);
  if (typeof value !== 'object' || value === null) return (value ?? null) as Json;
  return { $dict: Object.entries(value).map(([key, item]) => [key, toChannel(item)]) };
}

function hex(value: bigint): string {
  return value < 0n ? `-0x${(-value).toString(16)}` : `0x${value.toString(16)}`;
}

function isExact(value: number): boolean {
  return Number.isSafeInteger(value) || value % 1 !== 0;
}

function pythonFloat(value: number): string {
  return String(value).replace('Infinity', 'inf').replace('NaN', 'nan');
}

/** How far a float may lie from the right one, relative to it or to 1: the noise of another order of operations. */
const NOISE = 1e-9;

/** Whether a value of the program equals the right one, as Python's == does, but with tuples as lists. */
export function sameValue(right: Json, got: Json): boolean {
  const [x, y] = [plain(right), plain(got)];
  if (isNumber(x) && isNumber(y)) return sameNumber(x, y, x instanceof Float || Number(x) % 1 !== 0);
  if (typeof x === 'string' || typeof y === 'string' || x === null || y === null) return x === y;
  const [a, b] = [items(x), items(y)];
  if (a !== undefined && b !== undefined) {
    return a.length === b.length && a.every((item, i) => sameValue(item, b[i] ?? null));
  }
  const [p, q] = [entries(x), entries(y)];
  if (p === undefined || q === undefined || p.size !== q.size) return false;
  return [...p].every(([key, item]) => q.has(key) && sameValue(item, q.get(key) ?? null));
}

type Plain = null | string | number | bigint | Float | Json[] | { [tag: string]: Json };

function isNumber(value: Plain): value is number | bigint | Float {
  return typeof value === 'number' || typeof value === 'bigint' || value instanceof Float;
}

/** Numbers without their tags; True is 1. */
function plain(value: Json): Plain {
  if (typeof value === 'boolean') return Number(value);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  const { $int, $float, $scalar, $make } = value;
  if (typeof $int === 'string' && /^-?0x[0-9a-f]+$/.test($int)) {
    return $int.startsWith('-') ? -BigInt($int.slice(1)) : BigInt($int);
  }
  if (typeof $float === 'string') return new Float($float);
  if (Array.isArray($make)) return madeNumber($make) ?? value;
  return Array.isArray($scalar) && $scalar.length === 3 ? plain($scalar[2] ?? null) : value;
}

/** Python's exact numbers: a fraction or a decimal equals the number that it is. */
function madeNumber([type, args]: Json[]): number | bigint | Float | undefined {
  if (!Array.isArray(args)) return undefined;
  const [first = null, second = null] = args.map(plain);
  if (type === 'decimal.Decimal' && typeof first === 'string') {
    return /^-?\d{1,300}$/.test(first) ? BigInt(first) : new Float(first);
  }
  if (type !== 'fractions.Fraction' || !isNumber(first) || !isNumber(second)) return undefined;
  const [above, below] = [exact(first), exact(second)];
  return below === 1n ? above : Number(above) / Number(below);
}

function sameNumber(right: number | bigint | Float, got: number | bigint | Float, isFloat: boolean): boolean {
  const [a, b] = [exact(right), exact(got)];
  if (a === b) return true;
  const [x, y] = [Number(a), Number(b)];
  if (Number.isNaN(x) && Number.isNaN(y)) return true;
  return isFloat && Number.isFinite(x) && Math.abs(x - y) <= NOISE * Math.max(1, Math.abs(x));
}

/** Whole numbers as bigints, so that those beyond 2^53 compare exactly with floats too. */
function exact(value: number | bigint | Float): number | bigint {
  if (typeof value === 'bigint') return value;
  const number = value instanceof Float ? floatOf(value.text) : value;
  return Number.isInteger(number) ? BigInt(number) : number;
}

function floatOf(text: string): number {
  const named = { inf: Number.POSITIVE_INFINITY, '-inf': Number.NEGATIVE_INFINITY }[text];
  return named ?? (text.trim() === '' ? Number.NaN : Number(text));
}

function items(value: Plain): Json[] | undefined {
  if (Array.isArray(value)) return value;
  if (typeof value !== 'object' || value === null || value instanceof Float) return undefined;
  if (Array.isArray(value.$tuple)) return value.$tuple;
  const content = Array.isArray(value.$named) ? value.$named[2] : undefined;
  const array = Array.isArray(value.$array) ? value.$array[2] : content;
  return Array.isArray(array) ? array : undefined;
}

/** JSON knows only text as keys, so a program's key 1 stands for "1". Undefined if two keys are the same then. */
function entries(value: Plain): Map<string, Json> | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || value instanceof Float) {
    return undefined;
  }
  const pairs = value.$dict ?? madeDict(value.$make);
  if (!Array.isArray(pairs)) return undefined;
  const map = new Map(
    pairs.map((pair) => {
      const [key = null, item = null] = items(pair as Plain) ?? [];
      return [keyText(key), item];
    }),
  );
  return map.size === pairs.length ? map : undefined;
}

function keyText(key: Json): string {
  const value = plain(key);
  if (typeof value === 'string') return value;
  if (!isNumber(value)) return JSON.stringify(value);
  const number = exact(value);
  // The decimal digits of a huge number would take long.
  return typeof number === 'bigint' && BigInt.asIntN(128, number) !== number ? hex(number) : String(number);
}

/** The pairs of Python's own kinds of dict. */
function madeDict(made: Json | undefined): Json | undefined {
  const [type, args] = Array.isArray(made) ? made : [];
  if (!Array.isArray(args)) return undefined;
  if (type === 'collections.OrderedDict') return args[0];
  const dict = type === 'collections.Counter' ? args[0] : type === 'collections.defaultdict' ? args[1] : null;
  return typeof dict === 'object' && dict !== null && !Array.isArray(dict) ? dict.$dict : undefined;
}
