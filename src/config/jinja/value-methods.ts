/** Attributes, items and methods of values: Python's, as far as the sandbox lets templates have them. */

import { ownValue } from '../own-value.js';
import { Bound } from './arguments.js';
import { formatted } from './format.js';
import {
  Callable,
  Dict,
  Fields,
  iterate,
  List,
  present,
  same,
  text,
  typeName,
  Undefined,
  type Value,
} from './values.js';

type Method<T> = (self: T, bound: Bound) => Value;
const names = (list: string) => (list === '' ? [] : list.split(' '));
type Methods<T> = Record<string, [arguments: string, method: Method<T>]>;

/** Python's islower and isupper: some letter has a case, and none the other. */
export const allLower = (value: string) => value === value.toLowerCase() && value !== value.toUpperCase();
export const allUpper = (value: string) => value === value.toUpperCase() && value !== value.toLowerCase();

const textList = (parts: readonly string[], kind: 'list' | 'tuple' = 'list') => new List([...parts], kind);

/** Python's white space for strip and split: Unicode's, and four separators. */
const SPACE = '[\\s\\x1c-\\x1f\\x85]';
/** Where splitlines splits. */
const BREAKS = '\\r\\n|[\\n\\v\\f\\r\\x1c-\\x1e\\x85\\u2028\\u2029]';
const BREAK = new RegExp(BREAKS, 'u');
const LAST_BREAK = new RegExp(`(?:${BREAKS})$`, 'u');
const SPACES = new RegExp(`${SPACE}+`, 'gu');

export function stripped(
  value: string,
  characters: string | undefined,
  left: boolean,
  right: boolean,
): string {
  const set = characters === undefined ? undefined : new Set(characters);
  const blank = new RegExp(`^${SPACE}$`, 'u');
  const drops = (character: string) => (set === undefined ? blank.test(character) : set.has(character));
  const all = [...value];
  let [start, end] = [0, all.length];
  while (left && start < end && drops(all[start] as string)) start++;
  while (right && end > start && drops(all[end - 1] as string)) end--;
  return all.slice(start, end).join('');
}

const strip = (left: boolean, right: boolean): [string, Method<string>] => [
  'chars',
  (self, bound) =>
    stripped(self, bound.value('chars') == null ? undefined : bound.text('chars'), left, right),
];

export function replaced(value: string, from: string, to: string, most: number): string {
  const characters = [...value];
  // Between all characters, and at both ends.
  if (from === '') {
    const gaps = most < 0 ? characters.length + 1 : most;
    const inside = characters.map((one, i) => (i < gaps ? to + one : one)).join('');
    return gaps > characters.length ? inside + to : inside;
  }
  const parts = value.split(from);
  if (most < 0 || parts.length <= most + 1) return parts.join(to);
  return [parts.slice(0, most + 1).join(to), ...parts.slice(most + 1)].join(from);
}

function splitText(self: string, bound: Bound, fromRight: boolean): Value {
  const most = bound.whole('maxsplit', -1);
  const given = bound.value('sep') ?? null;
  if (given === null) {
    const words = stripped(self, undefined, !fromRight || most < 0, fromRight || most < 0);
    if (most < 0) return textList(words.split(SPACES).filter((word) => word !== ''));
    if (fromRight) throw new Error('rsplit at white space with a limit is not computed here');
    const found: string[] = [];
    let rest = words;
    while (found.length < most && rest !== '') {
      const at = rest.search(new RegExp(SPACE, 'u'));
      if (at < 0) break;
      found.push(rest.slice(0, at));
      rest = stripped(rest.slice(at), undefined, true, false);
    }
    return textList(rest === '' ? found : [...found, rest]);
  }
  const separator = bound.text('sep');
  if (separator === '') throw new Error('an empty separator');
  const parts = self.split(separator);
  if (most < 0 || parts.length <= most + 1) return textList(parts);
  if (fromRight) {
    const cut = parts.length - most;
    return textList([parts.slice(0, cut).join(separator), ...parts.slice(cut)]);
  }
  return textList([...parts.slice(0, most), parts.slice(most).join(separator)]);
}

const starts = (test: (self: string, part: string) => boolean): [string, Method<string>] => [
  'prefix',
  (self, bound) => {
    const given = bound.needed('prefix');
    const parts = given instanceof List && given.kind === 'tuple' ? given.items : [given];
    return parts.some((part) => {
      if (typeof part === 'string') return test(self, part);
      throw new Error(`${typeName(part)} is no text to begin or end with`);
    });
  },
];

const position = (self: string, at: number) => (at < 0 ? -1 : [...self.slice(0, at)].length);
const padded = (place: (self: string, fill: string, missing: number) => string): [string, Method<string>] => [
  'width fill',
  (self, bound) => {
    const missing = bound.whole('width', 0) - [...self].length;
    return missing > 0 ? place(self, bound.text('fill', ' '), missing) : self;
  },
];
const all = (pattern: RegExp): [string, Method<string>] => ['', (self) => pattern.test(self)];

