/** Equality of numbers as answers: exact where the right one is exact, to its digits where it is a decimal. */
import { equalExpressions, exactValue, realValue } from './evaluate.js';
import type { Exact } from './exact.js';
import { type Expression, symbolsOf } from './expression.js';

/** Significant digits from which on a decimal stands for a right answer that no decimal can write. */
const ENOUGH_DIGITS = 7;
/** Digits, and digits behind the point, from which on a right decimal is taken for a rounded number. */
const ROUNDED_DIGITS = 2;

/** Whether `got` is the number or function that `right` is. */
export function sameNumber(got: Expression, right: Expression): boolean {
  const equal = equalExpressions(got, right);
  if (equal === true) return true;
  if (!isConstant(got) || !isConstant(right)) return false;
  const [a, b] = [exactValue(got), exactValue(right)];
  if (b === undefined && a !== undefined) return standsFor(got, right);
  const decimals = decimalsOf(right);
  if (b === undefined || decimals === undefined || !looksRounded(b, decimals)) return false;
  // A fraction that no decimal writes, or a root: right if it rounds to the right decimal.
  if (a !== undefined && isFiniteDecimal(a)) return false;
  return roundsTo(got, b, decimals);
}

function isConstant(expression: Expression): boolean {
  return [...symbolsOf(expression)].every((name) => name === 'pi' || name === 'e');
}

/** Digits behind the point of a decimal with or without a sign. */
function decimalsOf(expression: Expression): number | undefined {
  if (expression.op === 'number') return expression.decimals;
  return expression.op === 'negate' && expression.of[0] ? decimalsOf(expression.of[0]) : undefined;
}

/** A decimal of enough digits that is rounded, or cut off, rightly. */
function standsFor(got: Expression, right: Expression): boolean {
  return digitsOf(got) >= ENOUGH_DIGITS && isShortened(got, right);
}

/** Whether a decimal is what is left of a value that is rounded or cut off; one digit proves nothing. */
export function isRoundedFrom(decimal: Expression, value: Expression): boolean {
  return equalExpressions(decimal, value) === true || (digitsOf(decimal) > 1 && isShortened(decimal, value));
}

function isShortened(decimal: Expression, value: Expression): boolean {
  const decimals = decimalsOf(decimal);
  if (decimals === undefined || !isConstant(value)) return false;
  const [a, b] = [realValue(decimal, 60), realValue(value, 60)];
  if (a === undefined || b === undefined || decimals > 300) return false;
  return a.eq(b.toDecimalPlaces(decimals, TO_NEAREST)) || a.eq(b.toDecimalPlaces(decimals, TOWARDS_ZERO));
}

/** Rounding of decimal.js. */
const [TOWARDS_ZERO, TO_NEAREST] = [1, 4] as const;

/** Significant digits of a decimal as it is written. */
function digitsOf(decimal: Expression): number {
  const decimals = decimalsOf(decimal);
  const value = decimals === undefined ? undefined : exactValue(decimal);
  if (value === undefined || decimals === undefined) return 0;
  return String((value.over * 10n ** BigInt(decimals)) / value.under).replace(/^-/, '').length;
}

/** 0.67, but not 0.70 or 0.07, which are as likely exact. */
function looksRounded(value: Exact, decimals: number): boolean {
  const digits = String((value.over * 10n ** BigInt(decimals)) / value.under).replace(/^-/, '');
  const zeros = digits.length - digits.replace(/0+$/, '').length;
  return decimals - zeros >= ROUNDED_DIGITS && digits.length >= ROUNDED_DIGITS;
}

function isFiniteDecimal(value: Exact): boolean {
  // Nobody writes such a number; it is not taken for a rounded one either.
  if (value.under.toString(16).length > 100) return true;
  if (value.imag !== 0n) return false;
  let under = value.under;
  let over = value.over < 0n ? -value.over : value.over;
  for (let [x, y] = [over, under]; ; ) {
    if (y === 0n) {
      [over, under] = [over / x, under / x];
      break;
    }
    [x, y] = [y, x % y];
  }
  while (under % 2n === 0n) under /= 2n;
  while (under % 5n === 0n) under /= 5n;
  return under === 1n;
}

function roundsTo(got: Expression, right: Exact, decimals: number): boolean {
  const value = realValue(got, 60);
  if (value === undefined || right.imag !== 0n) return false;
  const wanted = (Number(right.over) / Number(right.under)).toFixed(Math.min(decimals, 15));
  return decimals <= 15 && value.toFixed(decimals) === wanted;
}

/**
 * Whether an answer leaves to the reader what the right one has worked out: a sum of whole numbers, or more than one
 * operation, where the right answer is a number. A fraction, mixed number, root or power is a way to write one.
 */
export function unevaluated(got: Expression, right: Expression): boolean {
  return operations(right) === 0 && isConstant(right) && isConstant(got) && operations(got) > 1;
}

function operations(expression: Expression): number {
  if (expression.op === 'number' || expression.op === 'symbol') return 0;
  const inside = expression.of.reduce((sum, part) => sum + operations(part), 0);
  if (expression.op === 'negate' || expression.op === 'divide') return inside;
  if (expression.op === 'add') return inside + (isMixed(expression.of) ? 0 : 2);
  if (expression.op === 'multiply' && (isScientific(expression.of) || isMultiple(expression.of))) return 0;
  return inside + 1;
}

/** 2π */
function isMultiple([a, b]: Expression[]): boolean {
  return a?.op === 'number' ? b?.op === 'symbol' : a?.op === 'symbol' && b?.op === 'number';
}

/** 3 + 1/2 */
function isMixed(terms: Expression[]): boolean {
  const [whole, fraction] = terms;
  const part = fraction?.op === 'negate' ? fraction.of[0] : fraction;
  if (terms.length !== 2 || whole?.op !== 'number' || part?.op !== 'divide') return false;
  const [over, under] = part.of;
  return (
    over?.op === 'number' &&
    under?.op === 'number' &&
    over.value.over * under.value.under < under.value.over * over.value.under
  );
}

/** 6.02 · 10^23 */
function isScientific(factors: Expression[]): boolean {
  const [mantissa, scale] = factors;
  if (mantissa?.op !== 'number' || scale?.op !== 'power') return false;
  const [base] = scale.of;
  return base?.op === 'number' && base.value.over === 10n && base.value.under === 1n;
}
