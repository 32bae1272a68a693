/** Operators between values, as Python's. */
import { percent } from './format.js';
import {
  compare,
  contains,
  Float,
  List,
  numberOf,
  same,
  text,
  typeName,
  Undefined,
  type Value,
  whole,
} from './values.js';

export function comparison(operator: string, a: Value, b: Value): boolean {
  switch (operator) {
    case '==':
      return same(a, b);
    case '!=':
      return !same(a, b);
    case 'in':
      return contains(b, a);
    case 'not in':
      return !contains(b, a);
  }
  const order = compare(a, b);
  if (operator === '<') return order < 0;
  if (operator === '>') return order > 0;
  return operator === '<=' ? order <= 0 : order >= 0;
}

export function arithmetic(operator: string, a: Value, b: Value): Value {
  if (operator === '~') return text(a) + text(b);
  if (a instanceof Undefined) a.fail();
  if (b instanceof Undefined) b.fail();
  if (operator === '%' && typeof a === 'string') return percent(a, b);
  if (operator === '+' && typeof a === 'string' && typeof b === 'string') return a + b;
  if (operator === '+' && a instanceof List && b instanceof List && a.kind === b.kind && a.kind !== 'lazy') {
    return new List([...a.items, ...b.items], a.kind);
  }
  const [x, y] = [numberOf(a), numberOf(b)];
  if (operator === '*') {
    if (x === undefined && typeof b === 'number') return repeated(a, b);
    if (y === undefined && typeof a === 'number') return repeated(b, a);
  }
  if (x === undefined || y === undefined)
    throw new Error(`"${operator}" stands between ${typeName(a)} and ${typeName(b)}`);
  const float = a instanceof Float || b instanceof Float || operator === '/' || (operator === '**' && y < 0);
  const result = calculated(operator, x, y);
  return float ? new Float(result) : whole(result);
}

function calculated(operator: string, x: number, y: number): number {
  if (y === 0 && ['/', '//', '%'].includes(operator)) throw new Error('a division by zero');
  switch (operator) {
    case '+':
      return x + y;
    case '-':
      return x - y;
    case '*':
      return x * y;
    case '/':
      return x / y;
    case '//':
      return Math.floor(x / y);
    case '%':
      return x - y * Math.floor(x / y);
    default: {
      const power = x ** y;
      if (!Number.isFinite(power)) throw new Error(`${x} ** ${y} is no number that is counted here`);
      return power;
    }
  }
}

/** Characters or items that a repetition may make. */
const LONGEST = 2 ** 20;

function repeated(value: Value, times: number): Value {
  const count = Math.max(0, times);
  const size = typeof value === 'string' ? value.length : value instanceof List ? value.items.length : 0;
  if (size * count > LONGEST) throw new Error('it makes texts or lists without end');
  if (typeof value === 'string') return value.repeat(count);
  if (value instanceof List && (value.kind === 'list' || value.kind === 'tuple')) {
    return new List(Array.from({ length: count }, () => value.items).flat(), value.kind);
  }
  throw new Error(`${typeName(value)} cannot be repeated`);
}
