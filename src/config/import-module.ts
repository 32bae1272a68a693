/**
 * Imports a user's file: workflow, loss, reward or task. 'troupe' and 'zod' are found from wherever it lies, and TypeScript
 * is transpiled (types are not checked), because Node 20 runs only JavaScript; see typescript-hooks.mjs.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, realpathSync } from 'node:fs';
import Module, { createRequire, register } from 'node:module';
import { isAbsolute, join, sep } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { MessageChannel, type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import type { z } from 'zod';
import { TroupeError } from './errors.js';
import { findPath, packageRoot, pathHint } from './package.js';
import { isUsersFile, shownValue } from './thrown.js';
import { addUserFile, caught, settled, shownFile, thrownAt } from './user-code.js';

/** What a user's file must export as default. */
export interface WantedExport<T> {
  /** "workflow", "loss", … */
  what: string;
  /** In words, for the error: "an object with name, roles and run". */
  takes: string;
  is(value: unknown): value is T;
}

/** Hears from the hooks which user's file imports which; undefined: they are not registered yet. */
let port: MessagePort | undefined;
/** Files that a user's file imports, as URLs. */
const imports = new Map<string, Set<string>>();

/** A user's module and the files that it imports, and they; packages are left out. `file` has been imported. */
export function importedFiles(file: string): string[] {
  for (let next = heard(); next !== undefined; next = heard()) addImport(...next);
  const path = findPath(file);
  const found = new Set([pathToFileURL(existsSync(path) ? realpathSync(path) : path).href]);
  for (const url of found) for (const next of imports.get(url) ?? []) found.add(next);
  return [...found].map((url) => fileURLToPath(url.replace(/[?#].*$/, '')));
}

const heard = () => port && (receiveMessageOnPort(port)?.message as [string, string] | undefined);

function addImport(from: string, to: string): void {
  imports.set(from, (imports.get(from) ?? new Set()).add(to));
}

/** CommonJS asks no hooks. Every `require` calls this method, those of createRequire too. */
function followRequires(): void {
  const { require: load } = Module.prototype;
  Module.prototype.require = function (this: Module, id: string): unknown {
    const exported: unknown = load.call(this, id);
    if (isUsersFile(this.filename ?? '')) {
      const path = createRequire(this.filename).resolve(id);
      if (isAbsolute(path) && isUsersFile(path))
        addImport(pathToFileURL(this.filename).href, pathToFileURL(path).href);
    }
    return exported;
  };
}

function registerHooks(): void {
  const { port1, port2 } = new MessageChannel();
  const hooks = pathToFileURL(join(packageRoot(), 'src', 'config', 'typescript-hooks.mjs'));
  register(hooks, { data: { port: port2 }, transferList: [port2] });
  port1.unref();
  followRequires();
  // Lines of TypeScript in messages.
  process.setSourceMapsEnabled(true);
  port = port1;
}

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
      ...pathHint(file),
    });
  }
  // Its own modules need no hooks, and every engine would pay for the hooks' thread.
  if (port === undefined && !path.startsWith(join(packageRoot(), 'build', 'js', sep))) registerHooks();
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
      where: (error instanceof SyntaxError && syntaxPlace(path)) || thrownAt(shownFile(path), error),
      cause: error,
    });
  }
}

/** Of a module that does not parse, Node tells no program the file, which may be an imported one, and the line; only a person. */
function syntaxPlace(path: string): string | undefined {
  for (const file of importedFiles(path)) {
    const { stderr } = spawnSync(process.execPath, ['--check', file], { encoding: 'utf8' });
    const [, line] = /^(?:file:\/\/)?\/.*:(\d+)\n/.exec(stderr) ?? [];
    if (line === undefined) continue;
    const at = `${shownFile(file)}:${line}`;
    return file === path ? at : `${shownFile(path)} (${at})`;
  }
  return undefined;
}
