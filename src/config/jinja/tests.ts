/** Tests behind `is`: jinja2/tests.py. */

import { ownValue } from '../own-value.js';
import { allLower, allUpper } from './value-methods.js';
import {
  Callable,
  compare,
  contains,
  Dict,
  Float,
  List,
  numberOf,
  same,
  Undefined,
  type Value,
} from './values.js';

type Test = (value: Value, other: Value) => boolean;

const isText = (value: Value): value is string => typeof value === 'string';
const whole = (value: Value): number => {
  const number = numberOf(value);
  if (number === undefined) throw new Error('it is no number');
  return number;
};
const remainder = (a: number, b: number) => {
  if (b === 0) throw new Error('a division by zero');
  return a - b * Math.floor(a / b);
};

/** Tests that take an argument. */
const WITH_ARGUMENT = new Set<string>();
const two = (names: string, test: Test) =>
  names.split(' ').map((name): [string, Test] => {
    WITH_ARGUMENT.add(name);
    return [name, test];
  });

export const TESTS: Record<string, Test> = {
  odd: (value) => remainder(whole(value), 2) === 1,
  even: (value) => remainder(whole(value), 2) === 0,
  defined: (value) => !(value instanceof Undefined),
  undefined: (value) => value instanceof Undefined,
  none: (value) => value === null,
  boolean: (value) => typeof value === 'boolean',
  true: (value) => value === true,
  false: (value) => value === false,
  integer: (value) => typeof value === 'number',
  float: (value) => value instanceof Float,
  number: (value) => numberOf(value) !== undefined,
  string: isText,
  mapping: (value) => value instanceof Dict,
  sequence: (value) =>
    isText(value) ||
    value instanceof Dict ||
    (value instanceof List && !['lazy', 'view'].includes(value.kind)),
  iterable: (value) =>
    isText(value) || value instanceof Dict || value instanceof List || value instanceof Undefined,
  callable: (value) => value instanceof Callable,
  escaped: () => false,
  lower: (value) => isText(value) && allLower(value),
  upper: (value) => isText(value) && allUpper(value),
  test: (value) => isText(value) && Object.hasOwn(TESTS, value),
  ...Object.fromEntries([
    ...two('divisibleby', (value, other) => remainder(whole(value), whole(other)) === 0),
    ...two('eq equalto ==', same),
    ...two('ne !=', (value, other) => !same(value, other)),
    ...two('gt greaterthan >', (value, other) => compare(value, other) > 0),
    ...two('ge >=', (value, other) => compare(value, other) >= 0),
    ...two('lt lessthan <', (value, other) => compare(value, other) < 0),
    ...two('le <=', (value, other) => compare(value, other) <= 0),
    ...two('sameas', (value, other) => typeof value === typeof other && value === other),
    ...two('in', (value, other) => contains(other, value)),
  ]),
};

/** A test by name, as select and `is` apply it. */
export function applyTest(name: string, value: Value, args: readonly Value[]): boolean {
  const test = ownValue(TESTS, name);
  if (test === undefined) throw new Error(`there is no test "${name}" here`);
  const wanted = WITH_ARGUMENT.has(name) ? 1 : 0;
  if (args.length !== wanted) throw new Error(`the test "${name}" takes ${wanted} arguments`);
  return test(value, args[0] ?? null);
}
