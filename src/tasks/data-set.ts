/** Problems from data rows: the held-out split, the endless shuffled order, and the settings that all have. */
import { z } from 'zod';
import { TroupeError } from '../config/errors.js';
import { Random, ShuffledOrder } from './random.js';
import type { Problem } from './types.js';

export const dataSetFields = {
  files: z
    .union([
      z
        .string()
        .min(1)
        .transform((file) => [file]),
      z.array(z.string().min(1)).min(1),
    ])
    .describe('Data files: .jsonl, .json or .parquet.'),
  evaluationFiles: z
    .union([
      z
        .string()
        .min(1)
        .transform((file) => [file]),
      z.array(z.string().min(1)),
    ])
    .default([])
    .describe('Files of held-out problems; replaces `holdout`.'),
  holdout: z
    .int()
    .min(0)
    .default(200)
    .describe(
      'Rows of `files` that are kept for evaluation, chosen by a fixed shuffle; at most half of them.',
    ),
};

/** Training problem and evaluation as a Task has them. */
export interface DataSet {
  train(seed: number, index: number): Problem;
  evaluation(count: number): Problem[];
}

/**
 * Splits `problems`, or takes `held` as the held-out ones. Rows that ask the same question count once, so that
 * none stands on both sides. Throws a TroupeError if nothing is left to train on.
 */
export function dataSet(problems: readonly Problem[], held: readonly Problem[], holdout: number): DataSet {
  const [training, evaluation] =
    held.length > 0 ? [distinct(problems, held), distinct(held, [])] : split(distinct(problems, []), holdout);
  if (training.length === 0) {
    throw new TroupeError('every training problem is also a held-out one; nothing is left to train on.', {
      where: 'task.files',
    });
  }
  const order = new ShuffledOrder(training.length);
  return {
    train: (seed, index) => training[order.at(seed, index)] as Problem,
    evaluation: (count) => evaluation.slice(0, count),
  };
}

function split(problems: readonly Problem[], holdout: number): [Problem[], Problem[]] {
  const order = new Random('holdout', problems.length).permutation(problems.length);
  const count = Math.min(holdout, Math.floor(problems.length / 2));
  const at = (indices: Uint32Array) => [...indices].map((i) => problems[i] as Problem);
  return [at(order.subarray(count).toSorted()), at(order.subarray(0, count))];
}

/** The first problem with each question, without the questions of `others`. */
function distinct(problems: readonly Problem[], others: readonly Problem[]): Problem[] {
  const seen = new Set(others.map(({ question }) => question));
  return problems.filter(({ question }) => !seen.has(question) && seen.add(question));
}
