/** The operations that generated mini-programs chain: how they are named, said, written in Python, and done. */
import type { Random } from './random.js';

type Value = number | number[];

export interface Operation {
  /** "add 3" */
  name: string;
  /** "adds 3" */
  said: string;
  takes: 'number' | 'list';
  gives: 'number' | 'list';
  /** Python for the result, given Python for the value. */
  code(value: string): string;
  apply(value: Value): Value;
}

type Make = (random: Random) => Operation;

function onNumber(
  name: string,
  said: string,
  code: Operation['code'],
  apply: (x: number) => number,
): Operation {
  return { name, said, takes: 'number', gives: 'number', code, apply: (value) => apply(value as number) };
}

function onList<T extends Value>(
  name: string,
  said: string,
  code: Operation['code'],
  gives: 'number' | 'list',
  apply: (list: number[]) => T,
): Operation {
  return { name, said, takes: 'list', gives, code, apply: (value) => apply(value as number[]) };
}

/** Brackets what is not a single name or bracketed already. */
function factor(code: string): string {
  return /^\w+$/.test(code) ? code : `(${code})`;
}

const NUMBER: readonly Make[] = [
  (random) => {
    const k = random.integer(1, 20);
    return onNumber(
      `add ${k}`,
      `adds ${k}`,
      (value) => `${value}+${k}`,
      (x) => x + k,
    );
  },
  (random) => {
    const k = random.integer(1, 20);
    return onNumber(
      `subtract ${k}`,
      `subtracts ${k}`,
      (value) => `${value}-${k}`,
      (x) => x - k,
    );
  },
  (random) => {
    const k = random.integer(2, 9);
    return onNumber(
      `times ${k}`,
      `multiplies by ${k}`,
      (value) => `${factor(value)}*${k}`,
      (x) => x * k,
    );
  },
];

/** From list to list; with `filters`, possibly to an empty one. */
const MAPS: readonly Make[] = [
  (random) => {
    const k = random.integer(1, 9);
    const code = (list: string) => `[v+${k} for v in ${list}]`;
    return onList(`add ${k} to each`, `adds ${k} to each item`, code, 'list', (list) =>
      list.map((v) => v + k),
    );
  },
  (random) => {
    const k = random.integer(2, 9);
    const code = (list: string) => `[v*${k} for v in ${list}]`;
    return onList(`each times ${k}`, `multiplies each item by ${k}`, code, 'list', (list) =>
      list.map((v) => v * k),
    );
  },
  () =>
    onList(
      'reverse',
      'reverses the list',
      (list) => `${list}[::-1]`,
      'list',
      (list) => list.toReversed(),
    ),
  () =>
    onList(
      'sort',
      'sorts the list',
      (list) => `sorted(${list})`,
      'list',
      (list) => list.toSorted((a, b) => a - b),
    ),
];

const FILTERS: readonly Make[] = [
  (random) => {
    const k = random.integer(0, 9);
    const code = (list: string) => `[v for v in ${list} if v>${k}]`;
    return onList(`keep above ${k}`, `keeps the items above ${k}`, code, 'list', (list) =>
      list.filter((v) => v > k),
    );
  },
  (random) => {
    const k = random.integer(0, 9);
    const code = (list: string) => `[v for v in ${list} if v<${k}]`;
    return onList(`keep below ${k}`, `keeps the items below ${k}`, code, 'list', (list) =>
      list.filter((v) => v < k),
    );
  },
];

const TOTALS: readonly Make[] = [
  () =>
    onList(
      'sum',
      'gives the sum',
      (list) => `sum(${list})`,
      'number',
      (list) => list.reduce((a, b) => a + b, 0),
    ),
  () =>
    onList(
      'count',
      'counts the items',
      (list) => `len(${list})`,
      'number',
      (list) => list.length,
    ),
];

/** These need a list that is not empty. */
const PICKS: readonly Make[] = [
  () =>
    onList(
      'largest',
      'gives the largest item',
      (list) => `max(${list})`,
      'number',
      (list) => Math.max(...list),
    ),
  () =>
    onList(
      'smallest',
      'gives the smallest item',
      (list) => `min(${list})`,
      'number',
      (list) => Math.min(...list),
    ),
  () =>
    onList(
      'first',
      'gives the first item',
      (list) => `${list}[0]`,
      'number',
      (list) => list[0] ?? 0,
    ),
  () =>
    onList(
      'last',
      'gives the last item',
      (list) => `${list}[-1]`,
      'number',
      (list) => list.at(-1) ?? 0,
    ),
];

const LIST_TO_LIST = [...MAPS, ...FILTERS];

/** A random chain of a level of difficulty (see miniProgramsSchema). */
export function chainOf(level: number, random: Random): Operation[] {
  const pick = (makes: readonly Make[]) => random.pick(makes)(random);
  if (level === 1) return [pick(NUMBER)];
  if (level === 2) return [pick(NUMBER), pick(NUMBER)];
  if (level === 3) return [pick([...LIST_TO_LIST, ...TOTALS, ...PICKS])];
  const filters = random.next() < 0.4;
  const first = pick(filters ? FILTERS : MAPS);
  return [first, pick(filters ? [...LIST_TO_LIST, ...TOTALS] : [...LIST_TO_LIST, ...TOTALS, ...PICKS])];
}

/** The problem as a sentence. */
export function wordsOf(chain: readonly Operation[]): string {
  const what = chain[0]?.takes === 'number' ? 'a number x' : 'a list x of whole numbers';
  const steps = chain.map(({ said }) => said).join(' and then ');
  return `Write a Python function f(x) that takes ${what}, ${steps}, and returns the result.`;
}
