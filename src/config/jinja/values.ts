/** What a template computes with: Python's values, printed and compared as Python does. */

export type Value = null | boolean | number | string | Float | Undefined | List | Dict | Fields | Callable;

/** JavaScript's numbers are whole ones here. */
export class Float {
  readonly value: number;
  constructor(value: number) {
    this.value = value;
  }
}

/** A name or attribute that nothing is called. It prints as nothing and is false; most else fails. */
export class Undefined {
  readonly name: string;
  constructor(name: string) {
    this.name = name;
  }
  fail(): never {
    throw new Error(`${this.name} is undefined`);
  }
}

/** What each value counts beside the characters of its text. */
const PLACE = 64;
/** A conversation with its tools has less than a hundredth. */
const LARGEST = 2 ** 26;

/**
 * How much a value is when it is written out or compared: a list that stands in another one twice counts twice, so
 * that sixty lists of the one before, which take no memory, are refused before anybody walks through them.
 */
export function extentOf(value: Value): number {
  if (typeof value === 'string') return PLACE + value.length;
  return value instanceof List || value instanceof Dict ? value.extent : PLACE;
}

function extentOfAll(values: Iterable<Value>): number {
  let sum = PLACE;
  for (const value of values) sum += extentOf(value);
  if (sum > LARGEST) throw new Error('it makes texts or lists without end');
  return sum;
}

/** lazy: what a generator gives, once. */
export type ListKind = 'list' | 'tuple' | 'range' | 'view' | 'lazy';

export class List {
  readonly kind: ListKind;
  /** How a view begins when it is printed: dict_keys. */
  readonly label: string;
  readonly extent: number;
  #items: Value[];
  constructor(items: Value[], kind: ListKind = 'list', label = '') {
    this.#items = items;
    this.kind = kind;
    this.label = label;
    this.extent = extentOfAll(items);
  }
  get items(): readonly Value[] {
    return this.#items;
  }
  /** The items, to walk through: a generator has none afterwards. */
  take(): readonly Value[] {
    const items = this.#items;
    if (this.kind === 'lazy') this.#items = [];
    return items;
  }
  takeFirst(): Value | undefined {
    const [first] = this.#items;
    if (this.kind === 'lazy') this.#items = this.#items.slice(1);
    return first;
  }
}

type Key = string | number | null;

export class Dict {
  readonly map: ReadonlyMap<Key, Value>;
  readonly extent: number;
  constructor(entries: Iterable<readonly [Value, Value]> = []) {
    this.map = new Map([...entries].map(([key, value]) => [keyOf(key), value]));
    this.extent = extentOfAll([...this.map].flat());
  }
  get(key: Value): Value | undefined {
    return this.map.get(keyOf(key));
  }
}

function keyOf(key: Value): Key {
  if (typeof key === 'boolean') return Number(key);
  if (key instanceof Float) return key.value;
  if (key === null || typeof key === 'string' || typeof key === 'number') return key;
  throw new Error(`${typeName(key)} is no key of a dict`);
}

/** A namespace, or the loop of a `for`. */
export class Fields {
  readonly kind: 'namespace' | 'loop';
  readonly map: Map<string, Value>;
  constructor(kind: Fields['kind'], entries: Iterable<[string, Value]>) {
    this.kind = kind;
    this.map = new Map(entries);
  }
}

export type Named = ReadonlyMap<string, Value>;

export class Callable {
  readonly call: (args: Value[], named: Named) => Value;
  constructor(call: (args: Value[], named: Named) => Value) {
    this.call = call;
  }
}

/** A value of JSON, or a function of JavaScript, as a template sees it. */
export function templateValue(value: unknown): Value {
  if (value === undefined) return new Undefined('it');
  if (value === null || typeof value === 'boolean' || typeof value === 'string') return value;
  if (typeof value === 'number') return Number.isSafeInteger(value) ? value : new Float(value);
  if (value instanceof Callable) return value;
  if (Array.isArray(value)) return new List(value.map(templateValue));
  if (typeof value === 'object') {
    return new Dict(Object.entries(value).map(([key, item]) => [key, templateValue(item)] as const));
  }
  throw new Error(`a ${typeof value} is no value of a template`);
}

export function typeName(value: Value): string {
  if (value === null) return 'None';
  if (typeof value === 'boolean') return 'a bool';
  if (typeof value === 'number') return 'an int';
  if (typeof value === 'string') return 'a str';
  if (value instanceof Float) return 'a float';
  if (value instanceof Undefined) return 'undefined';
  if (value instanceof List) return `a ${value.kind}`;
  if (value instanceof Dict) return 'a dict';
  return value instanceof Fields ? `a ${value.kind}` : 'a function';
}

export function truth(value: Value): boolean {
  if (value instanceof Float) return value.value !== 0;
  if (value instanceof Undefined) return false;
  if (value instanceof List) return value.kind === 'lazy' || value.items.length > 0;
  if (value instanceof Dict) return value.map.size > 0;
  return typeof value === 'object' ? value !== null : Boolean(value);
}

/** What a loop walks through. */
export function iterate(value: Value): readonly Value[] {
  if (value instanceof List) return value.take();
  if (value instanceof Dict) return [...value.map.keys()];
  if (typeof value === 'string') return [...value];
  if (value instanceof Undefined) return [];
  throw new Error(`${typeName(value)} cannot be walked through`);
}

