/** Problems from data files: the settings that all such tasks have, what repeats, the held-out rows, the shuffled order. */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import { TroupeError } from '../config/errors.js';
import { KINDS } from './data-files/rows-of.js';
import { normalQuestion } from './held-out.js';
import { ShuffledOrder } from './random.js';
import { localFiles, type Row, type RowOptions, usableRows } from './rows.js';
import { heldOutRows, recordOf, splitSchema } from './split.js';
import type { Problem, Task } from './types.js';

const fileList = z.union([
  z
    .string()
    .min(1)
    .transform((file) => [file]),
  z.array(z.string().min(1)),
]);

export const dataSetFields = {
  files: fileList.refine((files) => files.length > 0, 'names no file').describe(`Data files: ${KINDS}.`),
  evaluationFiles: fileList
    .default([])
    .describe('Files of held-out problems; replaces `holdout` and `split`.'),
  holdout: z
    .union([z.int().min(0), z.number().gt(0).lt(1)])
    .default(200)
    .describe(
      'How many rows of `files` are kept for evaluation, or which share of them, rounded up. By `split.method` troupe at most half.',
    ),
  split: splitSchema,
};

/** A column of the files, or a path into it: "prompt", "reward_model.ground_truth", "messages.0.content". */
export const column = z.string().min(1).optional();

export type DataSetOptions = z.output<z.ZodObject<typeof dataSetFields>> & {
  fields: Record<string, string | undefined>;
};

export type DataSet = Pick<Task, 'train' | 'evaluation' | 'split'>;

/**
 * Reads the files and splits them. A question that is asked twice counts once, so that none stands on both sides.
 * Throws a TroupeError for files that cannot be read and if nothing is left to train on.
 */
export async function dataSet(
  options: DataSetOptions,
  problemOf: (row: Row, where: string) => Problem,
  rowOptions: RowOptions,
): Promise<DataSet> {
  const reading = { ...rowOptions, fields: options.fields };
  const files = await localFiles(options.files);
  const read = await Problems.read(files, problemOf, reading);
  const evaluationFiles = await localFiles(options.evaluationFiles);
  const given =
    evaluationFiles.length === 0 ? undefined : await Problems.read(evaluationFiles, problemOf, reading);
  if (given !== undefined && options.split.file !== undefined) {
    throw new TroupeError('task.evaluationFiles and task.split.file both say what is held out.', {
      where: 'task',
      hint: 'Leave one of them away.',
    });
  }
  const rows =
    given === undefined ? await heldOutRows(read.firstRows, read.ofRow.length, { ...options, files }) : [];
  const held = given ?? read.atRows(rows, rowOptions.warn);
  const training = read.without(held, given === undefined ? undefined : rowOptions.warn);
  if (training.length === 0) {
    throw new TroupeError('every training problem is also a held-out one; nothing is left to train on.', {
      where: 'task.files',
      hint: 'Hold out fewer; where rows repeat their questions, split.method troupe holds out questions, not rows.',
    });
  }
  const order = new ShuffledOrder(training.length);
  return {
    train: (seed, index) => training[order.at(seed, index)] as Problem,
    evaluation: (count) => held.problems.slice(0, count),
    split: () =>
      recordOf(files, evaluationFiles, { rows: read.ofRow.length, heldOut: rows, questions: held.keys }),
  };
}

/** Problems that ask different questions, and which of them each row of the files asks. */
class Problems {
  readonly problems: Problem[] = [];
  /** What their questions are known by. */
  readonly keys: string[] = [];
  /** The first row that asks each, among all rows of the files. */
  readonly firstRows: number[] = [];
  /** For each row of the files the problem that it asks; −1 for a row that cannot be used. */
  readonly ofRow: number[] = [];

  static async read(
    files: readonly string[],
    problemOf: (row: Row, where: string) => Problem,
    options: RowOptions,
  ): Promise<Problems> {
    const read = new Problems();
    const known = new Map<string, number>();
    const repeats = new Repeats();
    for await (const problem of usableRows(files, problemOf, options)) {
      const key = problem === undefined ? '' : keyOf(problem);
      const first = known.get(key);
      read.ofRow.push(problem === undefined ? -1 : (first ?? read.problems.length));
      if (problem === undefined) continue;
      if (first !== undefined) {
        repeats.add(problem, read.problems[first] as Problem);
        continue;
      }
      known.set(key, read.problems.length);
      read.#add(problem, key, read.ofRow.length - 1);
    }
    repeats.say(options.warn);
    return read;
  }

  #add(problem: Problem, key: string, row: number): void {
    this.problems.push(problem);
    this.keys.push(key);
    this.firstRows.push(row);
  }

  /** What the rows ask, in their order. */
  atRows(rows: readonly number[], warn: (message: string) => void): Problems {
    const some = new Problems();
    const seen = new Set<number>();
    for (const row of rows) {
      const at = this.ofRow[row] ?? -1;
      if (at < 0 || seen.has(at)) continue;
      seen.add(at);
      some.#add(this.problems[at] as Problem, this.keys[at] as string, row);
    }
    const lost = rows.length - some.problems.length;
    if (lost > 0) {
      warn(`${lost} of ${rows.length} held-out rows cannot be used or ask what another held-out row asks.`);
    }
    return some;
  }

  /** The problems that `held` does not ask. */
  without(held: Problems, warn?: (message: string) => void): Problem[] {
    const asked = new Set(held.keys);
    const left = this.problems.filter((_, i) => !asked.has(this.keys[i] as string));
    const out = this.problems.length - left.length;
    if (out > 0) warn?.(`${out} training problems are left out: task.evaluationFiles ask the same.`);
    return left;
  }
}

/** Equal for equal questions; short, since there may be millions. */
function keyOf({ question }: Problem): string {
  return createHash('sha256').update(normalQuestion(question)).digest('base64');
}

/** Rows that ask what an earlier row asks, and those of them that have another answer to it. */
class Repeats {
  #count = 0;
  #disagreeing = 0;
  #first = '';

  add(problem: Problem, earlier: Problem): void {
    this.#count++;
    const [answer = '', before = ''] = [problem.answer, earlier.answer];
    if (problem.data !== undefined || normalQuestion(answer) === normalQuestion(before)) return;
    this.#disagreeing++;
    if (this.#first === '') this.#first = `${problem.id} and ${earlier.id}`;
  }

  say(warn: (message: string) => void): void {
    if (this.#count === 0) return;
    const other =
      this.#disagreeing === 0
        ? ''
        : `, ${this.#disagreeing} of them with another answer (${this.#first}); the first answer counts`;
    warn(`${this.#count} data rows ask what an earlier row asks and count once${other}.`);
  }
}
