/**
 * Chains of equal things: "x = 7/9 ≈ 0.778". Names stand before, formulas and values follow, rounded values end it; what
 * is said is the value. An equation or inequality is no such chain.
 */
import type { Answer } from './answer.js';
import { symbolsOf } from './expression.js';
import type { Token } from './notation.js';
import { isRoundedFrom } from './numbers.js';

type Same = (a: Answer, b: Answer) => boolean;
type Relation = Answer & { form: 'relation' };

/**
 * What stands behind "x =", "f(x) =", "AB =", "(x, y) =", "\text{Area} =" or "x ∈": the exact value, then those that it
 * is rounded to. Of "2 + 3 = 5", where all sides are one number, the last. undefined: it is no chain, or contradicts
 * itself. With `ofNumber` the other answer is no equation, and formulas may be names.
 */
export function statedValues(answer: Answer, ofNumber: boolean, same: Same): Answer[] | undefined {
  if (answer.form !== 'relation' || !answer.signs.every((sign, i) => isLink(sign, i))) return undefined;
  const turned = turnedName(answer);
  const { signs, sides, sideTokens } = turned;
  let from = 0;
  while (from < sides.length - 1 && isName(sideTokens[from] ?? [], ofNumber)) from++;
  const values = sides.slice(from);
  const links = signs.slice(from);
  const rounded = links.indexOf('≈');
  const exact = rounded < 0 ? values : values.slice(0, rounded + 1);
  const last = exact.at(-1);
  if (last === undefined) return undefined;
  // Formulas may stand between a name and its value: A = πr² = 9π.
  const checked = from > 0 && isConstant(last) ? exact.filter(isConstant) : exact;
  if (from === 0 && !checked.every(isConstant)) return undefined;
  if (!checked.every((side) => same(last, side))) return undefined;
  const approximations = rounded < 0 ? [] : values.slice(rounded + 1);
  if (!approximations.every((side) => isApproximation(side, last))) return undefined;
  return [last, ...approximations];
}

function isLink(sign: string, place: number): boolean {
  return sign === '=' || sign === '≈' || (sign === '∈' && place === 0);
}

/** "5 = x" as "x = 5". */
function turnedName(relation: Relation): Relation {
  const { signs, sides, sideTokens } = relation;
  const [value, name] = sides;
  const turns =
    signs.length === 1 &&
    signs[0] === '=' &&
    value !== undefined &&
    name !== undefined &&
    isConstant(value) &&
    !isConstant(name) &&
    isName(sideTokens[1] ?? []);
  return turns ? { ...relation, sides: [name, value], sideTokens: [...sideTokens].reverse() } : relation;
}

function isApproximation(side: Answer, exact: Answer): boolean {
  return side.form === 'expression' && exact.form === 'expression' && isRoundedFrom(side.value, exact.value);
}

function isConstant(answer: Answer): boolean {
  return (
    answer.form === 'expression' &&
    [...symbolsOf(answer.value)].every((name) => name === 'pi' || name === 'e')
  );
}

/** The name before a value as text; "" where there is none. */
export function nameOf(answer: Answer): string {
  if (answer.form !== 'relation') return '';
  const [first = []] = turnedName(answer).sideTokens;
  const text = first.map(({ text }) => text).join(' ');
  return isName(first) ? text.replace(/\{ (\S+) \}/g, '$1') : '';
}

/** Whether two names cannot be those of one thing: x and y, f(x) and g(x), \\sin A and \\cos A, but not y and f(x). */
export function contradict(got: Answer, right: Answer): boolean {
  const [a, b] = [nameOf(got), nameOf(right)];
  if (a === '' || b === '' || a === b || letters(a) === letters(b)) return false;
  const [kind, other] = [kindOf(got), kindOf(right)];
  return kind === other && !/WW|\(.*,/.test(kind);
}

/** AB is BA. */
function letters(name: string): string {
  return [...name].sort().join('');
}

function kindOf(answer: Answer): string {
  const [first = []] = answer.form === 'relation' ? turnedName(answer).sideTokens : [];
  return pattern(first)
    .replace(/[{}]/g, '')
    .replace(/C/g, 'L')
    .replace(/N/g, '1')
    .replace(/sin|cos|tan|cot|sec|csc/g, 'F');
}

/** Kinds of tokens as letters: C and L for capital and other letters, W for words, 1 and N for numbers. */
function pattern(tokens: readonly Token[]): string {
  const kinds = tokens.map(({ kind, text }) => {
    if (kind === 'word') return 'W';
    if (kind === 'number') return text === '1' ? '1' : 'N';
    if (kind !== 'letter') return text;
    if (/^(?:pi|infinity|empty)$/.test(text)) return '∞';
    return /^[A-Z]$/.test(text) ? 'C' : 'L';
  });
  return kinds.join('');
}

const SCRIPT = String.raw`(?:_(?:\{[^{}]*\}|[LCWN1]|max|min))?'*`;
const DECORATED = String.raw`(?:overline|vec|hat|bar|widehat|tilde)(?:\{[LC]+\}|[LC])`;
const SHAPE = String.raw`(?:L?angle|triangle|odot)(?:\{[LC]{1,4}\}|[LC]{1,4})`;
const HEAD = `(?:W+|[LC]${SCRIPT}|C{2,4}|${DECORATED}|${SHAPE})`;
const GROUP = String.raw`(?:\((?:[^()]|\([^()]*\))*\)|\[[^[\]]*\])`;
const ANGLE = `(?:N?[LC]{1,3}|${SHAPE}|${GROUP})`;
/** Nothing that is computed: f(x), P(X = 2), f^{-1}(x), AB, |AB|, \angle ABC, (x, y), \sin A, \gcd(10, 15). */
const NAME = new RegExp(
  String.raw`^(?:W+:)?(?:${HEAD}(?:\^\{?-1\}?)?${GROUP}?|\|[^|]+\||‖[^‖]+‖|${DECORATED}\*${DECORATED}|\((?:${HEAD},)+${HEAD}\)` +
    String.raw`|(?:sin|cos|tan|cot|sec|csc)${ANGLE}|(?:gcd|lcm|max|min|deg|dim|det|Pr|arg)${GROUP}|\[C{3,4}\])$`,
);

/** What is computed, but can only be the name of a number that stands alone: a + b = 5, \\lim f(x) = 5. */
const FORMULA = new RegExp(
  String.raw`^(?:[LC]${SCRIPT}(?:[+-][LC]${SCRIPT})+|frac\{[LC]{1,2}\}\{[LC]{1,2}\}|(?:lim|int|sum|prod)[_^].+)$`,
);

function isName(tokens: readonly Token[], ofNumber = false): boolean {
  if (tokens.length === 0 || tokens.length > 20) return false;
  return NAME.test(pattern(tokens)) || (ofNumber && FORMULA.test(pattern(tokens)));
}
