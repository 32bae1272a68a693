/**
 * Whether an answer says the same as the right one. The right answer sets the standard: where it has no unit or name,
 * the answer may have one; where it is exact, the answer is equal exactly; where it is a decimal, to its digits.
 */
import { type Answer, parseAnswer } from './answer.js';
import { equalExpressions } from './evaluate.js';
import { type Expression, parseExpression, symbolsOf } from './expression.js';
import { asIntervals, type Interval } from './intervals.js';
import { type Token, tokensOf } from './notation.js';
import { sameNumber, unevaluated } from './numbers.js';
import { singular } from './vocabulary.js';

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
function choiceOf(tokens: Token[]): { letter: string; rest: Token[] } | undefined {
  const texts = tokens.map(({ text }) => text);
  const at = texts[0] === '(' ? 1 : 0;
  const letter = texts[at] ?? '';
  if (tokens[at]?.kind !== 'letter' || !/^[A-J]$/.test(letter)) return undefined;
  const behind = texts[at + 1];
  if (at === 1 ? behind !== ')' : behind !== undefined && !['.', ')', ':'].includes(behind)) return undefined;
  const rest = tokens.slice(at + 2).filter(({ text }, i) => i > 0 || !/^[.:]$/.test(text));
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
  if (spelling(got) === spelling(right) && spelling(right) !== '') return true;
  const [a, b] = unnamed(got, right);
  if (sameIntervals(a, b, depth + 1)) return true;
  if (a.form === 'relation' || b.form === 'relation') return sameRelation(a, b, depth + 1);
  if (a.form === 'expression' && b.form === 'expression') return sameQuantity(a, b);
  if (a.form === 'sequence' && b.form === 'sequence') return sameSequence(a, b, depth + 1);
  if (a.form === 'union' && b.form === 'union') return sameSet(a.parts, b.parts, depth + 1);
  if (a.form === 'ratio' && b.form === 'ratio') return inOrder(a.parts, b.parts, depth + 1);
  if (a.form === 'matrix' && b.form === 'matrix') {
    return (
      a.determinant === b.determinant &&
      a.rows.length === b.rows.length &&
      a.rows.every((row, i) => inOrder(row, b.rows[i] ?? [], depth + 1))
    );
  }
  return sameOdd(a, b);
}

