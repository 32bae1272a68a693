/**
 * The files of a user's own that a run is made of: modules and Python files with what they import, prompts, data. What a
 * file imports is known once it has been: to a process that does not load a file, from the record of one that did.
 */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { onFile } from '../config/files.js';
import { importedFiles } from '../config/import-module.js';
import { findPath, isPythonFile } from '../config/package.js';
import { pythonFiles } from '../config/python-process.js';
import type { Section } from '../config/registry.js';
import type { RunConfig } from '../config/schema.js';
import type { FileDigest } from '../runs/file-record.js';
import { sha256Of } from '../tasks/split.js';
import type { RunParts } from './trainer.js';

type Opened = Pick<RunParts, 'config' | 'open' | 'task'>;

/** In the order of the configuration, each once; data files last. */
export async function ownFiles(opened: Opened): Promise<FileDigest[]> {
  const split = await opened.task.split?.();
  return [...codeDigests(opened), ...(split?.files ?? []), ...(split?.evaluationFiles ?? [])];
}

/** The same without data. */
export function codeDigests(opened: Pick<Opened, 'config' | 'open'>): FileDigest[] {
  return codeFiles(opened).flatMap(digestNow);
}

/** Code that has been loaded since, as by a function that imports. */
export function lateFiles(
  opened: Pick<Opened, 'config' | 'open'>,
  known: readonly FileDigest[],
): FileDigest[] {
  const paths = new Set(known.map(({ file }) => file));
  const late = codeFiles(opened).filter((file) => !paths.has(file));
  return late.flatMap(digestNow).map((one) => ({ ...one, late: true }));
}

function codeFiles({ config, open }: Pick<Opened, 'config' | 'open'>): string[] {
  const code = sections(config).flatMap(filesOf);
  return [...new Set(open.prompts === undefined ? code : [...code, open.prompts.file])];
}

/**
 * The files of a record beside what each is now: as this process has `loaded` it, from where it lay or under the same name
 * elsewhere, or else as it lies where it lay. Files that are in neither place are left out.
 */
export async function besideNow(
  record: readonly FileDigest[],
  loaded: readonly FileDigest[],
): Promise<{ before: FileDigest; now: FileDigest }[]> {
  const paths = new Set(record.map(({ file }) => file));
  const moved = new Set(loaded.filter(({ file }) => !paths.has(file)));
  const pairs: { before: FileDigest; now: FileDigest }[] = [];
  for (const before of record) {
    const { file } = before;
    const here = loaded.find((one) => one.file === file);
    const elsewhere = [...moved].find((one) => basename(one.file) === basename(file));
    const now = here ?? elsewhere ?? (existsSync(file) ? { file, sha256: await sha256Of(file) } : undefined);
    if (now === undefined) continue;
    // Another file of the same name is beside another one.
    moved.delete(now);
    pairs.push({ before, now });
  }
  return pairs;
}

const sections = ({ workflow, task, learning }: RunConfig): Section[] => [
  workflow,
  task,
  learning.estimator,
  learning.loss,
  ...learning.reward,
];

/** `python` of a task by name is an interpreter. */
function filesOf({ module, python }: Section): string[] {
  if (module !== undefined) return importedFiles(module);
  return isPythonFile(python) ? pythonFiles(findPath(python)) : [];
}

/** None of a file that is gone: it may remove itself as it loads. */
function digestNow(file: string): FileDigest[] {
  if (!existsSync(file)) return [];
  const sha256 = onFile(file, () => createHash('sha256').update(readFileSync(file)).digest('hex'));
  return [{ file, sha256 }];
}