/** str(): what `{{ value }}` prints. */
export function text(value: Value): string {
  if (typeof value === 'string') return value;
  return value instanceof Undefined ? '' : repr(value);
}

export function repr(value: Value): string {
  if (value === null) return 'None';
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (typeof value === 'number') return String(value);
  if (typeof value === 'string') return reprText(value);
  if (value instanceof Float) return floatText(value.value);
  if (value instanceof Undefined) return 'Undefined';
  if (value instanceof Dict) {
    return `{${[...value.map].map(([key, item]) => `${repr(key)}: ${repr(item)}`).join(', ')}}`;
  }
  if (value instanceof List) return reprList(value);
  throw new Error(`${typeName(value)} has no text`);
}

function reprList({ kind, label, items }: List): string {
  if (kind === 'lazy') throw new Error('a generator has no text; make it a list');
  if (kind === 'range') return label;
  const inner = items.map(repr).join(', ');
  if (kind === 'tuple') return items.length === 1 ? `(${inner},)` : `(${inner})`;
  return kind === 'view' ? `${label}([${inner}])` : `[${inner}]`;
}

const ESCAPES: Record<string, string> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' };

function reprText(value: string): string {
  const quote = value.includes("'") && !value.includes('"') ? '"' : "'";
  let found = '';
  for (const character of value) {
    const code = character.codePointAt(0) as number;
    if (character === quote) found += `\\${quote}`;
    else if (ESCAPES[character] !== undefined) found += ESCAPES[character];
    else if (character !== ' ' && /[\p{C}\p{Z}]/u.test(character)) found += escaped(code);
    else found += character;
  }
  return quote + found + quote;
}

function escaped(code: number): string {
  const hex = (width: number) => code.toString(16).padStart(width, '0');
  if (code < 0x100) return `\\x${hex(2)}`;
  return code < 0x10000 ? `\\u${hex(4)}` : `\\U${hex(8)}`;
}

/** The shortest digits that read back, as Python and JavaScript agree, in Python's spelling. */
export function floatText(value: number): string {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e16)) {
    const [digits = '', exponent = ''] = value.toExponential().split('e');
    return `${digits}e${exponent[0]}${exponent.slice(1).padStart(2, '0')}`;
  }
  const plain = Object.is(value, -0) ? '-0' : String(value);
  return /[.]/.test(plain) ? plain : `${plain}.0`;
}

/** Of booleans and numbers; undefined for anything else. */
export function numberOf(value: Value): number | undefined {
  if (typeof value === 'number') return value;
  if (typeof value === 'boolean') return Number(value);
  return value instanceof Float ? value.value : undefined;
}

export function same(a: Value, b: Value): boolean {
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x !== undefined || y !== undefined) return x === y;
  if (a instanceof Undefined && b instanceof Undefined) return true;
  if (a instanceof List && b instanceof List && a.kind === b.kind && a.kind !== 'lazy') {
    return a.items.length === b.items.length && a.items.every((item, i) => same(item, b.items[i] as Value));
  }
  if (a instanceof Dict && b instanceof Dict) {
    const within = (key: Key, item: Value) => b.map.has(key) && same(item, b.map.get(key) as Value);
    return a.map.size === b.map.size && [...a.map].every(([key, item]) => within(key, item));
  }
  return a === b;
}

/** Negative, 0 or positive. Throws for what Python does not order. */
export function compare(a: Value, b: Value): number {
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x !== undefined && y !== undefined) return x - y;
  if (typeof a === 'string' && typeof b === 'string') return compareTexts(a, b);
  if (a instanceof List && b instanceof List && a.kind === b.kind) {
    for (const [i, item] of a.items.entries()) {
      if (i >= b.items.length) return 1;
      if (!same(item, b.items[i] as Value)) return compare(item, b.items[i] as Value);
    }
    return a.items.length - b.items.length;
  }
  throw new Error(`${typeName(a)} and ${typeName(b)} have no order`);
}

/** By code point, not by JavaScript's units. */
function compareTexts(a: string, b: string): number {
  const [x, y] = [[...a], [...b]];
  for (const [i, character] of x.entries()) {
    const difference = (character.codePointAt(0) as number) - (y[i]?.codePointAt(0) ?? -1);
    if (difference !== 0) return difference;
  }
  return x.length - y.length;
}

export function contains(container: Value, item: Value): boolean {
  if (typeof container === 'string') {
    if (typeof item === 'string') return container.includes(item);
    throw new Error(`${typeName(item)} is in no text`);
  }
  if (container instanceof Dict) return container.get(item) !== undefined;
  return iterate(container).some((one) => same(one, item));
}

/** Whole numbers beyond what JavaScript counts exactly are refused. */
export function whole(value: number): number {
  if (Number.isSafeInteger(value)) return value;
  throw new Error(`${value} is beyond the whole numbers that are counted here`);
}

/** The first of them that is there, as Python's `or` for what is missing: None is a value. */
export function present(...values: [...(Value | undefined)[], Value]): Value {
  return values.find((value) => value !== undefined) as Value;
}
