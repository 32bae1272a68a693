/**
 * Exact numbers a + b i with rational a and b, as (over + imag · i) / under. They are not reduced: equality is by
 * cross multiplication, which costs less than a common divisor. Size is bounded, since answers are hostile.
 */

export interface Exact {
  over: bigint;
  imag: bigint;
  /** Above zero. */
  under: bigint;
}

/** Bits of numerator and denominator together: 1/2006! has 19,000. */
const LARGEST_BITS = 40_000;
const LARGEST_FACTORIAL = 3000n;

export function integer(value: bigint): Exact {
  return { over: value, imag: 0n, under: 1n };
}

export const ONE = integer(1n);
export const IMAGINARY: Exact = { over: 0n, imag: 1n, under: 1n };

function bits(value: bigint): number {
  return value.toString(16).length * 4;
}

/** Bits of its parts. */
export function size(a: Exact): number {
  return bits(a.over) + bits(a.imag) + bits(a.under);
}

/** undefined: too large to be computed exactly. */
function bounded(value: Exact): Exact | undefined {
  return size(value) > LARGEST_BITS ? undefined : value;
}

export function add(a: Exact, b: Exact): Exact | undefined {
  if (a.under === b.under) return bounded({ over: a.over + b.over, imag: a.imag + b.imag, under: a.under });
  return bounded({
    over: a.over * b.under + b.over * a.under,
    imag: a.imag * b.under + b.imag * a.under,
    under: a.under * b.under,
  });
}

export function negate(a: Exact): Exact {
  return { over: -a.over, imag: -a.imag, under: a.under };
}

export function multiply(a: Exact, b: Exact): Exact | undefined {
  return bounded({
    over: a.over * b.over - a.imag * b.imag,
    imag: a.over * b.imag + a.imag * b.over,
    under: a.under * b.under,
  });
}

/** undefined for zero. */
export function inverse(a: Exact): Exact | undefined {
  if (a.imag === 0n) {
    if (a.over === 0n) return undefined;
    const sign = a.over < 0n ? -1n : 1n;
    return { over: sign * a.under, imag: 0n, under: sign * a.over };
  }
  const norm = a.over * a.over + a.imag * a.imag;
  return bounded({ over: a.under * a.over, imag: -a.under * a.imag, under: norm });
}

export function power(base: Exact, exponent: bigint): Exact | undefined {
  const times = exponent < 0n ? -exponent : exponent;
  if (times > BigInt(LARGEST_BITS)) return isOne(base) ? base : undefined;
  let result: Exact | undefined = ONE;
  let square: Exact | undefined = base;
  for (let left = times; left > 0n; left >>= 1n) {
    if (square === undefined || result === undefined) return undefined;
    if ((left & 1n) === 1n) result = multiply(result, square);
    if (left > 1n) square = multiply(square, square);
  }
  return result === undefined || exponent >= 0n ? result : inverse(result);
}

function isOne(a: Exact): boolean {
  return a.imag === 0n && a.over === a.under;
}

export function isZero(a: Exact): boolean {
  return a.over === 0n && a.imag === 0n;
}

export function equal(a: Exact, b: Exact): boolean {
  return a.over * b.under === b.over * a.under && a.imag * b.under === b.imag * a.under;
}

/** The integer that the number is, or undefined. */
export function toInteger(a: Exact): bigint | undefined {
  return a.imag === 0n && a.over % a.under === 0n ? a.over / a.under : undefined;
}

/** The real root of that order where it is rational; a negative number has an imaginary square root. */
export function root(of: Exact, order: bigint): Exact | undefined {
  if (of.imag !== 0n || order < 1n || order > 64n) return undefined;
  if (of.over < 0n) {
    const positive = root(negate(of), order);
    if (positive === undefined) return undefined;
    if (order % 2n === 1n) return negate(positive);
    return order === 2n ? multiply(positive, IMAGINARY) : undefined;
  }
  // Over a common divisor of the unreduced fraction the parts need not be powers: (a / b) = (a bⁿ⁻¹) / bⁿ.
  const whole = of.over * of.under ** (order - 1n);
  if (bits(whole) > LARGEST_BITS) return undefined;
  const found = integerRoot(whole, order);
  return found ** order === whole ? { over: found, imag: 0n, under: of.under } : undefined;
}

/** ⌊value^(1/order)⌋ by Newton's method from above. */
function integerRoot(value: bigint, order: bigint): bigint {
  if (value < 2n) return value;
  let guess = 1n << (BigInt(value.toString(2).length) / order + 1n);
  for (;;) {
    const next = ((order - 1n) * guess + value / guess ** (order - 1n)) / order;
    if (next >= guess) return guess;
    guess = next;
  }
}

export function factorial(of: Exact): Exact | undefined {
  const n = toInteger(of);
  if (n === undefined || n < 0n || n > LARGEST_FACTORIAL) return undefined;
  let value = 1n;
  for (let i = 2n; i <= n; i++) value *= i;
  return bounded(integer(value));
}

export function binomial(n: Exact, k: Exact): Exact | undefined {
  const [from, choose] = [toInteger(n), toInteger(k)];
  if (from === undefined || choose === undefined || from < 0n || from > LARGEST_FACTORIAL) return undefined;
  if (choose < 0n || choose > from) return integer(0n);
  let value = 1n;
  for (let i = 1n; i <= choose; i++) value = (value * (from - choose + i)) / i;
  return bounded(integer(value));
}

/** As it is written: "12", "0.50", "1.5e3". */
export function decimal(digits: string): Exact {
  const [mantissa = '', exponent = '0'] = digits.split(/[eE]/);
  const [whole = '', fraction = ''] = mantissa.split('.');
  const shift = Number(exponent) - fraction.length;
  const over = BigInt(`${whole}${fraction}` || '0');
  const scale = 10n ** BigInt(Math.abs(shift));
  return shift < 0 ? { over, imag: 0n, under: scale } : integer(over * scale);
}