const titled = (value: string) => value.replace(/\p{Alphabetic}+/gu, (word) => capitalized(word));
export const capitalized = (value: string) => {
  const [first = '', ...rest] = [...value];
  return first.toUpperCase() + rest.join('').toLowerCase();
};
export const centered = (self: string, fill: string, missing: number, width: number) => {
  const left = Math.floor(missing / 2) + (missing & width & 1);
  return fill.repeat(left) + self + fill.repeat(missing - left);
};

const TEXT: Methods<string> = {
  upper: ['', (self) => self.toUpperCase()],
  lower: ['', (self) => self.toLowerCase()],
  title: ['', titled],
  capitalize: ['', capitalized],
  swapcase: [
    '',
    (self) => [...self].map((c) => (c === c.toUpperCase() ? c.toLowerCase() : c.toUpperCase())).join(''),
  ],
  strip: strip(true, true),
  lstrip: strip(true, false),
  rstrip: strip(false, true),
  split: ['sep maxsplit', (self, bound) => splitText(self, bound, false)],
  rsplit: ['sep maxsplit', (self, bound) => splitText(self, bound, true)],
  splitlines: ['', (self) => textList(self === '' ? [] : self.replace(LAST_BREAK, '').split(BREAK))],
  partition: [
    'sep',
    (self, bound) => partition(self, self.indexOf(bound.text('sep')), bound.text('sep'), false),
  ],
  rpartition: [
    'sep',
    (self, bound) => partition(self, self.lastIndexOf(bound.text('sep')), bound.text('sep'), true),
  ],
  startswith: starts((self, part) => self.startsWith(part)),
  endswith: starts((self, part) => self.endsWith(part)),
  removeprefix: [
    'prefix',
    (self, bound) => (self.startsWith(bound.text('prefix')) ? self.slice(bound.text('prefix').length) : self),
  ],
  removesuffix: [
    'suffix',
    (self, bound) =>
      bound.text('suffix') !== '' && self.endsWith(bound.text('suffix'))
        ? self.slice(0, -bound.text('suffix').length)
        : self,
  ],
  replace: [
    'old new count',
    (self, bound) => replaced(self, bound.text('old'), bound.text('new'), bound.whole('count', -1)),
  ],
  find: ['sub', (self, bound) => position(self, self.indexOf(bound.text('sub')))],
  rfind: ['sub', (self, bound) => position(self, self.lastIndexOf(bound.text('sub')))],
  index: ['sub', (self, bound) => found(position(self, self.indexOf(bound.text('sub'))))],
  count: [
    'sub',
    (self, bound) =>
      bound.text('sub') === '' ? [...self].length + 1 : self.split(bound.text('sub')).length - 1,
  ],
  join: ['items', (self, bound) => iterate(bound.needed('items')).map(onlyText).join(self)],
  zfill: [
    'width',
    (self, bound) =>
      /^[-+]/.test(self)
        ? self.charAt(0) + self.slice(1).padStart(bound.whole('width', 0) - 1, '0')
        : self.padStart(bound.whole('width', 0), '0'),
  ],
  center: [
    'width fill',
    (self, bound) => {
      const width = bound.whole('width', 0);
      const missing = width - [...self].length;
      return missing > 0 ? centered(self, bound.text('fill', ' '), missing, width) : self;
    },
  ],
  ljust: padded((self, fill, missing) => self + fill.repeat(missing)),
  rjust: padded((self, fill, missing) => fill.repeat(missing) + self),
  isdigit: all(/^[\p{Nd}\u00b2\u00b3\u00b9\u2070-\u2079\u2080-\u2089]+$/u),
  isdecimal: all(/^\p{Nd}+$/u),
  isnumeric: all(/^\p{N}+$/u),
  isalpha: all(/^\p{L}+$/u),
  isalnum: all(/^[\p{L}\p{N}]+$/u),
  isspace: all(new RegExp(`^${SPACE}+$`, 'u')),
  islower: ['', allLower],
  isupper: ['', allUpper],
};

function partition(self: string, at: number, separator: string, right: boolean): Value {
  if (separator === '') throw new Error('an empty separator');
  if (at < 0) return textList(right ? ['', '', self] : [self, '', ''], 'tuple');
  return textList([self.slice(0, at), separator, self.slice(at + separator.length)], 'tuple');
}

function found(at: number): number {
  if (at < 0) throw new Error('what is looked for is not there');
  return at;
}

function onlyText(value: Value): string {
  if (typeof value === 'string') return value;
  throw new Error(`${typeName(value)} is no text to join`);
}

