/** Expressions of an answer: numbers, variables and operations on them. How they are read from tokens is in grammar.ts. */
import { type Exact, ONE } from './exact.js';

export type Expression =
  | {
      op: 'number';
      value: Exact;
      /** Digits behind the point, if it is written as a decimal. */
      decimals?: number;
    }
  | { op: 'symbol'; name: string }
  | { op: Operation; of: Expression[] };

/** `power` base, exponent; `root` of, order; `log` of, base; `apply:sin` and the like. */
export type Operation =
  | 'add'
  | 'multiply'
  | 'divide'
  | 'negate'
  | 'power'
  | 'root'
  | 'factorial'
  | 'binomial'
  | 'absolute'
  | 'floor'
  | 'ceil'
  | 'log'
  | `apply:${string}`;

/** The names in it, without those of constants. */
export function symbolsOf(expression: Expression, into = new Set<string>()): Set<string> {
  if (expression.op === 'symbol') into.add(expression.name);
  else if (expression.op !== 'number') for (const part of expression.of) symbolsOf(part, into);
  return into;
}

export function product(expression: Expression, over: bigint, under: bigint): Expression {
  return { op: 'multiply', of: [expression, { op: 'number', value: { ...ONE, over, under } }] };
}