/** Forms that differ, but may say the same: an empty set, a set of one element, all real numbers. */
function sameOdd(a: Answer, b: Answer): boolean {
  const [x, y] = [spelling(a), spelling(b)];
  const everything = (text: string): boolean => text === 'mathbb R' || text === '( - infinity , infinity )';
  const nothing = (text: string): boolean => text === 'empty' || text === '\\{ \\}';
  return (everything(x) && everything(y)) || (nothing(x) && nothing(y));
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

function sameSequence(
  got: Answer & { form: 'sequence' },
  right: Answer & { form: 'sequence' },
  depth: number,
): boolean {
  const unordered = (open: string): boolean => open === '' || open === '\\{';
  if (unordered(got.open) && unordered(right.open)) {
    return sameSet(withoutRepeatedName(got.parts), withoutRepeatedName(right.parts), depth);
  }
  return got.open === right.open && got.close === right.close && inOrder(got.parts, right.parts, depth);
}

/** "n = 2, 3, 4" names the whole list. */
function withoutRepeatedName(parts: Answer[]): Answer[] {
  const [first, ...others] = parts;
  if (first?.form !== 'relation' || others.some(({ form }) => form === 'relation')) return parts;
  const value = namedValue(first);
  return value === undefined ? parts : [value, ...others];
}

/** Both without the name before them, where the names do not contradict each other. */
function unnamed(got: Answer, right: Answer): [Answer, Answer] {
  const [a, b] = [namedValue(got), namedValue(right)];
  if (a !== undefined && b !== undefined) {
    const [x, y] = [nameOf(got), nameOf(right)];
    const letters = /^[A-Za-z]$|^[a-z]+$/;
    return x === y || !letters.test(x) || !letters.test(y) ? [a, b] : [got, right];
  }
  if (a !== undefined && right.form !== 'relation') return [a, right];
  if (b !== undefined && got.form !== 'relation') return [got, b];
  return [got, right];
}

function nameOf(answer: Answer): string {
  return answer.form === 'relation' ? (answer.sideTokens[0] ?? []).map(({ text }) => text).join(' ') : '';
}

/**
 * What stands behind "x =", "f(x) =", "AB =", "(x, y) =", "\text{Area} =" or "x ∈"; of "2 + 3 = 5", where all sides
 * are one number, the last. undefined: it is an equation of its own, or an inequality.
 */
function namedValue(answer: Answer): Answer | undefined {
  if (answer.form !== 'relation') return undefined;
  const { signs, sides, sideTokens } = answer;
  const last = sides.at(-1);
  if (last === undefined || (signs[0] !== '=' && signs[0] !== '∈' && signs[0] !== '≈')) return undefined;
  if (signs.slice(1).some((sign) => sign !== '=')) return undefined;
  const values = isName(sideTokens[0] ?? []) ? sides.slice(1) : sides;
  if (values.length === sides.length && !values.every((side) => isConstant(side))) return undefined;
  return values.every((side) => same(last, side, 5)) ? last : undefined;
}

function isConstant(answer: Answer): boolean {
  return answer.form === 'expression' && symbolsOf(answer.value).size === 0;
}

/** A letter or word, f(x), P(A), AB, |AB|, \overline{AB}, \angle ABC, (x, y): nothing that is computed. */
function isName(tokens: Token[]): boolean {
  const texts = withoutSubscripts(tokens);
  if (tokens.length === 0 || tokens.length > 14) return false;
  if (tokens.every(({ kind }) => kind === 'word')) return true;
  const letters = texts.filter((text) => /^(?:[a-zA-Z]|[a-zA-Z][a-z]+)$/.test(text)).length;
  const plain = tokens.every(
    ({ kind, text }) =>
      kind === 'letter' ||
      kind === 'word' ||
      /^(?:[(),|{}_'^]|overline|angle|triangle|vec|\d{1,3}|-1)$/.test(text),
  );
  if (!plain || letters === 0) return false;
  if (texts[0] === '(' && texts.at(-1) === ')') return texts.includes(',');
  // x^2 and 2x are computed; f^{-1}(x), a_2 and f(2) are names.
  const text = texts.join('');
  return (
    !/^\d|[A-Za-z]\^\d|\^\{\d/.test(text) &&
    (letters <= 1 || /^[A-Z|(]|^overline|^angle|^triangle|^vec|^[a-zA-Z]+(?:'|_\{?\w+\}?)*\(/.test(text))
  );
}

/** a_n and S_{10} are names of one letter. */
function withoutSubscripts(tokens: Token[]): string[] {
  const text = tokens.map(({ text }) => text).join(' ');
  return text.replace(/ _ (?:\{ [^{}]* \}|\S+)/g, '').split(' ');
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
  if (right.unit.name !== '' && got.unit.name !== '' && got.unit.name !== right.unit.name) return false;
  if (unevaluated(got.value, right.value)) return false;
  const angle = degrees(got, right);
  if (angle !== undefined) return angle;
  return samePercent(got, right);
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

/** The tokens in one spelling: words in lower case and in the singular, braces and spaces gone. */
function spelling(answer: Answer): string {
  switch (answer.form) {
    case 'words':
      return words(answer.tokens);
    case 'sequence':
      return [answer.open, ...answer.parts.map(spelling).join(' , ').split(' '), answer.close]
        .filter(Boolean)
        .join(' ');
    case 'expression':
      return answer.unit.name === '' && !answer.unit.percent ? words(answer.tokens) : '';
    default:
      return '';
  }
}

function words(tokens: Token[]): string {
  return tokens
    .filter(
      ({ text, kind }) =>
        !(kind === 'sign' && /^[{}.]$/.test(text)) && !/^(?:a|an|the)$/.test(kind === 'word' ? text : ''),
    )
    .map(({ text, kind }) => (kind === 'word' ? singular(text.replace(/[’']/g, '')) : text))
    .join(' ');
}
