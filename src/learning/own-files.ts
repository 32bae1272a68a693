/** The files of a user's own that a run is made of: modules and Python files with what they import, prompts, data. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { onFile } from '../config/files.js';
import { importedFiles } from '../config/import-module.js';
import { findPath, isPythonFile } from '../config/package.js';
import { pythonFiles } from '../config/python-process.js';
import type { Section } from '../config/registry.js';
import type { RunConfig } from '../config/schema.js';
import type { FileDigest } from '../runs/file-record.js';
import type { RunParts } from './trainer.js';

type Opened = Pick<RunParts, 'config' | 'open' | 'task'>;

/** In the order of the configuration, each once; data files last. */
export async function ownFiles(opened: Opened): Promise<FileDigest[]> {
  const split = await opened.task.split?.();
  return [...codeDigests(opened), ...(split?.files ?? []), ...(split?.evaluationFiles ?? [])];
}

/** The same without data. */
export function codeDigests({ config, open }: Pick<Opened, 'config' | 'open'>): FileDigest[] {
  const code = sections(config).flatMap(filesOf);
  const files = open.prompts === undefined ? code : [...code, open.prompts.file];
  // A file may remove itself as it loads.
  return [...new Set(files)]
    .filter((file) => existsSync(file))
    .map((file) => ({ file, sha256: digest(file) }));
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

const digest = (file: string) =>
  onFile(file, () => createHash('sha256').update(readFileSync(file)).digest('hex'));
