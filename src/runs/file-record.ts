/**
 * files.json: digests of the files of a user's own that a run works with, as its last process found them. Files are edited
 * between two processes, and may be; but what was measured before and after is not of the same run then.
 */
import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { z } from 'zod';
import type { Change } from '../config/changes.js';
import { checkSection } from '../config/check.js';
import { writeFileWhole } from '../config/files.js';
import { readJson } from '../config/json.js';
import { addChanges } from './run-directory.js';

const schema = z.array(z.object({ file: z.string(), sha256: z.string(), late: z.literal(true).optional() }));
/** A file and its SHA-256, in hexadecimal. `late`: it was not there to be seen at the start: a function imported it. */
export type FileDigest = z.output<typeof schema>[number];

const pathOf = (folder: string) => join(folder, 'files.json');

/** Of the run's last process; undefined: it wrote none down. Throws a TroupeError if the record is damaged. */
export function readFileRecord(folder: string): FileDigest[] | undefined {
  const path = pathOf(folder);
  if (!existsSync(path)) return undefined;
  return checkSection(schema, readJson(path), { whole: 'the record', locate: () => path });
}

/** Writes the record of a run with `step` steps, and to changes.json what differs from the one before; returns that. */
export function keepFiles(folder: string, files: readonly FileDigest[], step: number): Change[] {
  const changes = fileChanges(readFileRecord(folder) ?? files, files);
  addChanges(folder, step, changes);
  writeFileRecord(folder, files);
  return changes;
}

/** Files that the run has loaded since its record was written belong to it too. */
export function writeFileRecord(folder: string, files: readonly FileDigest[]): void {
  writeFileWhole(pathOf(folder), `${JSON.stringify(files, undefined, 2)}\n`);
}

/**
 * Files whose contents differ, by their names: those of a run that was moved lie elsewhere. Where a file is on one side
 * only, the other value is null.
 */
export function fileChanges(before: readonly FileDigest[], after: readonly FileDigest[]): Change[] {
  const [from, to] = [byName(before), byName(after)];
  return [...new Set([...to.keys(), ...from.keys()])].flatMap((name) => {
    const change = { key: `file ${name}`, from: from.get(name) ?? null, to: to.get(name) ?? null };
    return change.from === change.to ? [] : [change];
  });
}

/** Of files with the same name all digests together, twelve digits each. */
function byName(files: readonly FileDigest[]): Map<string, string> {
  const digests = new Map<string, string[]>();
  for (const { file, sha256 } of files) {
    const name = basename(file);
    digests.set(name, [...(digests.get(name) ?? []), sha256.slice(0, 12)].sort());
  }
  return new Map([...digests].map(([name, its]) => [name, its.join('+')]));
}

/** "rewards.py was edited, other.ts is new, lengths.py is no more". */
export function describeFileChanges(changes: readonly Change[]): string {
  const what = ({ from, to }: Change) =>
    from === null ? 'is new' : to === null ? 'is no more' : 'was edited';
  return changes.map((change) => `${change.key.replace('file ', '')} ${what(change)}`).join(', ');
}