const LIST: Methods<List> = {
  index: ['value', (self, bound) => found(self.items.findIndex((one) => same(one, bound.needed('value'))))],
  count: ['value', (self, bound) => self.items.filter((one) => same(one, bound.needed('value'))).length],
};

export const pairs = (dict: Dict) => [...dict.map].map(([key, value]) => new List([key, value], 'tuple'));

const DICT: Methods<Dict> = {
  get: ['key default', (self, bound) => present(self.get(bound.needed('key')), bound.value('default'), null)],
  items: ['', (self) => new List(pairs(self), 'view', 'dict_items')],
  keys: ['', (self) => new List([...self.map.keys()], 'view', 'dict_keys')],
  values: ['', (self) => new List([...self.map.values()], 'view', 'dict_values')],
  copy: ['', (self) => new Dict(self.map)],
};

/** What would change a value; the sandbox forbids it. */
const CHANGING = new Set(
  'append extend insert pop remove reverse sort clear update setdefault popitem'.split(' '),
);

function method<T>(self: T, methods: Methods<T>, name: string): Callable | undefined {
  const entry = ownValue(methods, name);
  if (entry === undefined) return undefined;
  const [taken, run] = entry;
  return new Callable((args, named) => run(self, new Bound(names(taken), args, named)));
}

/** `of.name`: an attribute before an item. */
export function attribute(of: Value, name: string): Value {
  if (of instanceof Undefined) return of.fail();
  if (name.startsWith('_')) throw new Error(`the attribute ${name} is not for templates`);
  const value = of instanceof Dict ? of.get(name) : undefined;
  return present(ownAttribute(of, name), value, new Undefined(`"${name}" of ${typeName(of)}`));
}

function ownAttribute(of: Value, name: string): Value | undefined {
  if (of instanceof Fields) return of.map.get(name);
  if ((of instanceof List || of instanceof Dict) && CHANGING.has(name)) {
    return new Callable(() => {
      throw new Error(`${name} changes a value, which templates may not`);
    });
  }
  if (typeof of === 'string') {
    if (name === 'format') return new Callable((args, named) => formatted(of, args, named));
    return method(of, TEXT, name);
  }
  if (of instanceof Dict) return method(of, DICT, name);
  if (of instanceof List && of.kind !== 'lazy') return method(of, LIST, name);
  if (typeof of === 'number' || typeof of === 'boolean') return numberAttribute(Number(of), name);
  return undefined;
}

function numberAttribute(of: number, name: string): Value | undefined {
  if (name === 'real' || name === 'numerator') return of;
  return name === 'imag' ? 0 : undefined;
}

/** `of[at]`: an item before an attribute. */
export function item(of: Value, at: Value): Value {
  if (of instanceof Undefined) return of.fail();
  const index = typeof at === 'boolean' ? Number(at) : at;
  if (of instanceof Dict) {
    const value = of.get(at);
    if (value !== undefined) return value;
  } else if (
    typeof index === 'number' &&
    (typeof of === 'string' || (of instanceof List && of.kind !== 'lazy' && of.kind !== 'view'))
  ) {
    const items = typeof of === 'string' ? [...of] : of.items;
    return items.at(index) === undefined || index < -items.length
      ? new Undefined(`item ${index}`)
      : (items.at(index) as Value);
  }
  if (typeof at === 'string') return attribute(of, at);
  return new Undefined(`item ${text(at)} of ${typeName(of)}`);
}

export function slice(
  of: Value,
  from: Value | undefined,
  to: Value | undefined,
  step: Value | undefined,
): Value {
  if (!(typeof of === 'string' || (of instanceof List && of.kind !== 'lazy' && of.kind !== 'view'))) {
    return new Undefined(`a slice of ${typeName(of)}`);
  }
  const items: readonly Value[] = typeof of === 'string' ? [...of] : of.items;
  const by = bound(step) ?? 1;
  if (by === 0) throw new Error('a slice with step 0');
  const clamp = (at: number, low: number, high: number) =>
    Math.min(Math.max(at < 0 ? at + items.length : at, low), high);
  const [low, high] = by > 0 ? [0, items.length] : [-1, items.length - 1];
  const start = clampOr(bound(from), by > 0 ? low : high, (at) => clamp(at, low, high));
  const end = clampOr(bound(to), by > 0 ? high : low, (at) => clamp(at, low, high));
  const picked: Value[] = [];
  for (let i = start; by > 0 ? i < end : i > end; i += by) picked.push(items[i] as Value);
  if (typeof of === 'string') return picked.join('');
  return new List(picked, of.kind === 'tuple' ? 'tuple' : 'list');
}

const clampOr = (at: number | undefined, fallback: number, clamp: (at: number) => number) =>
  at === undefined ? fallback : clamp(at);

function bound(value: Value | undefined): number | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value === 'number') return value;
  throw new Error(`a slice is bounded by whole numbers, not by ${typeName(value)}`);
}
