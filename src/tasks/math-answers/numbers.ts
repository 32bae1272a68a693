/** Equality of numbers as answers: exact where the right one is exact, to its digits where it is a decimal. */
import { equalExpressions, exactValue, realValue } from './evaluate.js';
import type { Exact } from './exact.js';
import { type Expression, symbolsOf } from './expression.js';

/** Significant digits from which on a decimal stands for a right answer that no decimal can write. */
const ENOUGH_DIGITS = 7;
/** Digits behind the point from which on a right decimal is taken for a rounded number. */
const ROUNDED_DECIMALS = 2;

/** Whether `got` is the number or function that `right` is. */
export function sameNumber(got: Expression, right: Expression): boolean {
  const equal = equalExpressions(got, right);
  if (equal === true) return true;
  if (!isConstant(got) || !isConstant(right)) return false;
  const [a, b] = [exactValue(got), exactValue(right)];
  if (b === undefined && a !== undefined) return isDecimal(got) && standsFor(got, right);
  const decimals = decimalsOf(right);
  if (b === undefined || decimals === undefined || decimals < ROUNDED_DECIMALS) return false;
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

function isDecimal(expression: Expression): boolean {
  return decimalsOf(expression) !== undefined;
}

/** A decimal of enough digits that is rounded, or cut off, rightly. */
function standsFor(got: Expression, right: Expression): boolean {
  const [a, b] = [realValue(got, 60), realValue(right, 60)];
  const decimals = decimalsOf(got);
  if (a === undefined || b === undefined || decimals === undefined) return false;
  const digits = a.abs().toFixed(decimals).replace('.', '').replace(/^0+/, '').length;
  return (
    digits >= ENOUGH_DIGITS &&
    a
      .minus(b)
      .abs()
      .times(10 ** Math.min(decimals, 300))
      .lt(1)
  );
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
  if (expression.op === 'multiply' && isScientific(expression.of)) return 0;
  return inside + 1;
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
