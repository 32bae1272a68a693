/** Filters behind `|`: jinja2/filters.py, and tojson as transformers replaces it. */

import { ownValue } from '../own-value.js';
import { Bound } from './arguments.js';
import { percent } from './format.js';
import { toJson } from './json-text.js';
import { applyTest, TESTS } from './tests.js';
import { attribute, capitalized, centered, item, pairs, replaced, stripped } from './value-methods.js';
import {
  compare,
  Dict,
  Float,
  iterate,
  List,
  type Named,
  numberOf,
  present,
  same,
  text,
  truth,
  typeName,
  Undefined,
  type Value,
} from './values.js';

type Filter = (value: Value, bound: Bound) => Value;
type OpenFilter = (value: Value, args: readonly Value[], named: Named) => Value;

const with_ = (names: string, filter: Filter): OpenFilter => {
  const list = names === '' ? [] : names.split(' ');
  return (value, args, named) => filter(value, new Bound(list, args, named));
};
const ofText = (change: (value: string) => string): OpenFilter => with_('', (value) => change(text(value)));
const lazy = (items: readonly Value[]) => new List([...items], 'lazy');

function length(value: Value): number {
  if (typeof value === 'string') return [...value].length;
  if (value instanceof Dict) return value.map.size;
  if (value instanceof List && value.kind !== 'lazy') return value.items.length;
  if (value instanceof Undefined) return 0;
  throw new Error(`${typeName(value)} has no length`);
}

/** make_attrgetter: a path of names and numbers; null: the value itself. */
function getter(path: Value | undefined, fallback?: Value): (value: Value) => Value {
  if (path === undefined || path === null) return (value) => value;
  const parts =
    typeof path === 'number'
      ? [path]
      : String(text(path))
          .split('.')
          .map((part) => (/^\d+$/.test(part) ? Number(part) : part));
  return (value) => {
    let found = value;
    for (const part of parts) {
      found = item(found, part);
      if (found instanceof Undefined && fallback !== undefined) return fallback;
    }
    return found;
  };
}

const folded = (value: Value, sensitive: boolean): Value =>
  typeof value === 'string' && !sensitive ? value.toLowerCase() : value;

function sorted(items: readonly Value[], key: (value: Value) => Value, reverse: boolean): Value[] {
  const keyed = items.map((value) => ({ value, key: key(value) }));
  // Stable in both directions, as Python's.
  keyed.sort((a, b) => (reverse ? compare(b.key, a.key) : compare(a.key, b.key)));
  return keyed.map(({ value }) => value);
}

function extreme(sign: number): OpenFilter {
  return with_('case_sensitive attribute', (value, bound) => {
    const key = getter(bound.value('attribute'));
    const sensitive = truth(bound.value('case_sensitive') ?? false);
    let best: Value = new Undefined('the least or largest of nothing');
    let bestKey: Value | undefined;
    for (const one of iterate(value)) {
      const candidate = folded(key(one), sensitive);
      if (bestKey !== undefined && sign * compare(candidate, bestKey) <= 0) continue;
      [best, bestKey] = [one, candidate];
    }
    return best;
  });
}

const chosen =
  (keep: boolean, byAttribute: boolean): OpenFilter =>
  (value, args, named) => {
    if (named.size > 0) throw new Error('it takes no named arguments');
    const [path, ...rest] = byAttribute ? args : [undefined, ...args];
    if (byAttribute && path === undefined) throw new Error('the name of an attribute is missing');
    const [test, ...operands] = rest as Value[];
    const get = getter(path);
    return lazy(
      iterate(value).filter((one) => {
        const passes = test === undefined ? truth(get(one)) : applyTest(text(test), get(one), operands);
        return passes === keep;
      }),
    );
  };

const map: OpenFilter = (value, args, named) => {
  if (args.length === 0) {
    const bound = new Bound(['attribute', 'default'], [], named);
    const get = getter(bound.needed('attribute'), bound.value('default'));
    return lazy(iterate(value).map(get));
  }
  const [name, ...rest] = args;
  return lazy(iterate(value).map((one) => applyFilter(text(name as Value), one, rest, named)));
};

