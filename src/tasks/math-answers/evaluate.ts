/**
 * Whether two expressions are equal. Rational functions of their variables are: both are computed exactly, as complex
 * rationals, at random points (Schwartz 1980, Zippel 1979; 48 random bits a variable, three points), with π and e as
 * variables too, since they are transcendental. Where roots or functions stand in the way, values are computed to more
 * digits than numbers of the expressions' size can agree in by chance.
 */
import { createHash } from 'node:crypto';
import { arithmetic, type Complex, type DecimalClass, decimalOperation, type Real } from './complex.js';
import type { Exact } from './exact.js';
import * as exact from './exact.js';
import { type Expression, type Operation, symbolsOf } from './expression.js';

/** Exact, or a complex floating point number. */
export type Value = Exact | Complex;

/** Nothing is computed beyond this size of expression: digits of its numbers times its powers. */
const TALLEST = 400;
const POINTS = 3;
const TRIES = 8;
/** Points at which functions are compared that are made of pieces. */
const PIECES = 48;

const CONSTANTS = new Set(['pi', 'e']);

/** Whether both are the same number or function. undefined: it cannot be computed. */
export function equalExpressions(a: Expression, b: Expression): boolean | undefined {
  const symbols = [...symbolsOf(b, symbolsOf(a))].sort();
  const random = pointsOf(
    JSON.stringify([a, b], (_, value) => (typeof value === 'bigint' ? `${value}` : value)),
  );
  if (symbols.length > 0 && (isPiecewise(a) || isPiecewise(b))) {
    // One rational function here and another there: they change near the numbers that they are written with.
    const near = [0n, ...numbersOf(a), ...numbersOf(b)];
    const small = (): Exact => {
      const place = near[Number(random() % BigInt(near.length))] ?? 0n;
      return {
        over: 64n * (random() % 2n === 0n ? place : -place) + (random() % 193n) - 96n,
        imag: 0n,
        under: 64n,
      };
    };
    if (equalExactly(a, b, symbols, small, PIECES) === false) return false;
  }
  const whole = (value: bigint): Exact => exact.integer(value);
  return (
    equalExactly(a, b, symbols, () => whole(signed(random())), POINTS) ??
    // Factorials and powers of variables have a value at small whole numbers only.
    (symbols.length > 0 ? equalExactly(a, b, symbols, () => whole(random() % 31n), 2 * POINTS) : undefined) ??
    equalDecimally(a, b, symbols, random)
  );
}

function signed(random: bigint): bigint {
  return (random >> 8n) % 2n === 0n ? random : -random;
}

/** The whole numbers in it, as far as they are small. */
function numbersOf(expression: Expression): bigint[] {
  if (expression.op === 'symbol') return [];
  if (expression.op !== 'number') return expression.of.flatMap(numbersOf);
  const { over, under } = expression.value;
  return over < 10_000n * under ? [over / under] : [];
}

/** Whether it is made of |x|, ⌊x⌋, ⌈x⌉ or √(x²). */
function isPiecewise(expression: Expression): boolean {
  if (expression.op === 'number' || expression.op === 'symbol') return false;
  const [, exponent] = expression.of;
  const whole = exponent?.op === 'number' && exact.toInteger(exponent.value) !== undefined;
  if (expression.op === 'power' ? !whole : PIECEWISE.has(expression.op)) return true;
  return expression.of.some(isPiecewise);
}
const PIECEWISE = new Set<string>(['absolute', 'floor', 'ceil', 'root']);

/** undefined: not rational functions, or without a value at too many points. */
function equalExactly(
  a: Expression,
  b: Expression,
  symbols: string[],
  random: () => Exact,
  points: number,
): boolean | undefined {
  const budget = { steps: MOST_STEPS };
  let agreed = 0;
  for (let i = 0; i < 3 * points && agreed < points; i++) {
    const at = new Map(symbols.map((name) => [name, random()] as const));
    const context = { at, budget };
    const [x, y] = [evaluate(a, context), evaluate(b, context)];
    if (x === undefined || y === undefined) {
      if (symbols.length === 0) return undefined;
      continue;
    }
    if (!('over' in x) || !('over' in y)) return undefined;
    if (!exact.equal(x, y)) return false;
    if (symbols.length === 0) return true;
    agreed++;
  }
  return agreed === points ? true : undefined;
}

