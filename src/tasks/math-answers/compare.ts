/**
 * Whether an answer says the same as the right one. The right answer sets the standard: where it has no unit or name,
 * the answer may have one; where it is exact, the answer is equal exactly; where it is a decimal, to its digits.
 */
import { type Answer, parseAnswer } from './answer.js';
import { equalExpressions } from './evaluate.js';
import { type Expression, symbolsOf } from './expression.js';
import { parseExpression } from './grammar.js';
import { asIntervals, type Interval } from './intervals.js';
import { contradict, nameOf, statedValues } from './names.js';
import { type Token, tokensOf } from './notation.js';
import { sameNumber, unevaluated } from './numbers.js';
import { singular } from './vocabulary.js';

/** Characters of an answer that is more than its text. */
const LONGEST = 1000;
/** Parts of a list that is compared in any order. */
const LARGEST_SET = 30;

/** Whether `got`, the content of a box, says the same as `right`. Hostile texts end within milliseconds. */
export function sameAnswer(got: string, right: string): boolean {
  if (got.length > LONGEST || right.length > LONGEST) return got.trim() === right.trim();
  const [a, b] = [tokensOf(got), tokensOf(right)];
  if (a === undefined || b === undefined || a.length === 0 || b.length === 0) return false;
  const choice = sameChoice(a, b);
  if (choice !== undefined) return choice;
  return same(parseAnswer(a), parseAnswer(b), 0);
}

/** "E", "(E)", "E.", "(E) 42", "E: forty-two": the letter, and what is said behind it. */
function choiceOf(all: Token[]): { letter: string; rest: Token[] } | undefined {
  const said = all[0]?.text ?? '';
  const close = all.findIndex(({ text }) => text === '}');
  const grouped = said === '{' ? all.filter((_, i) => i > 0 && i !== close) : all;
  const tokens = /^(?:option|choice|answer)$/.test(said) ? all.slice(1) : grouped;
  const texts = tokens.map(({ text }) => text);
  const at = texts[0] === '(' ? 1 : 0;
  const letter = texts[at] ?? '';
  if (tokens[at]?.kind !== 'letter' || !/^[A-J]$/.test(letter)) return undefined;
  const behind = texts[at + 1];
  if (at === 1 ? behind !== ')' : behind !== undefined && !['.', ')', ':'].includes(behind)) return undefined;
  const rest = tokens.slice(at + 2).filter(({ text }, i) => i > 0 || !/^[.,:;]$/.test(text));
  const others = rest.some(
    ({ text, kind }) => text === 'or' || text === 'and' || (kind === 'letter' && /^[A-J]$/.test(text)),
  );
  return others ? undefined : { letter, rest };
}

/** undefined: the right answer is no choice. */
function sameChoice(got: Token[], right: Token[]): boolean | undefined {
  const choice = choiceOf(right);
  if (choice === undefined) return undefined;
  const answered = choiceOf(got);
  if (answered !== undefined) {
    if (answered.letter !== choice.letter) return false;
    return (
      choice.rest.length === 0 ||
      answered.rest.length === 0 ||
      same(parseAnswer(answered.rest), parseAnswer(choice.rest), 0)
    );
  }
  return choice.rest.length > 0 ? same(parseAnswer(got), parseAnswer(choice.rest), 0) : undefined;
}

function same(got: Answer, right: Answer, depth: number): boolean {
  if (depth > 8) return false;
  const [values, rights] = [valuesOf(got, right), valuesOf(right, got)];
  if (values !== undefined || rights !== undefined) {
    if (contradict(got, right)) return false;
    const [a, b] = [values ?? [got], rights ?? [right]];
    if (a.some((one) => b.some((other) => same(one, other, depth + 1)))) return true;
  }
  return sameForm(onlyElement(got), onlyElement(right), depth + 1);
}

/** What an answer with a name or an approximation says, beside another one. */
function valuesOf(answer: Answer, other?: Answer): Answer[] | undefined {
  const ofNumber = other?.form === 'expression';
  return statedValues(answer, ofNumber, (a, b) => same(a, b, 6));
}

