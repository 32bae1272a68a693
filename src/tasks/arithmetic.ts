/**
 * Generated arithmetic: sums, differences, products and expressions of two operations, by levels or by explicit
 * ranges. Which problems are held out of training follows from a hash of the operation and its operands, so the
 * split is the same in every run; a sum or product and its commuted twin are always on the same side. Answers
 * are the numbers that texts give (arithmetic-answer.ts).
 */
import { z } from 'zod';
import { TroupeError } from '../config/errors.js';
import { extractNumber } from './arithmetic-answer.js';
import { heldOut, Random } from './random.js';
import type { Grade, Problem, Task } from './types.js';

type Operation = 'sum' | 'difference' | 'product' | 'two-operations';

/** Operands of a kind of problem are drawn from 0 (products: 1) up to `left` and `right`. */
interface Kind {
  operation: Operation;
  left: number;
  right: number;
}

const LEVELS: Record<number, readonly Kind[]> = {
  1: [{ operation: 'sum', left: 9, right: 9 }],
  2: [
    { operation: 'sum', left: 20, right: 20 },
    { operation: 'difference', left: 20, right: 20 },
  ],
  3: [
    { operation: 'sum', left: 99, right: 99 },
    { operation: 'difference', left: 99, right: 99 },
    { operation: 'product', left: 9, right: 9 },
  ],
  4: [
    { operation: 'sum', left: 999, right: 999 },
    { operation: 'difference', left: 999, right: 999 },
    { operation: 'product', left: 99, right: 9 },
  ],
  5: [
    { operation: 'two-operations', left: 20, right: 9 },
    { operation: 'product', left: 99, right: 99 },
  ],
};

const largest = (what: string) =>
  z.int().min(1).max(1_000_000).optional().describe(`${what}; replaces \`levels\`.`);

export const arithmeticSchema = z.strictObject({
  levels: z
    .array(z.int().min(1).max(5))
    .min(1)
    .optional()
    .describe(
      'Levels of difficulty, equally often. 1: sums of single digits. 2: sums and differences up to 20. 3: of ' +
        'two digits, products up to 9 × 9. 4: of three digits, products up to 99 × 9. 5: two operations, ' +
        'products up to 99 × 99. Without it, and without the next three: sums up to 50.',
    ),
  sums: largest('Sums a + b with a and b up to this'),
  differences: largest('Differences a − b of at least 0 with a up to this'),
  products: largest('Products a × b with a and b from 1 up to this'),
  carries: z
    .boolean()
    .default(true)
    .describe('false: only problems in which no digit of a sum or difference carries or borrows.'),
  style: z
    .enum(['plain', 'words'])
    .default('plain')
    .describe('plain: "17+25", for the embedded models. words: "What is 17 + 25?", for pretrained ones.'),
  heldOut: z
    .number()
    .gt(0)
    .lt(1)
    .default(0.2)
    .describe('Share of the problems that are kept for evaluation.'),
});

export type ArithmeticOptions = z.output<typeof arithmeticSchema>;

/** An expression: operands and operators in the order of writing, and how it is bracketed. */
interface Expression {
  operands: number[];
  operators: ('+' | '-' | '*')[];
  /** The first operation in brackets: (a + b) × c. */
  bracketed: boolean;
}

/** Draws that find nothing (nothing new, for the evaluation) before there counts as being nothing (more). */
const TRIES = 2000;

/** The task `arithmetic`. Throws a TroupeError where the split leaves nothing to train on or to evaluate. */
export function arithmetic(options: ArithmeticOptions): Task {
  const kinds = kindsOf(options);
  const draw = (split: string, random: Random) => {
    for (let i = 0; i < TRIES; i++) {
      const expression = drawExpression(random.pick(kinds), random);
      if (!options.carries && carries(expression)) continue;
      if (heldOut(splitName(expression), options.heldOut) === (split === 'evaluation')) return expression;
    }
    const what = split === 'evaluation' ? 'to evaluate on' : 'to train on';
    throw new TroupeError(`heldOut: ${options.heldOut} leaves nothing ${what}.`, {
      where: 'task.heldOut',
      hint: 'Take larger numbers, or a share nearer to 0.2.',
    });
  };
  draw('train', new Random('check'));
  draw('evaluation', new Random('check'));

  return {
    name: 'arithmetic',
    kind: 'math',
    train: (seed, index) =>
      problem(`arithmetic:train:${seed}:${index}`, draw('train', new Random('train', seed, index)), options),
    evaluation: (count) => {
      const found = new Map<string, Problem>();
      for (let i = 0, last = 0; found.size < count && i - last < TRIES; i++) {
        const expression = draw('evaluation', new Random('evaluation', i));
        const text = plain(expression);
        if (found.has(text)) continue;
        found.set(text, problem(`arithmetic:evaluation:${found.size}`, expression, options));
        last = i;
      }
      return [...found.values()];
    },
    grade: async (answers) => answers.map(({ problem, text }) => grade(text, problem.answer)),
    extract: extractNumber,
    close: async () => {},
  };
}

