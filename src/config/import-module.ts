/**
 * Imports a user's file: workflow, loss, reward or task. 'troupe' and 'zod' are found from wherever it lies, and TypeScript
 * is transpiled (types are not checked), because Node 20 runs only JavaScript; see typescript-hooks.mjs.
 */
import { existsSync } from 'node:fs';
import { register } from 'node:module';
import { join, sep } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { z } from 'zod';
import { TroupeError } from './errors.js';
import { addOwnFile } from './own-files.js';
import { findPath, packageRoot } from './package.js';
import { shownValue } from './thrown.js';
import { addUserFile, caught, settled, shownFile, thrownAt } from './user-code.js';

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
  return (await importWithSchema(file, wanted)).exported;
}

/** The same, and the zod schema of its settings, where it exports one as `schema`. */
export async function importWithSchema<T>(
  file: string,
  wanted: WantedExport<T>,
): Promise<{ exported: T; schema: z.ZodType | undefined }> {
  const path = findPath(file);
  if (!existsSync(path)) {
    throw new TroupeError(`no such file; the ${wanted.what} module was to be imported from it.`, {
      where: path,
    });
  }
  // Its own modules need no hooks, and every engine would pay for the hooks' thread.
  if (!registered && !path.startsWith(join(packageRoot(), 'build', 'js', sep))) {
    register(pathToFileURL(join(packageRoot(), 'src', 'config', 'typescript-hooks.mjs')));
    // Lines of TypeScript in messages.
    process.setSourceMapsEnabled(true);
    registered = true;
  }
  addOwnFile(path);
  addUserFile(path);
  const exported = await importFile(path, wanted.what);
  if (!wanted.is(exported.default)) {
    const names = Object.keys(exported).join(', ') || 'nothing';
    const got = 'default' in exported ? `that is ${shownValue(exported.default)}` : `it exports ${names}`;
    throw new TroupeError(`has to export ${wanted.takes} as default; ${got}.`, { where: path });
  }
  return { exported: exported.default, schema: checkSchema(exported.schema, path) };
}

/** Throws a TroupeError where a file's schema is none. */
export function checkSchema(schema: unknown, where: string): z.ZodType | undefined {
  if (schema === undefined || isSchema(schema)) return schema;
  throw new TroupeError(`has the schema ${shownValue(schema)}; it takes a zod schema.`, { where });
}

/** Not instanceof: the file may have another copy of zod. */
function isSchema(value: unknown): value is z.ZodType {
  return typeof (value as z.ZodType | null)?.safeParse === 'function';
}

async function importFile(path: string, what: string): Promise<Record<string, unknown>> {
  try {
    const promise = import(pathToFileURL(path).href) as Promise<Record<string, unknown>>;
    return await settled(promise, { where: path, what: `the ${what} module` });
  } catch (error) {
    throw new TroupeError(`the ${what} module does not load: ${caught(error).message}`, {
      where: thrownAt(shownFile(path), error),
      cause: error,
    });
  }
}
