/** split.json: which rows of the data files a run holds out. A run that goes on must hold out the same problems. */
import { existsSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { checkSection } from '../config/check.js';
import { TroupeError } from '../config/errors.js';
import { onFile, writeFileWhole } from '../config/files.js';
import { readJson } from '../config/json.js';
import type { SplitRecord } from '../tasks/types.js';

const schema = z.object({ questions: z.string() });

/**
 * Writes the record of a run. `goesOn`: the run has steps behind it; then a record of other problems is a TroupeError.
 * For a run that begins again the old one is kept as split.1.json, ….
 */
export function keepSplit(folder: string, record: SplitRecord, goesOn: boolean): void {
  if (goesOn) checkSplit(folder, record);
  const file = join(folder, 'split.json');
  if (existsSync(file)) {
    // Files that were edited elsewhere than in what is held out are in files.json.
    if (questionsOf(file) === record.questions) return;
    let number = 1;
    while (existsSync(join(folder, `split.${number}.json`))) number += 1;
    onFile(folder, () => renameSync(file, join(folder, `split.${number}.json`)));
  }
  writeFileWhole(file, `${JSON.stringify(record)}\n`);
}

/** Throws a TroupeError where other problems are held out now than the run has written down. */
export function checkSplit(folder: string, { questions }: SplitRecord): void {
  const file = join(folder, 'split.json');
  if (!existsSync(file) || questionsOf(file) === questions) return;
  throw new TroupeError('the data files hold out other problems now than when the run began.', {
    where: file,
    hint: 'Some that it was trained on would be evaluated. Put back the files that it names, or start a new run.',
  });
}

function questionsOf(file: string): string {
  return checkSection(schema, readJson(file), { whole: 'the record', locate: () => file }).questions;
}
