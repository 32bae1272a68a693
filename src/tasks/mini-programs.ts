/**
 * Generated programming problems that a model of a million parameters can learn: f(x) as a chain of operations
 * on a number or a list. The answers are run for real, on arguments that follow from the problem. Which problems
 * are held out of training follows from a hash of the chain, as for arithmetic.
 */
import { z } from 'zod';
import { TroupeError } from '../config/errors.js';
import { programGrading, sandboxFields } from './code.js';
import type { CodeTests } from './code-tests.js';
import { chainOf, type Operation, wordsOf } from './mini-operations.js';
import { heldOut, Random } from './random.js';
import type { Problem, Task } from './types.js';

export const miniProgramsSchema = z.strictObject({
  levels: z
    .array(z.int().min(1).max(4))
    .min(1)
    .default([1, 2])
    .describe(
      'Levels of difficulty, equally often. 1: one operation on a number. 2: two. 3: one operation on a list. 4: two.',
    ),
  style: z
    .enum(['plain', 'words'])
    .default('plain')
    .describe('plain: "add 3, times 2", for the embedded models. words: a sentence, for pretrained ones.'),
  heldOut: z
    .number()
    .gt(0)
    .lt(1)
    .default(0.2)
    .describe('Share of the problems that are kept for evaluation.'),
  ...sandboxFields,
});

export type MiniProgramsOptions = z.output<typeof miniProgramsSchema>;

/** Draws that find nothing (nothing new, for the evaluation) before there counts as being nothing (more). */
const TRIES = 2000;
const CASES = 6;

/** Throws a TroupeError where there is no sandbox, or the split leaves nothing. */
export async function miniPrograms(options: MiniProgramsOptions): Promise<Task> {
  const draw = (split: string, random: Random) => {
    for (let i = 0; i < TRIES; i++) {
      const chain = chainOf(random.pick(options.levels), random);
      if (heldOut(plain(chain), options.heldOut) === (split === 'evaluation')) return chain;
    }
    throw new TroupeError(`heldOut: ${options.heldOut} leaves nothing for ${split}.`, {
      where: 'task.heldOut',
      hint: 'Take more levels, or a share nearer to 0.2.',
    });
  };
  draw('train', new Random('check'));
  draw('evaluation', new Random('check'));
  return {
    name: 'mini-programs',
    kind: 'code',
    train: (seed, index) =>
      problem(
        `mini-programs:train:${seed}:${index}`,
        draw('train', new Random('train', seed, index)),
        options,
      ),
    evaluation: (count) => {
      const found = new Map<string, Problem>();
      for (let i = 0, last = 0; found.size < count && i - last < TRIES; i++) {
        const chain = draw('evaluation', new Random('evaluation', i));
        if (found.has(plain(chain))) continue;
        found.set(plain(chain), problem(`mini-programs:evaluation:${found.size}`, chain, options));
        last = i;
      }
      return [...found.values()];
    },
    wrongAnswer: ({ answer = '' }, random) => nearProgram(answer, random),
    ...(await programGrading(options)),
  };
}

/** What one mistake makes of a part of a program. */
const MISTAKES: readonly [RegExp, (part: string) => string][] = [
  [/\d+/g, (digits) => String(Number(digits) + 1)],
  [/\+/g, () => '-'],
  [/(?<=\w)-/g, () => '+'],
  [/\*/g, () => '+'],
  [/>/g, () => '<'],
  [/</g, () => '>'],
  [/sum|len|max|min|sorted/g, (name) => (name === 'max' ? 'min' : 'max')],
  [/\[::-1\]/g, () => '[-1]'],
];

/** The program with one mistake in it: another number, operator or function. */
function nearProgram(program: string, random: () => number): string {
  const head = program.indexOf(':') + 1;
  const found = MISTAKES.flatMap(([pattern, change]) =>
    [...program.matchAll(pattern)].map((match) => ({ match, change })),
  ).filter(({ match }) => match.index >= head);
  const chosen = found[Math.floor(random() * found.length)];
  if (chosen === undefined) return `${program}+1`;
  const { match, change } = chosen;
  return program.slice(0, match.index) + change(match[0]) + program.slice(match.index + match[0].length);
}

function plain(chain: readonly Operation[]): string {
  return chain.map(({ name }) => name).join(', ');
}

function problem(id: string, chain: readonly Operation[], { style }: MiniProgramsOptions): Problem {
  const question = style === 'plain' ? plain(chain) : wordsOf(chain);
  const body = chain.reduce((code, operation) => operation.code(code), 'x');
  const tests: CodeTests = { style: 'function', name: 'f', cases: casesOf(chain) };
  return { id, question, answer: `def f(x): return ${body}`, data: { tests } };
}

function casesOf(
  chain: readonly Operation[],
): { args: (number | number[])[]; outputs: (number | number[])[] }[] {
  const random = new Random('cases', plain(chain));
  return Array.from({ length: CASES }, (_, i) => {
    const arg = chain[0]?.takes === 'number' ? random.integer(-20, 50) : numbers(random, i + 1);
    const output = chain.reduce<number | number[]>((value, operation) => operation.apply(value), arg);
    return { args: [arg], outputs: [output] };
  });
}

function numbers(random: Random, count: number): number[] {
  return Array.from({ length: count }, () => random.integer(-9, 20));
}
