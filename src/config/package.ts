/** Where Troupe's own files lie, from the sources as from build/js, and how a configured path is found. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

let root: string | undefined;

/** Folder of Troupe's package.json. */
export function packageRoot(): string {
  root ??= findRoot(dirname(fileURLToPath(import.meta.url)));
  return root;
}

function findRoot(start: string): string {
  for (let folder = start; ; folder = dirname(folder)) {
    const file = join(folder, 'package.json');
    if (existsSync(file) && JSON.parse(readFileSync(file, 'utf8')).name === 'troupe') return folder;
    if (dirname(folder) === folder) throw new Error(`no package.json of troupe above ${start}`);
  }
}

/**
 * A path of the configuration: absolute, or in the working directory, or, if nothing is there, in Troupe's own
 * folder. Where neither exists, the one in the working directory, for the error message of who opens it.
 */
export function findPath(path: string): string {
  if (isAbsolute(path)) return path;
  const here = resolve(path);
  const own = join(packageRoot(), path);
  return !existsSync(here) && existsSync(own) ? own : here;
}

/** What a person should know of a path that leads nowhere. */
export const pathHint = (path: string): { hint?: string } =>
  isAbsolute(path) ? {} : { hint: `"${path}" is looked for in the working directory.` };

/** Whether `python` of a section is a user's file; else it is an interpreter. */
export const isPythonFile = (python: unknown): python is string =>
  typeof python === 'string' && python.endsWith('.py');