/** {5} is 5. */
function onlyElement(answer: Answer): Answer {
  const [first, ...others] = answer.form === 'sequence' && answer.open === '\\{' ? answer.parts : [];
  return first !== undefined && others.length === 0 && !isEmpty(first) ? first : answer;
}

function sameForm(a: Answer, b: Answer, depth: number): boolean {
  if (sameIntervals(a, b, depth)) return true;
  if (a.form === 'relation' || b.form === 'relation') return sameRelation(a, b, depth);
  if ((a.form === 'words' || a.form === 'expression') && (b.form === 'words' || b.form === 'expression')) {
    const said = wordsOf(b.tokens);
    if (said !== '' && wordsOf(a.tokens) === said) return true;
    // HTH and ABC are names, no products.
    const [x, y] = [capitals(a.tokens), capitals(b.tokens)];
    if (x !== '' && y !== '') return x === y;
  }
  if (a.form === 'expression' && b.form === 'expression') return sameQuantity(a, b);
  if (a.form === 'sequence' && b.form === 'sequence') return sameSequence(a, b, depth);
  if (b.form === 'union') return sameSet(intervalsIn(a), b.parts, depth);
  if (a.form === 'ratio' && b.form === 'ratio') return inOrder(a.parts, b.parts, depth);
  if (a.form === 'matrix' && b.form === 'matrix') {
    return (
      a.determinant === b.determinant &&
      a.rows.length === b.rows.length &&
      a.rows.every((row, i) => inOrder(row, b.rows[i] ?? [], depth))
    );
  }
  return sameOdd(a, b);
}

/** The parts of a union, also one that is written as a list: (−∞, 1) or (3, ∞). */
function intervalsIn(answer: Answer): Answer[] {
  if (answer.form === 'union') return answer.parts;
  return answer.form === 'sequence' && answer.open === '' ? answer.parts : [answer];
}

/** Forms that differ, but may say the same: an empty set, all real numbers. */
function sameOdd(a: Answer, b: Answer): boolean {
  return (isReals(a) && isReals(b)) || (isEmpty(a) && isEmpty(b));
}

/** ℝ, or (−∞, ∞). */
function isReals(answer: Answer): boolean {
  const [low, high] = answer.form === 'sequence' ? answer.parts : [];
  if (low === undefined || high === undefined) return isSymbol(answer, 'mathbb R');
  const brackets = answer.form === 'sequence' && `${answer.open}${answer.close}`;
  return brackets === '()' && isMinusInfinity(low) && isSymbol(high, 'infinity');
}

function isMinusInfinity(answer: Answer): boolean {
  const of = answer.form === 'expression' && answer.value.op === 'negate' ? answer.value.of[0] : undefined;
  return of?.op === 'symbol' && of.name === 'infinity';
}

function isEmpty(answer: Answer): boolean {
  return (
    isSymbol(answer, 'empty') ||
    (answer.form === 'sequence' && answer.open === '\\{' && answer.parts.length === 0)
  );
}

function isSymbol(answer: Answer, name: string): boolean {
  return answer.form === 'expression' && answer.value.op === 'symbol' && answer.value.name === name;
}

/** Where one of them is written with inequalities; intervals in brackets are compared as sequences. */
function sameIntervals(got: Answer, right: Answer, depth: number): boolean {
  if (got.form === right.form && got.form !== 'relation') return false;
  const [a, b] = [asIntervals(got), asIntervals(right)];
  if (a === undefined || b === undefined || a.length !== b.length) return false;
  const left = [...b];
  return a.every((interval) => {
    const found = left.findIndex((candidate) => sameInterval(interval, candidate, depth));
    if (found >= 0) left.splice(found, 1);
    return found >= 0;
  });
}

function sameInterval(got: Interval, right: Interval, depth: number): boolean {
  const named = got.name === '' || right.name === '' || got.name === right.name;
  return named && got.ends === right.ends && inOrder(got.bounds, right.bounds, depth);
}

