/** split.json: which rows of the data files a run holds out. A run that goes on must hold out the same problems. */
import { existsSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { checkSection } from '../config/check.js';
import { TroupeError } from '../config/errors.js';
import { onFile, writeFileWhole } from '../config/files.js';
import { readJson } from '../config/json.js';
import type { SplitRecord } from '../tasks/types.js';

const files = z.array(z.object({ sha256: z.string() }));
const schema = z.object({ questions: z.string(), files, evaluationFiles: files.optional() });

/**
 * Writes the record of a run. `goesOn`: the run has steps behind it; then a record of other problems is a TroupeError.
 * For a run that begins again the old one is kept as split.1.json, …. Returns what a person should know, if anything.
 */
export function keepSplit(folder: string, record: SplitRecord, goesOn: boolean): string | undefined {
  const file = join(folder, 'split.json');
  if (existsSync(file)) {
    const before = checkSection(schema, readJson(file), { whole: 'the record', locate: () => file });
    if (before.questions === record.questions) {
      const same = hashes(record) === hashes(before);
      return same ? undefined : 'the data files changed since the run began; the same problems are held out';
    }
    if (goesOn) {
      throw new TroupeError('the data files hold out other problems now than when the run began.', {
        where: file,
        hint: 'Some that it was trained on would be evaluated. Put back the files that it names, or start a new run.',
      });
    }
    let number = 1;
    while (existsSync(join(folder, `split.${number}.json`))) number += 1;
    onFile(folder, () => renameSync(file, join(folder, `split.${number}.json`)));
  }
  writeFileWhole(file, `${JSON.stringify(record)}\n`);
  return undefined;
}

function hashes({ files, evaluationFiles = [] }: z.output<typeof schema>): string {
  return [files, evaluationFiles].map((some) => some.map(({ sha256 }) => sha256).join()).join(';');
}
