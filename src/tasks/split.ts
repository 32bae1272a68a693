/** Which rows of a data set are held out: by a shuffle of our own, as Python's libraries do, or by a recorded list. */
import { createHash } from 'node:crypto';
import { createReadStream, statSync } from 'node:fs';
import { z } from 'zod';
import { TroupeError } from '../config/errors.js';
import { readJson } from '../config/json.js';
import { findPath } from '../config/package.js';
import { generatorPermutation, legacyPermutation } from './numpy-permutation.js';
import { Random } from './random.js';
import type { SplitRecord } from './types.js';

export const splitSchema = z
  .strictObject({
    method: z
      .enum(['troupe', 'datasets', 'sklearn'])
      .default('troupe')
      .describe(
        'How held-out rows are chosen. troupe: by a fixed shuffle of the usable problems. datasets, sklearn: the test rows of train_test_split there, of all rows; those of datasets are also the first of its shuffle.',
      ),
    seed: z
      .int()
      .min(0)
      .max(2 ** 32 - 1)
      .default(42)
      .describe('The seed, or random_state, of datasets and sklearn.'),
    file: z
      .string()
      .min(1)
      .optional()
      .describe(
        'JSON file with the numbers of the held-out rows, from 0: a list, or the split.json of a run. Replaces `holdout` and the method.',
      ),
  })
  .prefault({});

export interface SplitOptions {
  files: readonly string[];
  holdout: number;
  split: z.output<typeof splitSchema>;
}

/**
 * The numbers of the held-out rows among `count` rows of all files, in the order of the evaluation. `firstRows` are the
 * usable rows that ask something new. Throws a TroupeError where the rows are too few, or a list does not fit them.
 */
export async function heldOutRows(
  firstRows: readonly number[],
  count: number,
  { files, holdout, split }: SplitOptions,
): Promise<number[]> {
  if (split.file !== undefined) return listedRows(split.file, files, count);
  if (split.method === 'troupe') {
    const most = Math.floor(firstRows.length / 2);
    const order = new Random('holdout', firstRows.length).permutation(firstRows.length);
    return Array.from(
      order.subarray(0, Math.min(sizeOf(holdout, firstRows.length), most)),
      (i) => firstRows[i] ?? 0,
    );
  }
  const size = sizeOf(holdout, count);
  if (size >= count) {
    throw new TroupeError(`task.holdout is ${holdout}, and the files have ${count} rows.`, {
      where: 'task.holdout',
      hint: 'Hold out fewer: a number below that of the rows, or a share like 0.1.',
    });
  }
  const permutation = split.method === 'datasets' ? generatorPermutation : legacyPermutation;
  return Array.from(permutation(split.seed, count).subarray(0, size));
}

/** A share is rounded up, as test_size is in both libraries. */
function sizeOf(holdout: number, count: number): number {
  return holdout < 1 ? Math.ceil(holdout * count) : holdout;
}

const recordSchema = z.object({
  rows: z.int().min(0).optional(),
  files: z.array(z.object({ sha256: z.string() })).optional(),
  evaluationFiles: z.array(z.object({ file: z.string() })).default([]),
  heldOut: z.array(z.int().min(0)),
});

async function listedRows(path: string, files: readonly string[], count: number): Promise<number[]> {
  const where = findPath(path);
  const hint = 'It takes a list of row numbers from 0, or the split.json of a run.';
  const json = readJson(where, 'Check task.split.file.');
  const parsed = recordSchema.safeParse(Array.isArray(json) ? { heldOut: json } : json);
  if (!parsed.success) throw new TroupeError('is no list of held-out rows.', { where, hint });
  const { heldOut, rows, files: recorded, evaluationFiles } = parsed.data;
  if (evaluationFiles.length > 0) {
    throw new TroupeError('holds out no rows: its run evaluated problems of other files.', {
      where,
      hint: `Name them in task.evaluationFiles: ${evaluationFiles.map(({ file }) => file).join(', ')}.`,
    });
  }
  const beyond = heldOut.find((row) => row >= count);
  if (beyond !== undefined || (rows !== undefined && rows !== count)) {
    const what = beyond === undefined ? `is of ${rows} rows` : `holds out row ${beyond}`;
    throw new TroupeError(`${what}, and the data files have ${count}.`, {
      where,
      hint: 'It is of other files.',
    });
  }
  const known = recorded === undefined ? [] : await Promise.all(files.map(sha256Of));
  const other = known.findIndex((sha256, i) => recorded?.[i]?.sha256 !== sha256);
  if (other >= 0) {
    throw new TroupeError(`is the split of another file than ${files[other]}: the SHA-256 differs.`, {
      where,
      hint: 'Give task.files the files that it was made of, or only its list "heldOut".',
    });
  }
  return heldOut;
}

/** What a run keeps of its split (split.json). `questions`: what the held-out ones are known by. */
export async function recordOf(
  files: readonly string[],
  evaluationFiles: readonly string[],
  { rows, heldOut, questions }: { rows: number; heldOut: number[]; questions: readonly string[] },
): Promise<SplitRecord> {
  return {
    files: await hashed(files),
    ...(evaluationFiles.length > 0 && { evaluationFiles: await hashed(evaluationFiles) }),
    rows,
    heldOut,
    questions: createHash('sha256').update(questions.join('')).digest('hex'),
  };
}

function hashed(files: readonly string[]): Promise<{ file: string; sha256: string }[]> {
  return Promise.all(files.map(async (file) => ({ file, sha256: await sha256Of(file) })));
}

/** Empty for what is no file and cannot be read a second time, e.g. a pipe. */
export async function sha256Of(path: string): Promise<string> {
  if (!statSync(findPath(path)).isFile()) return '';
  const hash = createHash('sha256');
  for await (const piece of createReadStream(findPath(path))) hash.update(piece as Buffer);
  return hash.digest('hex');
}