/** Reasons: correct, wrong, no-answer. */
function grade(text: string, answer: string | undefined): Grade {
  const got = extractNumber(text);
  if (got === undefined) return { correct: false, reward: 0, reason: 'no-answer' };
  const correct = got === answer;
  return { correct, reward: correct ? 1 : 0, reason: correct ? 'correct' : 'wrong' };
}

function kindsOf({ levels, sums, differences, products }: ArithmeticOptions): Kind[] {
  const square = (operation: Operation, size: number | undefined): Kind[] =>
    size === undefined ? [] : [{ operation, left: size, right: size }];
  const explicit = [
    ...square('sum', sums),
    ...square('difference', differences),
    ...square('product', products),
  ];
  if (explicit.length > 0) return explicit;
  return levels === undefined ? square('sum', 50) : levels.flatMap((level) => LEVELS[level] ?? []);
}

function drawExpression({ operation, left, right }: Kind, random: Random): Expression {
  switch (operation) {
    case 'sum':
      return simple('+', random.integer(0, left), random.integer(0, right));
    case 'difference': {
      const from = random.integer(0, left);
      return simple('-', from, random.integer(0, Math.min(from, right)));
    }
    case 'product':
      return simple('*', random.integer(1, left), random.integer(1, right));
    case 'two-operations':
      return twoOperations(random, left, right);
  }
}

function simple(operator: '+' | '-' | '*', left: number, right: number): Expression {
  return { operands: [left, right], operators: [operator], bracketed: false };
}

/** a ± b × c, a × b ± c or (a ± b) × c, whose value is not negative. */
function twoOperations(random: Random, left: number, right: number): Expression {
  for (;;) {
    const sign = random.pick(['+', '-'] as const);
    const [a, b, c] = [random.integer(1, left), random.integer(1, right), random.integer(1, right)];
    const expression = random.pick<Expression>([
      { operands: [a, b, c], operators: [sign, '*'], bracketed: false },
      { operands: [b, c, a], operators: ['*', sign], bracketed: false },
      { operands: [a, b, c], operators: [sign, '*'], bracketed: true },
    ]);
    if (valueOfExpression(expression) >= 0) return expression;
  }
}

function valueOfExpression({ operands: [a = 0, b = 0, c = 0], operators, bracketed }: Expression): number {
  const [first = '+', second] = operators;
  if (second === undefined) return apply(first, a, b);
  return second === '*' && !bracketed
    ? apply(first, a, apply(second, b, c))
    : apply(second, apply(first, a, b), c);
}

/** Whether a digit of a sum of two numbers carries, or of a difference borrows. */
function carries({ operands: [a = 0, b = 0], operators: [operator, second] }: Expression): boolean {
  if (second !== undefined || operator === '*') return false;
  for (let [x, y] = [a, b]; x > 0 || y > 0; [x, y] = [Math.floor(x / 10), Math.floor(y / 10)]) {
    if (operator === '+' ? (x % 10) + (y % 10) > 9 : x % 10 < y % 10) return true;
  }
  return false;
}

function apply(operator: '+' | '-' | '*', a: number, b: number): number {
  return operator === '+' ? a + b : operator === '-' ? a - b : a * b;
}

/** Equal for an expression and its commuted twin. */
function splitName(expression: Expression): string {
  const { operands, operators } = expression;
  if (operators.length > 1 || operators[0] === '-') return plain(expression);
  return operands.toSorted((a, b) => a - b).join(operators[0]);
}

function plain(expression: Expression): string {
  return written(expression, '', '*');
}

function written({ operands: [a, b, c], operators, bracketed }: Expression, space: string, times: string) {
  const [first, second] = operators.map(
    (operator) => `${space}${operator === '*' ? times : operator}${space}`,
  );
  if (second === undefined) return `${a}${first}${b}`;
  return bracketed ? `(${a}${first}${b})${second}${c}` : `${a}${first}${b}${second}${c}`;
}

function problem(id: string, expression: Expression, { style }: ArithmeticOptions): Problem {
  const question = style === 'plain' ? plain(expression) : `What is ${written(expression, ' ', '×')}?`;
  return { id, question, answer: String(valueOfExpression(expression)) };
}