function inOrder(got: Answer[], right: Answer[], depth: number): boolean {
  return got.length === right.length && got.every((part, i) => same(part, right[i] as Answer, depth));
}

/** In any order; each part of one stands for one part of the other. */
function sameSet(got: Answer[], right: Answer[], depth: number): boolean {
  if (got.length !== right.length || got.length > LARGEST_SET) return false;
  const left = [...right];
  return got.every((part) => {
    const found = left.findIndex((candidate) => same(part, candidate, depth));
    if (found >= 0) left.splice(found, 1);
    return found >= 0;
  });
}

type Sequence = Answer & { form: 'sequence' };

function sameSequence(got: Sequence, right: Sequence, depth: number): boolean {
  const [a, b] = [withoutSharedName(got.parts), withoutSharedName(right.parts)];
  const unordered = (open: string): boolean => open === '' || open === '\\{';
  if (hasNames(a) !== hasNames(b)) {
    // x = 1, y = 2 is (1, 2), and of the list 2, 1 nobody can tell.
    const [named, other] = hasNames(a) ? [got, right] : [right, got];
    return /^(?:|\(|\\\{)$/.test(named.open) && /^\(?$/.test(other.open) && inOrder(a, b, depth);
  }
  if (unordered(got.open) && unordered(right.open)) return sameSet(a, b, depth);
  return got.open === right.open && got.close === right.close && inOrder(a, b, depth);
}

/** "n = 2, 3, 4" names the whole list. */
function withoutSharedName(parts: Answer[]): Answer[] {
  const [first, ...others] = parts;
  if (first?.form !== 'relation' || others.some(({ form }) => form === 'relation')) return parts;
  const [value] = valuesOf(first) ?? [];
  return value === undefined ? parts : [value, ...others];
}

/** Whether the parts are values of different things: x = 1, y = 2, but not x_1 = 1, x_2 = 2. */
function hasNames(parts: Answer[]): boolean {
  const names = parts.map((part) => (valuesOf(part) === undefined ? '' : nameOf(part).split(' _ ')[0]));
  return parts.length > 1 && !names.includes('') && new Set(names).size > 1;
}

function sameRelation(got: Answer, right: Answer, depth: number): boolean {
  if (got.form !== 'relation' || right.form !== 'relation') return false;
  const signs = got.signs.join(' ') === right.signs.join(' ');
  if (signs && inOrder(got.sides, right.sides, depth)) return true;
  if (got.signs.length !== 1 || !signs || !['=', '≠'].includes(got.signs[0] ?? '')) return false;
  if (inOrder([...got.sides].reverse(), right.sides, depth)) return true;
  return sameEquation(got.sideTokens, right.sideTokens);
}

/** l = r and l' = r' are one equation if (l − r)(l'₀ − r'₀) = (l' − r')(l₀ − r₀), ₀ being some fixed other point. */
function sameEquation(got: Token[][], right: Token[][]): boolean {
  const [a, b] = [difference(got), difference(right)];
  if (a === undefined || b === undefined) return false;
  const [x, y] = [[...symbolsOf(a)].sort(), [...symbolsOf(b)].sort()];
  if (x.length === 0 || x.join(' ') !== y.join(' ')) return false;
  const moved = (of: Expression): Expression =>
    substitute(of, new Map(x.map((name, i) => [name, 1009 + 37 * i])));
  const proportional = equalExpressions(
    { op: 'multiply', of: [a, moved(b)] },
    { op: 'multiply', of: [b, moved(a)] },
  );
  const zero: Expression = { op: 'number', value: { over: 0n, imag: 0n, under: 1n } };
  return (
    proportional === true && equalExpressions(a, zero) === false && equalExpressions(moved(a), zero) === false
  );
}

function difference([left, right]: Token[][]): Expression | undefined {
  const [l, r] = [parseExpression(left ?? []), parseExpression(right ?? [])];
  return l && r && { op: 'add', of: [l, { op: 'negate', of: [r] }] };
}

function substitute(expression: Expression, values: ReadonlyMap<string, number>): Expression {
  if (expression.op === 'number') return expression;
  if (expression.op !== 'symbol')
    return { ...expression, of: expression.of.map((part) => substitute(part, values)) };
  const value = values.get(expression.name);
  return value === undefined
    ? expression
    : { op: 'number', value: { over: BigInt(value), imag: 0n, under: 1n } };
}

type Quantity = Answer & { form: 'expression' };

function sameQuantity(got: Quantity, right: Quantity): boolean {
  if (!maybeSameUnit(got.unit.name, right.unit.name)) return false;
  if (unevaluated(got.value, right.value)) return false;
  const angle = degrees(got, right);
  if (angle !== undefined) return angle;
  return samePercent(got, right);
}

/** A unit that is left out is any; 20° may be degrees of any kind. */
function maybeSameUnit(a: string, b: string): boolean {
  const kind = (name: string): string => name.replace(/ [CFK]$/, '');
  return a === '' || b === '' || a === b || (kind(a) === kind(b) && (kind(a) === a || kind(b) === b));
}

/** One in degrees, the other in radians with π: 45° and π/4. */
function degrees(got: Quantity, right: Quantity): boolean | undefined {
  const inDegrees = got.unit.name === 'degree';
  if (inDegrees === (right.unit.name === 'degree')) return undefined;
  const [angle, other] = inDegrees ? [got, right] : [right, got];
  if (!symbolsOf(other.value).has('pi')) return undefined;
  const turned: Expression = {
    op: 'divide',
    of: [
      { op: 'multiply', of: [angle.value, { op: 'symbol', name: 'pi' }] },
      { op: 'number', value: { over: 180n, imag: 0n, under: 1n } },
    ],
  };
  return equalExpressions(turned, other.value) === true;
}

/** 50 % is 50 of percent, and a half; 0.5 % is not 0.5. */
function samePercent(got: Quantity, right: Quantity): boolean {
  if (got.unit.percent === right.unit.percent) return sameNumber(got.value, right.value);
  const hundredth = (value: Expression): Expression => ({
    op: 'divide',
    of: [value, { op: 'number', value: { over: 100n, imag: 0n, under: 1n } }],
  });
  if (right.unit.percent)
    return sameNumber(got.value, right.value) || sameNumber(got.value, hundredth(right.value));
  if (sameNumber(hundredth(got.value), right.value)) return true;
  const one: Expression = { op: 'number', value: { over: 1n, imag: 0n, under: 1n } };
  return isAbove(right.value, one) && sameNumber(got.value, right.value);
}

function isAbove(value: Expression, bound: Expression): boolean {
  return (
    value.op === 'number' && bound.op === 'number' && value.value.over > value.value.under * bound.value.over
  );
}

/** A run of two and more capitals, also where it is one word, in lower case; "" for anything else. */
function capitals(tokens: Token[]): string {
  const isRun =
    tokens.length > 1 && tokens.every(({ text, spaced }, i) => /^[A-Z]$/.test(text) && (i === 0 || !spaced));
  if (isRun) return tokens.map(({ text }) => text.toLowerCase()).join('');
  return tokens.length === 1 && tokens[0]?.kind === 'word' ? tokens[0].text : '';
}

/** Tokens in one spelling: words in the singular and without articles, braces only where they say what they group. */
function wordsOf(tokens: Token[]): string {
  return tokens
    .filter((token, i) => !isUnsaid(token, i, tokens))
    .map(({ text, kind }) => (kind === 'word' ? singular(text.replace(/[’']/g, '')) : text))
    .join(' ');
}

function isUnsaid({ kind, text }: Token, at: number, tokens: Token[]): boolean {
  if (kind === 'word') return /^(?:a|an|the)$/.test(text);
  if (kind !== 'sign') return false;
  if (/^["“”]$/.test(text)) return true;
  if (text === '.') return tokens[at - 1]?.kind === 'word' || tokens[at - 1]?.kind === 'letter';
  // {x} is x.
  return (text === '{' && tokens[at + 2]?.text === '}') || (text === '}' && tokens[at - 2]?.text === '{');
}