function equalDecimally(
  a: Expression,
  b: Expression,
  symbols: string[],
  random: () => bigint,
): boolean | undefined {
  const size = height(a) + height(b);
  if (size > TALLEST) return undefined;
  const digits = 50 + 2 * Math.ceil(size);
  const Big = arithmetic(digits);
  const variables = symbols.filter((name) => !CONSTANTS.has(name));
  const budget = { steps: MOST_STEPS };
  const tolerance = new Big(10).pow(20 - digits);
  let agreed = 0;
  for (let i = 0; i < (variables.length === 0 ? 1 : TRIES); i++) {
    // Between 1 and 17, where roots and logarithms of sums are real mostly, then with signs.
    const at = new Map(
      variables.map((name) => {
        const over = (random() % 4096n) + 257n;
        return [name, { over: i % 2 === 0 ? over : signed(over), imag: 0n, under: 256n }] as const;
      }),
    );
    const context = { at, Big, budget };
    const [x, y] = [evaluate(a, context), evaluate(b, context)];
    if (x === undefined || y === undefined) continue;
    const [p, q] = [toComplex(x, Big), toComplex(y, Big)];
    const scale = Big.max(p.re.abs(), q.re.abs(), p.im.abs(), q.im.abs());
    const distance = Big.max(p.re.minus(q.re).abs(), p.im.minus(q.im).abs());
    if (distance.gt(scale.times(tolerance)) && distance.gt(tolerance)) return false;
    agreed++;
  }
  return agreed >= (variables.length === 0 ? 1 : POINTS) ? true : undefined;
}

/** The real value of an expression without variables, to `digits` digits; undefined where it has none. */
export function realValue(expression: Expression, digits: number): Real | undefined {
  if (height(expression) > TALLEST) return undefined;
  const Big = arithmetic(digits + Math.ceil(height(expression)));
  const value = evaluate(expression, { at: new Map(), Big, budget: { steps: MOST_STEPS } });
  if (value === undefined) return undefined;
  const { re, im } = toComplex(value, Big);
  return im.isZero() ? re : undefined;
}

/** The exact value of an expression without variables, where it is rational. */
export function exactValue(expression: Expression): Exact | undefined {
  const value = evaluate(expression, { at: new Map(), budget: { steps: MOST_STEPS } });
  return value !== undefined && 'over' in value ? value : undefined;
}

/** Random numbers of 48 bits that are a function of the two expressions, so that grading repeats. */
function pointsOf(seed: string): () => bigint {
  let block = createHash('sha256').update(seed).digest();
  let used = 0;
  return () => {
    if (used + 6 > block.length) {
      block = createHash('sha256').update(block).digest();
      used = 0;
    }
    used += 6;
    return BigInt(block.readUIntBE(used - 6, 6)) + 2n;
  };
}

/**
 * Decimal digits that the expression's numbers can need: two different values of it are not closer than about ten to
 * minus this.
 */
function height(expression: Expression): number {
  if (expression.op === 'number') {
    return (expression.value.over.toString(16).length + expression.value.under.toString(16).length) * 1.21;
  }
  if (expression.op === 'symbol') return 4;
  const [first, second] = expression.of;
  if (expression.op === 'power' && first !== undefined && second !== undefined) {
    const exponent = second.op === 'number' ? second : second.op === 'negate' ? second.of[0] : undefined;
    const times =
      exponent?.op === 'number' ? Math.abs(Number(exponent.value.over) / Number(exponent.value.under)) : 1;
    return height(first) * Math.max(1, times) + height(second);
  }
  return expression.of.reduce((sum, part) => sum + height(part), 1);
}

function toComplex(value: Value, Big: DecimalClass): Complex {
  if (!('over' in value)) return value;
  const under = new Big(value.under.toString());
  return {
    re: new Big(value.over.toString()).div(under),
    im: new Big(value.imag.toString()).div(under),
  };
}

/** Where an expression is computed, and what that may still cost. */
interface Context {
  at: ReadonlyMap<string, Exact>;
  /** Without it, exact values only. */
  Big?: DecimalClass;
  budget: Budget;
}
/** Expressions are hostile: what costs more than this many steps has no value. */
interface Budget {
  steps: number;
}
const MOST_STEPS = 8000;

function isZero(value: Value | undefined): boolean {
  if (value === undefined) return false;
  return 'over' in value ? exact.isZero(value) : value.re.isZero() && value.im.isZero();
}

function isNegative(value: Value): boolean {
  return 'over' in value ? value.imag === 0n && value.over < 0n : value.im.isZero() && value.re.isNegative();
}

