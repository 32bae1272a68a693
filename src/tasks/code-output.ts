/**
 * Whether a program printed what it should. As LiveCodeBench and DeepCoder do it: the same number of lines, each
 * equal without the space around it, or number by number. As Codeforces, APPS and TACO do it, and stricter than
 * they: a real number may be off by 1e-6, or by 1e-9 of it if that is more and less than its last digit. Whole
 * numbers are exact.
 */

const ABSOLUTE = 1e-6;
const RELATIVE = 1e-9;
/** Less than the whole, as floating point numbers have it. */
const ALMOST = 0.9;
/** Nothing is not near to 1e-7. */
const SMALL_SHARE = 0.01;

export function sameOutput(right: string, got: string): boolean {
  const [a, b] = [stripped(right), stripped(got)];
  return a.length === b.length && a.every((line, i) => sameLine(line, b[i] ?? ''));
}

function stripped(text: string): string[] {
  return text
    .trim()
    .split('\n')
    .map((line) => line.trim());
}

/** Space counts only beside words: "1  2" is "1 2", "a  b" is not "a b". */
function sameLine(right: string, got: string): boolean {
  if (right === got) return true;
  const [a, b] = [right.split(/\s+/), got.split(/\s+/)];
  if (a.length !== b.length) return false;
  if (a.every((word) => decimal(word) !== undefined))
    return a.every((word, i) => sameNumber(word, b[i] ?? ''));
  if (right.replace(/\S+/g, '.') !== got.replace(/\S+/g, '.')) return false;
  return a.every(
    (word, i) => word === b[i] || (isReal(word) && isReal(b[i]) && sameNumber(word, b[i] ?? '')),
  );
}

/** Equal as decimals ("1.50" and "1.5", "1000" and "1e3"), or near where the right one is real. */
function sameNumber(right: string, got: string): boolean {
  const [a, b] = [decimal(right), decimal(got)];
  if (a === undefined || b === undefined) return false;
  if (a === b) return true;
  const [x, y] = [Number(right), Number(got)];
  const [error, size] = [Math.abs(x - y), Math.abs(x)];
  if (!isReal(right) || !Number.isFinite(size)) return false;
  const allowed = Math.max(ABSOLUTE, Math.min(RELATIVE * size, ALMOST * lastDigit(right)));
  return error <= allowed && (size === 0 || error <= SMALL_SHARE * size);
}

/** What one in the last digit of a decimal is worth; no limit where it is written with a power of ten. */
function lastDigit(text: string): number {
  const fraction = /^[^eE]*\.(\d*)$/.exec(text)?.[1];
  return fraction === undefined ? Number.POSITIVE_INFINITY : 10 ** -fraction.length;
}

/** Whether text is a number with a fraction or a power of ten. */
function isReal(text: string | undefined): boolean {
  return text !== undefined && /[.eE]/.test(text) && decimal(text) !== undefined;
}

/**
 * A decimal number in one form: sign, digits without zeros at the ends, and a power of ten. Undefined for what is no
 * number, and for whole numbers with zeros before them: those are written for the eye, such as 007.
 */
function decimal(text: string): string | undefined {
  const match = /^([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d{1,9}))?$/.exec(text);
  const [, sign = '', whole = '', fraction = '', exponent = '0'] = match ?? [];
  const digits = `${whole}${fraction}`;
  if (match === null || digits === '' || /^0\d+$/.test(whole)) return undefined;
  const leading = digits.replace(/^0+/, '');
  let end = leading.length;
  while (end > 0 && leading[end - 1] === '0') end--;
  if (end === 0) return '0';
  const power = Number(exponent) - fraction.length + (leading.length - end);
  return `${sign === '-' ? '-' : ''}${leading.slice(0, end)}e${power}`;
}