const HTML: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&#34;', "'": '&#39;' };
const escaped = ofText((value) => value.replace(/[&<>"']/g, (character) => HTML[character] as string));

const integer = with_('default base', (value, bound) => {
  const fallback = present(bound.value('default'), 0);
  const number = numberOf(value);
  if (number !== undefined) return Number.isFinite(number) ? Math.trunc(number) : fallback;
  if (typeof value !== 'string') return fallback;
  const base = bound.whole('base', 10);
  const plain = stripped(value, undefined, true, true)
    .toLowerCase()
    .replace(base === 16 ? /^0x/ : base === 8 ? /^0o/ : base === 2 ? /^0b/ : /^/, '');
  const digits = '0123456789abcdefghijklmnopqrstuvwxyz'.slice(0, base);
  if (new RegExp(`^[-+]?[${digits}]+(_[${digits}]+)*$`).test(plain))
    return Number.parseInt(plain.replaceAll('_', ''), base);
  const float = base === 10 ? asFloat(plain) : undefined;
  return float === undefined || !Number.isFinite(float) ? fallback : Math.trunc(float);
});

function asFloat(value: string): number | undefined {
  const plain = stripped(value, undefined, true, true);
  return /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(plain) ? Number(plain) : undefined;
}

/** round(): half to even, as Python does, on the decimal digits that a number stands for. */
function rounded(value: number, digits: number, method: string): number {
  const scale = 10 ** digits;
  if (method === 'ceil') return Math.ceil(value * scale) / scale;
  if (method === 'floor') return Math.floor(value * scale) / scale;
  if (method !== 'common') throw new Error(`"${method}" is no way to round`);
  if (digits > 0) return Number(value.toFixed(digits));
  const scaled = value * scale;
  const down = Math.floor(scaled);
  const up = scaled - down > 0.5 || (scaled - down === 0.5 && down % 2 !== 0);
  return (down + Number(up)) / scale;
}

const indent = with_('width first blank', (value, bound) => {
  const width = bound.value('width') ?? 4;
  const space = typeof width === 'string' ? width : ' '.repeat(bound.whole('width', 4));
  const whole = text(value);
  const blank = truth(bound.value('blank') ?? false);
  const lines = `${whole}\n`.split('\n').slice(0, -1);
  const first = truth(bound.value('first') ?? false);
  return lines
    .map((line, i) =>
      (i === 0 ? first : true) && (line !== '' || (blank && i > 0) || (i === 0 && first))
        ? space + line
        : line,
    )
    .join('\n');
});

/** As Jinja does it, so that groups of 0 or fewer end too. */
const group = (value: Value, size: number, fill: Value | undefined) => {
  const groups: Value[][] = [];
  let part: Value[] = [];
  for (const one of iterate(value)) {
    if (part.length === size) {
      groups.push(part);
      part = [];
    }
    part.push(one);
  }
  if (part.length > 0) groups.push(part);
  while (fill !== undefined && fill !== null && part.length > 0 && part.length < size) part.push(fill);
  return lazy(groups.map((items) => new List(items)));
};

const DEFAULT = with_('default_value boolean', (value, bound) => {
  const missing = value instanceof Undefined || (truth(bound.value('boolean') ?? false) && !truth(value));
  return missing ? present(bound.value('default_value'), '') : value;
});

export const FILTERS: Record<string, OpenFilter> = {
  abs: with_('', (value) =>
    value instanceof Float ? new Float(Math.abs(value.value)) : Math.abs(numberOf(value) ?? Number.NaN),
  ),
  attr: with_('name', (value, bound) => {
    const name = bound.text('name');
    return value instanceof Dict && !['get', 'items', 'keys', 'values', 'copy'].includes(name)
      ? new Undefined(name)
      : attribute(value, name);
  }),
  batch: with_('linecount fill_with', (value, bound) =>
    group(value, bound.whole('linecount', 1), bound.value('fill_with')),
  ),
  capitalize: ofText(capitalized),
  center: with_('width', (value, bound) => {
    const width = bound.whole('width', 80);
    const missing = width - [...text(value)].length;
    return missing > 0 ? centered(text(value), ' ', missing, width) : text(value);
  }),
  count: with_('', length),
  length: with_('', length),
  d: DEFAULT,
  default: DEFAULT,
  dictsort: with_('case_sensitive by reverse', (value, bound) => {
    if (!(value instanceof Dict)) throw new Error(`${typeName(value)} is no dict to sort`);
    const by = bound.text('by', 'key') === 'key' ? 0 : 1;
    const sensitive = truth(bound.value('case_sensitive') ?? false);
    const key = (pair: Value) => folded((pair as List).items[by] as Value, sensitive);
    return new List(sorted(pairs(value), key, truth(bound.value('reverse') ?? false)));
  }),
  e: escaped,
  escape: escaped,
  forceescape: escaped,
  first: with_('', (value) => {
    const first = value instanceof List ? value.takeFirst() : iterate(value)[0];
    return present(first, new Undefined('the first of nothing'));
  }),
  last: with_('', (value) => {
    if (value instanceof List && value.kind === 'lazy')
      throw new Error('a generator has no last item; make it a list');
    return present(iterate(value).at(-1), new Undefined('the last of nothing'));
  }),
  float: with_('default', (value, bound) => {
    const number = typeof value === 'string' ? asFloat(value) : numberOf(value);
    return number === undefined ? present(bound.value('default'), new Float(0)) : new Float(number);
  }),
  format: (value, args, named) => {
    if (args.length > 0 && named.size > 0) throw new Error('it takes named or other arguments, not both');
    return percent(text(value), named.size > 0 ? new Dict(named) : new List([...args], 'tuple'));
  },
  indent,
  int: integer,
  items: with_('', (value) => {
    if (value instanceof Undefined) return lazy([]);
    if (!(value instanceof Dict)) throw new Error(`${typeName(value)} has no items`);
    return lazy(pairs(value));
  }),
  join: with_('d attribute', (value, bound) =>
    iterate(value)
      .map(getter(bound.value('attribute')))
      .map(text)
      .join(text(present(bound.value('d'), ''))),
  ),
  list: with_('', (value) => new List([...iterate(value)])),
  lower: ofText((value) => value.toLowerCase()),
  map,
  max: extreme(1),
  min: extreme(-1),
  reject: chosen(false, false),
  rejectattr: chosen(false, true),
  replace: with_('old new count', (value, bound) => {
    const count = bound.value('count');
    return replaced(
      text(value),
      text(bound.needed('old')),
      text(bound.needed('new')),
      count == null ? -1 : bound.whole('count', -1),
    );
  }),
  reverse: with_('', (value) =>
    typeof value === 'string' ? [...value].reverse().join('') : lazy([...iterate(value)].reverse()),
  ),
  round: with_('precision method', (value, bound) => {
    const number = numberOf(value);
    if (number === undefined) throw new Error(`${typeName(value)} is no number to round`);
    const result = rounded(number, bound.whole('precision', 0), bound.text('method', 'common'));
    return typeof value === 'number' && bound.text('method', 'common') === 'common'
      ? result
      : new Float(result);
  }),
  safe: with_('', (value) => value),
  select: chosen(true, false),
  selectattr: chosen(true, true),
  sort: with_('reverse case_sensitive attribute', (value, bound) => {
    const sensitive = truth(bound.value('case_sensitive') ?? false);
    const paths =
      bound.value('attribute') == null
        ? [getter(null)]
        : text(bound.value('attribute') as Value)
            .split(',')
            .map((path) => getter(path));
    const key = (one: Value) => new List(paths.map((get) => folded(get(one), sensitive)));
    return new List(sorted(iterate(value), key, truth(bound.value('reverse') ?? false)));
  }),
  string: with_('', text),
  sum: with_('attribute start', (value, bound) => {
    const values = iterate(value).map(getter(bound.value('attribute')));
    const all = [bound.value('start') ?? 0, ...values];
    const total = all.reduce((sum: number, one) => {
      const number = numberOf(one);
      if (number === undefined) throw new Error(`${typeName(one)} cannot be summed`);
      return sum + number;
    }, 0);
    return all.some((one) => one instanceof Float) ? new Float(total) : total;
  }),
  title: ofText((value) =>
    value
      .split(/([-\s({[<]+)/u)
      .map((part) => capitalized(part))
      .join(''),
  ),
  tojson: with_('ensure_ascii indent separators sort_keys', toJson),
  trim: with_('chars', (value, bound) =>
    stripped(text(value), bound.value('chars') == null ? undefined : bound.text('chars'), true, true),
  ),
  truncate: with_('length killwords end leeway', (value, bound) => {
    const [whole, most, end] = [text(value), bound.whole('length', 255), bound.text('end', '...')];
    if (most < end.length) throw new Error(`it cuts to ${end.length} characters at least`);
    if (whole.length <= most + bound.whole('leeway', 5)) return whole;
    const cut = whole.slice(0, most - end.length);
    if (truth(bound.value('killwords') ?? false)) return cut + end;
    const space = cut.lastIndexOf(' ');
    return (space < 0 ? cut : cut.slice(0, space)) + end;
  }),
  unique: with_('case_sensitive attribute', (value, bound) => {
    const key = getter(bound.value('attribute'));
    const sensitive = truth(bound.value('case_sensitive') ?? false);
    // A long list of texts or numbers must not take the square of its length.
    const plain = new Set<string | number>();
    const others: Value[] = [];
    return lazy(
      iterate(value).filter((one) => {
        const by = folded(key(one), sensitive);
        const simple = typeof by === 'string' ? by : numberOf(by);
        if (simple !== undefined) return plain.size < plain.add(simple).size;
        if (others.some((before) => same(before, by))) return false;
        others.push(by);
        return true;
      }),
    );
  }),
  upper: ofText((value) => value.toUpperCase()),
  wordcount: with_('', (value) => (text(value).match(/[\p{L}\p{N}_]+/gu) ?? []).length),
};

TESTS.filter = (value) => typeof value === 'string' && Object.hasOwn(FILTERS, value);

/** A filter by name, as map applies it. */
export function applyFilter(name: string, value: Value, args: readonly Value[], named: Named): Value {
  const filter = ownValue(FILTERS, name);
  if (filter === undefined) throw new Error(`there is no filter "${name}" here`);
  return filter(value, args, named);
}