/** undefined: no finite value, or none that is computed here. */
function evaluate(expression: Expression, context: Context): Value | undefined {
  const { at, Big } = context;
  if (expression.op === 'number') return expression.value;
  if (expression.op === 'symbol') {
    const value = at.get(expression.name);
    if (value !== undefined || Big === undefined) return value;
    if (expression.name === 'pi') return { re: Big.acos(-1), im: new Big(0) };
    return expression.name === 'e' ? { re: Big.exp(1), im: new Big(0) } : undefined;
  }
  const parts: Value[] = [];
  for (const part of expression.of) {
    const value = evaluate(part, context);
    if (value === undefined) return undefined;
    parts.push(value);
  }
  context.budget.steps -= cost(expression.op, parts, Big);
  if (context.budget.steps < 0) return undefined;
  const exactly = parts.every((part) => 'over' in part)
    ? exactOperation(expression.op, parts as Exact[])
    : undefined;
  if (exactly !== undefined || Big === undefined) return exactly;
  // Of a function of variables only real values count: √(ab) = √a √b where those are real.
  if (expression.op === 'root' && at.size > 0 && parts[0] !== undefined && isNegative(parts[0]))
    return undefined;
  try {
    const value = decimalOperation(
      expression.op,
      parts.map((part) => toComplex(part, Big)),
      Big,
    );
    const finite = value?.re.isFinite() && value.im.isFinite();
    // A power that is too small for decimal.js is not zero.
    const lost = expression.op === 'power' && value !== undefined && isZero(value) && !isZero(parts[0]);
    return finite && !lost ? value : undefined;
  } catch {
    // decimal.js throws where its precision of π ends.
    return undefined;
  }
}

/** In units of about a microsecond. */
function cost(op: Operation, parts: Value[], Big: DecimalClass | undefined): number {
  const exactly = parts.every((part) => 'over' in part);
  if (exactly) {
    const size = parts.reduce((sum, part) => sum + ('over' in part ? exact.size(part) : 0), 0);
    if (op === 'factorial' || op === 'binomial') return size > 32 ? 1000 : 10;
    return op === 'power' || op === 'root' ? 5 + size / 20 : 1 + size / 200;
  }
  const digits = Big?.precision ?? 0;
  if (op === 'add' || op === 'negate' || op === 'multiply') return 1 + digits / 25;
  return op === 'divide' ? 2 + digits / 10 : 50 + digits ** 2 / 20;
}

function exactOperation(op: Operation, parts: Exact[]): Exact | undefined {
  const [a = exact.ONE, b = exact.ONE] = parts;
  const divided = (): Exact | undefined => {
    const inverse = exact.inverse(b);
    return inverse === undefined ? undefined : exact.multiply(a, inverse);
  };
  switch (op) {
    case 'add':
      return parts.reduce<Exact | undefined>(
        (sum, part) => (sum === undefined ? undefined : exact.add(sum, part)),
        exact.integer(0n),
      );
    case 'multiply':
      return exact.multiply(a, b);
    case 'divide':
      return divided();
    case 'negate':
      return exact.negate(a);
    case 'power':
      return exactPower(a, b);
    case 'root': {
      const order = exact.toInteger(b);
      return order === undefined ? undefined : exact.root(a, order);
    }
    case 'factorial':
      return exact.factorial(a);
    case 'binomial':
      return exact.binomial(a, b);
    case 'absolute':
      return a.imag === 0n ? { ...a, over: a.over < 0n ? -a.over : a.over } : undefined;
    case 'floor':
      return a.imag === 0n ? exact.integer(floor(a)) : undefined;
    case 'ceil':
      return a.imag === 0n ? exact.integer(-floor(exact.negate(a))) : undefined;
    case 'log':
      return exactLog(a, b);
    default:
      return undefined;
  }
}

function floor(a: Exact): bigint {
  const whole = a.over / a.under;
  return a.over < 0n && whole * a.under !== a.over ? whole - 1n : whole;
}

function exactPower(base: Exact, exponent: Exact): Exact | undefined {
  const whole = exact.toInteger(exponent);
  if (whole !== undefined) return exact.power(base, whole);
  if (exponent.imag !== 0n || base.over < 0n) return undefined;
  const simple = exponent.under / divisor(exponent.over, exponent.under);
  const rooted = exact.root(base, simple);
  return rooted === undefined ? undefined : exact.power(rooted, (exponent.over * simple) / exponent.under);
}

function divisor(a: bigint, b: bigint): bigint {
  let [x, y] = [a < 0n ? -a : a, b];
  // Exponents are short: long ones have no root that is computed here.
  for (let i = 0; y !== 0n && i < 200; i++) [x, y] = [y, x % y];
  return x === 0n ? 1n : x;
}

/** Of powers of the base: \log_2 8. */
function exactLog(of: Exact, base: Exact): Exact | undefined {
  const [value, root] = [exact.toInteger(of), exact.toInteger(base)];
  if (value === undefined || root === undefined || root < 2n || value < 1n) return undefined;
  let power = 1n;
  for (let times = 0n; times < 4096n && power <= value; times++) {
    if (power === value) return exact.integer(times);
    power *= root;
  }
  return undefined;
}
