/** Texts with gaps: Python's % and str.format, as far as templates use them. */
import { LARGEST } from './arguments.js';
import {
  Dict,
  Float,
  floatText,
  List,
  type Named,
  numberOf,
  repr,
  text,
  typeName,
  type Value,
} from './values.js';

const PERCENT = /%(?:\(([^)]*)\))?([-+ #0]*)(\d+)?(?:\.(\d+))?([a-zA-Z%])/g;

/** `template % values`. */
export function percent(template: string, values: Value): string {
  const list = values instanceof List && values.kind === 'tuple' ? [...values.items] : [values];
  let used = 0;
  const next = (name: string | undefined): Value => {
    if (name !== undefined) {
      const value = values instanceof Dict ? values.get(name) : undefined;
      if (value === undefined) throw new Error(`"${name}" has no value to be put in`);
      used = list.length;
      return value;
    }
    if (used >= list.length) throw new Error('there are fewer values than gaps');
    return list[used++] as Value;
  };
  const found = template.replace(PERCENT, (_, name, flags: string, width, digits, kind: string) => {
    if (kind === '%') return '%';
    return padded(
      converted(next(name), kind, digits === undefined ? undefined : Number(digits), flags),
      flags,
      Number(width ?? 0),
    );
  });
  if (template.replace(PERCENT, '').includes('%')) throw new Error('a "%" stands alone');
  if (used < list.length && !(values instanceof Dict)) throw new Error('there are more values than gaps');
  return found;
}

function converted(value: Value, kind: string, digits: number | undefined, flags: string): string {
  if (kind === 's' || kind === 'r') {
    const whole = kind === 's' ? text(value) : repr(value);
    return digits === undefined ? whole : [...whole].slice(0, digits).join('');
  }
  const number = numberOf(value);
  if (number === undefined) throw new Error(`${typeName(value)} is no number for %${kind}`);
  if ((digits ?? 0) > LARGEST) throw new Error(`${digits} digits; the most are ${LARGEST}`);
  const sign = number < 0 ? '-' : flags.includes('+') ? '+' : flags.includes(' ') ? ' ' : '';
  const size = Math.abs(number);
  switch (kind) {
    case 'd':
    case 'i':
      return sign + String(Math.trunc(size)).padStart(digits ?? 0, '0');
    case 'f':
      return sign + size.toFixed(digits ?? 6);
    case 'x':
      return sign + Math.trunc(size).toString(16);
    default:
      throw new Error(`%${kind} is not written here`);
  }
}

function padded(value: string, flags: string, width: number): string {
  if (width > LARGEST) throw new Error(`a width of ${width}; the largest is ${LARGEST}`);
  if (flags.includes('-')) return value.padEnd(width);
  if (!flags.includes('0')) return value.padStart(width);
  const sign = /^[-+ ]/.test(value) ? value.charAt(0) : '';
  return sign + value.slice(sign.length).padStart(width - sign.length, '0');
}

/** `template.format(…)` with plain gaps: {}, {0}, {name}, {:.2f}, {:5}. */
export function formatted(template: string, args: readonly Value[], named: Named): string {
  let next = 0;
  return template.replace(/\{\{|\}\}|\{(\w*)(?::([^{}]*))?\}|[{}]/g, (gap, name?: string, spec = '') => {
    if (gap === '{{' || gap === '}}') return gap.charAt(0);
    if (name === undefined)
      throw new Error('a brace stands alone, or a gap is not one of those that are filled here');
    const value = name === '' ? args[next++] : /^\d+$/.test(name) ? args[Number(name)] : named.get(name);
    if (value === undefined) throw new Error(`the gap ${gap} has no value`);
    return specified(value, spec);
  });
}

function specified(value: Value, spec: string): string {
  if (spec === '') return text(value);
  const parts = /^(0?)(\d*)(?:\.(\d+)f)?$/.exec(spec);
  const number = numberOf(value);
  if (parts === null || number === undefined) throw new Error(`the format "${spec}" is not written here`);
  const [, zero = '', width = '', digits] = parts;
  const plain =
    digits !== undefined
      ? number.toFixed(Number(digits))
      : value instanceof Float
        ? floatText(number)
        : String(number);
  return padded(plain, zero, Number(width || 0));
}
