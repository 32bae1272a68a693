/** Operations on complex floating point numbers of any precision (decimal.js), as expressions need them. */
import { Decimal } from 'decimal.js';
import type { Operation } from './expression.js';

export type Real = InstanceType<typeof Decimal>;
export type DecimalClass = typeof Decimal;
export type Complex = { re: Real; im: Real };

/** Decimal arithmetic at a precision. Its exponents are kept small, so that towers of powers are infinite at once. */
export function arithmetic(digits: number): DecimalClass {
  return Decimal.clone({
    precision: digits,
    maxE: 100_000,
    minE: -100_000,
    toExpPos: 100_000,
    toExpNeg: -100_000,
  });
}

/** undefined: no value, or none that is computed here. */
export function decimalOperation(op: Operation, parts: Complex[], Big: DecimalClass): Complex | undefined {
  const zero = new Big(0);
  const [a = { re: zero, im: zero }, b = { re: zero, im: zero }] = parts;
  if (op === 'add') {
    return parts.reduce((sum, part) => ({ re: sum.re.plus(part.re), im: sum.im.plus(part.im) }), {
      re: zero,
      im: zero,
    });
  }
  if (op === 'negate') return { re: a.re.neg(), im: a.im.neg() };
  if (op === 'multiply') return times(a, b);
  if (op === 'divide') return over(a, b);
  if (op === 'power') return raised(a, b, Big);
  if (op === 'root') return rooted(a, b, Big);
  if (!a.im.isZero() || !b.im.isZero()) {
    return op === 'absolute' ? { re: a.re.pow(2).plus(a.im.pow(2)).sqrt(), im: zero } : undefined;
  }
  const re = realOperation(op, a.re, b.re, Big);
  return re === undefined ? undefined : { re, im: zero };
}

function times(a: Complex, b: Complex): Complex {
  return {
    re: a.re.times(b.re).minus(a.im.times(b.im)),
    im: a.re.times(b.im).plus(a.im.times(b.re)),
  };
}

function over(a: Complex, b: Complex): Complex | undefined {
  const norm = b.re.pow(2).plus(b.im.pow(2));
  if (norm.isZero()) return undefined;
  const { re, im } = times(a, { re: b.re, im: b.im.neg() });
  return { re: re.div(norm), im: im.div(norm) };
}

/** Of a positive base to a complex power, or of any base to a whole one. */
function raised(base: Complex, exponent: Complex, Big: DecimalClass): Complex | undefined {
  const zero = new Big(0);
  if (exponent.im.isZero() && exponent.re.isInteger() && exponent.re.abs().lt(1000) && !base.im.isZero()) {
    let result: Complex = { re: new Big(1), im: zero };
    for (let i = 0; i < exponent.re.abs().toNumber(); i++) result = times(result, base);
    return exponent.re.isNegative() ? over({ re: new Big(1), im: zero }, result) : result;
  }
  if (!base.im.isZero()) return undefined;
  if (exponent.im.isZero()) {
    const re = base.re.pow(exponent.re);
    return re.isNaN() ? undefined : { re, im: zero };
  }
  if (!base.re.isPositive() || base.re.isZero() || exponent.im.abs().gt(1e6)) return undefined;
  const angle = exponent.im.times(base.re.ln());
  const length = base.re.pow(exponent.re);
  return { re: length.times(angle.cos()), im: length.times(angle.sin()) };
}

/** Odd roots of negative numbers are real, as in the data sets; square roots of them are imaginary. */
function rooted(of: Complex, order: Complex, Big: DecimalClass): Complex | undefined {
  const zero = new Big(0);
  const n = order.re;
  if (!of.im.isZero() || !order.im.isZero() || n.isZero()) return undefined;
  const size = of.re.abs();
  const positive = n.eq(2) ? size.sqrt() : n.eq(3) ? size.cbrt() : size.pow(new Big(1).div(n));
  if (!of.re.isNegative() || of.re.isZero()) return { re: positive, im: zero };
  if (!n.isInteger()) return undefined;
  if (!n.mod(2).isZero()) return { re: positive.neg(), im: zero };
  return n.eq(2) ? { re: zero, im: positive } : undefined;
}

const REAL_FUNCTIONS: Record<string, (x: Real, Big: DecimalClass) => Real> = {
  'apply:sin': (x) => x.sin(),
  'apply:cos': (x) => x.cos(),
  'apply:tan': (x) => x.tan(),
  'apply:cot': (x, Big) => new Big(1).div(x.tan()),
  'apply:sec': (x, Big) => new Big(1).div(x.cos()),
  'apply:csc': (x, Big) => new Big(1).div(x.sin()),
  'apply:arcsin': (x) => x.asin(),
  'apply:arccos': (x) => x.acos(),
  'apply:arctan': (x) => x.atan(),
  'apply:sinh': (x) => x.sinh(),
  'apply:cosh': (x) => x.cosh(),
  'apply:tanh': (x) => x.tanh(),
  'apply:ln': (x) => x.ln(),
};
/** Beyond, decimal.js needs long for the remainder by π. */
const LARGEST_ANGLE = 1e9;

function realOperation(op: Operation, a: Real, b: Real, Big: DecimalClass): Real | undefined {
  if (op === 'log') return b.gt(0) && !b.eq(1) ? a.ln().div(b.ln()) : undefined;
  if (op === 'absolute') return a.abs();
  if (op === 'floor') return a.floor();
  if (op === 'ceil') return a.ceil();
  const apply = REAL_FUNCTIONS[op];
  if (apply === undefined || a.abs().gt(LARGEST_ANGLE)) return undefined;
  const value = apply(a, Big);
  return value.isNaN() ? undefined : value;
}
