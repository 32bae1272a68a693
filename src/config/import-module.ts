/**
 * Imports a user's file: workflow, loss, reward or task. TypeScript is transpiled on import (types are not
 * checked), because Node 20 runs only JavaScript; see typescript-hooks.mjs.
 */
import { existsSync } from 'node:fs';
import { register } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { TroupeError } from './errors.js';
import { findPath, packageRoot } from './package.js';
import { addUserFile, settled } from './user-code.js';

/** What a user's file must export as default. */
export interface WantedExport<T> {
  /** "workflow", "loss", … */
  what: string;
  /** In words, for the error: "an object with name, roles and run". */
  takes: string;
  is(value: unknown): value is T;
}

let registered = false;

/** The default export of `file`. Throws a TroupeError if it is not there, does not load, or has another shape. */
export async function importUserModule<T>(file: string, wanted: WantedExport<T>): Promise<T> {
  const path = findPath(file);
  if (!existsSync(path)) {
    throw new TroupeError(`no such file; the ${wanted.what} module was to be imported from it.`, {
      where: path,
    });
  }
  if (/\.m?ts$/.test(path) && !registered) {
    register(pathToFileURL(join(packageRoot(), 'src', 'config', 'typescript-hooks.mjs')));
    registered = true;
  }
  addUserFile(path);
  const exported = await importFile(path, wanted.what);
  if (!wanted.is(exported.default)) {
    const names = Object.keys(exported).join(', ') || 'nothing';
    throw new TroupeError(`has to export ${wanted.takes} as default; it exports ${names}.`, { where: path });
  }
  return exported.default;
}

async function importFile(path: string, what: string): Promise<Record<string, unknown>> {
  try {
    const promise = import(pathToFileURL(path).href) as Promise<Record<string, unknown>>;
    return await settled(promise, { where: path, what: `the ${what} module` });
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new TroupeError(`the ${what} module does not load: ${message}`, {
      where: path,
      cause: error,
    });
  }
}
