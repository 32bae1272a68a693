/** Inequalities as intervals: x < 3 is (−∞, 3), −1 ≤ x < 2 is [−1, 2). */
import type { Answer } from './answer.js';
import { realValue } from './evaluate.js';
import type { Expression } from './expression.js';

export interface Interval {
  /** Of the variable; "" for an interval in brackets. */
  name: string;
  /** Lower and upper. */
  bounds: Answer[];
  /** Brackets, e.g. "[)". */
  ends: string;
}

const INFINITY: Expression = { op: 'symbol', name: 'infinity' };
const MINUS_INFINITY: Expression = { op: 'negate', of: [INFINITY] };

function quantity(value: Expression): Answer {
  return { form: 'expression', value, unit: { percent: false, name: '' }, tokens: [] };
}

/**
 * The intervals that a set of real numbers is made of: of a union, of "x < 1 or x > 3", of x ≠ 2, of ℝ \ {2} and of
 * {x | x > 3}. undefined: it is no such set.
 */
export function asIntervals(answer: Answer): Interval[] | undefined {
  const single = asInterval(answer);
  if (single !== undefined) return [single];
  if (answer.form === 'union') return all(answer.parts.map(asIntervals));
  if (
    answer.form === 'sequence' &&
    answer.open === '' &&
    answer.parts.every(({ form }) => form === 'relation')
  ) {
    return all(answer.parts.map(asIntervals));
  }
  return answer.form === 'relation' ? without(answer) : undefined;
}

function all(parts: (Interval[] | undefined)[]): Interval[] | undefined {
  return parts.every((part) => part !== undefined) ? parts.flat() : undefined;
}

/** All real numbers but some: x ≠ 2, ℝ \\ {1, 2}, ℝ − {1}. */
function without(answer: Answer & { form: 'relation' }): Interval[] | undefined {
  const { signs, sides } = answer;
  const [left, right] = sides;
  if (signs.length !== 1 || left === undefined || right === undefined) return undefined;
  const name = variable(left);
  if (name === undefined) return undefined;
  if (signs[0] === '≠') return between(elements(right, ['', '\\{']), name);
  return signs[0] === 'setminus' && name === 'mathbb R' ? between(elements(right, ['\\{']), '') : undefined;
}

function elements(answer: Answer, open: string[]): Answer[] {
  if (answer.form === 'sequence') return open.includes(answer.open) ? answer.parts : [];
  return open.includes('') ? [answer] : [];
}

/** The intervals between holes. */
function between(holes: Answer[], name: string): Interval[] | undefined {
  const sorted = holes.length > 1 ? inOrder(holes) : holes;
  if (sorted === undefined || sorted.length === 0) return undefined;
  const bounds = [quantity(MINUS_INFINITY), ...sorted, quantity(INFINITY)];
  return sorted
    .concat(quantity(INFINITY))
    .map((_, i) => ({ name, bounds: bounds.slice(i, i + 2), ends: '()' }));
}

/** From small to large. undefined: not all are numbers. */
function inOrder(numbers: Answer[]): Answer[] | undefined {
  const values = numbers.map((number) =>
    number.form === 'expression' ? realValue(number.value, 30) : undefined,
  );
  if (values.includes(undefined)) return undefined;
  const places = numbers.map((_, i) => i).sort((i, j) => values[i]?.cmp(values[j] ?? 0) ?? 0);
  return places.flatMap((i) => numbers[i] ?? []);
}

/** undefined: not an interval with constant bounds. */
function asInterval(answer: Answer): Interval | undefined {
  if (answer.form === 'sequence') {
    const brackets = `${answer.open}${answer.close}`;
    if (answer.parts.length !== 2 || !/^[([][)\]]$/.test(brackets)) return undefined;
    return { name: '', bounds: answer.parts, ends: brackets };
  }
  if (answer.form !== 'relation') return undefined;
  const { sides, signs } = answer;
  if (!signs.every((sign) => /^[<≤]$/.test(sign)) && !signs.every((sign) => /^[>≥]$/.test(sign)))
    return undefined;
  const down = /^[>≥]$/.test(signs[0] ?? '');
  const ordered = down ? [...sides].reverse() : sides;
  const orderedSigns = down ? [...signs].reverse() : signs;
  return fromChain(
    ordered,
    orderedSigns.map((sign) => sign === '≤' || sign === '≥'),
  );
}

/** Sides from small to large; `closed`: whether the sign between them allows equality. */
function fromChain(sides: Answer[], closed: boolean[]): Interval | undefined {
  const [a, b, c] = sides;
  if (a === undefined || b === undefined) return undefined;
  const [first, second] = [variable(a), variable(b)];
  if (c !== undefined) {
    if (sides.length > 3 || second === undefined) return undefined;
    return { name: second, bounds: [a, c], ends: `${closed[0] ? '[' : '('}${closed[1] ? ']' : ')'}` };
  }
  if ((first === undefined) === (second === undefined)) return undefined;
  if (first !== undefined) {
    return { name: first, bounds: [quantity(MINUS_INFINITY), b], ends: closed[0] ? '(]' : '()' };
  }
  return { name: second ?? '', bounds: [a, quantity(INFINITY)], ends: closed[0] ? '[)' : '()' };
}

function variable(answer: Answer): string | undefined {
  return answer.form === 'expression' &&
    answer.value.op === 'symbol' &&
    !/infinity|^pi$|^e$/.test(answer.value.name)
    ? answer.value.name
    : undefined;
}
