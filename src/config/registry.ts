/**
 * What a section of the configuration picks by name: tasks, workflows, losses, estimators, rewards. Each kind is a
 * registry of the same shape: an entry has the schema of its settings and makes the thing of them. A section with
 * `module` instead of `name` means a user's file, which becomes an entry as well: its default export is the thing, or
 * what makes it, and it may export a zod schema of its settings as `schema`. Where a kind takes Python, `python` means a
 * user's file of that.
 */
import { z } from 'zod';
import { checkSection, type KeyPath } from './check.js';
import { TroupeError } from './errors.js';
import { unset } from './load.js';
import { unknownName } from './nearest.js';
import { ownValue } from './own-value.js';
import { findPath, isPythonFile } from './package.js';
import { nodeAt, schemaNode } from './takes.js';
import { shownFile } from './user-code.js';

export interface Entry<Made, Context = void> {
  /** Settings of this entry, with their defaults. */
  schema: z.ZodType;
  /** `settings`: as the schema gives them. */
  make(settings: unknown, context: Context): Made | Promise<Made>;
}

/** `About`: what else is known of an entry before it is made, of a user's file in part. */
export interface Registry<Made, Context = void, About = unknown> {
  /** What messages call one of them: "task". */
  what: string;
  entries: Readonly<Record<string, Entry<Made, Context> & About>>;
  /** A user's file as an entry. Throws a TroupeError where the file is none. */
  fromFile(file: string): Promise<Entry<Made, Context> & Partial<About>>;
  /** The same for a user's Python file; left out: there is none of this kind. */
  fromPython?(file: string): Entry<Made, Context> & Partial<About>;
  /** Key of the section that holds the settings; left out: they stand beside `name`. */
  settings?: string;
}

/** What a configuration says: which entry, and its settings. */
export interface Section {
  name?: string | undefined;
  module?: string | undefined;
  python?: string | undefined;
  [setting: string]: unknown;
}

export interface SectionPlace {
  /** Where the section is in the configuration: ['learning', 'loss']. */
  path: readonly string[];
  /** Where a key was written, for errors. */
  locate?: ((path: KeyPath) => string | undefined) | undefined;
}

export interface CheckedEntry<Made, Context, About = unknown> {
  entry: Entry<Made, Context> & Partial<About>;
  /** With the defaults of its schema. */
  settings: unknown;
  /** Whom errors are about: "task math", or the user's file. */
  where: string;
}

/** An entry of this program, whose settings have the type that its schema gives them. */
export function entry<S extends z.ZodType, Made, Context = void>(
  schema: S,
  make: (settings: z.output<S>, context: Context) => Made | Promise<Made>,
): Entry<Made, Context> {
  return { schema, make: (settings, context) => make(settings as z.output<S>, context) };
}

/** Settings of a user's file that says nothing of them. */
export const anySettings = z.record(z.string(), z.unknown());

/** The schema of a user's file with what every one of its kind has. Throws a TroupeError if it is not of an object. */
export function withFields(schema: z.ZodType | undefined, fields: z.ZodRawShape, where: string): z.ZodType {
  if (schema === undefined) return z.looseObject(fields);
  if ('extend' in schema) return (schema as z.ZodObject).extend(fields);
  throw new TroupeError('has a schema that is not of an object; it takes z.object({ … }).', { where });
}

/** Throws a TroupeError for an unknown name, a wrong module or a wrong setting. */
export async function checkEntry<Made, Context, About>(
  registry: Registry<Made, Context, About>,
  section: Section,
  { path, locate }: SectionPlace,
): Promise<CheckedEntry<Made, Context, About>> {
  const { file, ...beside } = fileOf(registry, section);
  const found = await findEntry(registry, section, { path, locate });
  const { settings: key } = registry;
  const given = key === undefined ? beside : ((section[key] ?? {}) as Record<string, unknown>);
  const settings = checkSection(found.schema, unset(given, schemaNode(found.schema)), {
    path: (key === undefined ? path : [...path, key]).join('.'),
    ...(locate && { locate }),
  });
  const where = file === undefined ? `${registry.what} ${section.name}` : shownFile(findPath(file));
  return { entry: found, settings, where };
}

/** The thing itself. Throws as `checkEntry` does, and whatever making it throws. */
export async function openEntry<Made, Context>(
  registry: Registry<Made, Context>,
  section: Section,
  place: SectionPlace,
  context: Context,
): Promise<Made> {
  const { entry: found, settings } = await checkEntry(registry, section, place);
  return await found.make(settings, context);
}

/** The user's Python file that a section names. The settings of an entry may have an interpreter under the same key. */
function pythonFile<Made, Context, About>(
  { fromPython, entries }: Registry<Made, Context, About>,
  { name = '', python }: Section,
): string | undefined {
  if (fromPython === undefined || python === undefined) return undefined;
  const named = ownValue(entries, name);
  const isSetting = named !== undefined && nodeAt(schemaNode(named.schema), ['python']) !== undefined;
  return isSetting && !isPythonFile(python) ? undefined : python;
}

/** The user's file that a section names, and the settings beside. */
function fileOf<Made, Context, About>(
  registry: Registry<Made, Context, About>,
  section: Section,
): Record<string, unknown> & { file: string | undefined } {
  const { name: _, module, ...beside } = section;
  const file = module ?? pythonFile(registry, section);
  if (file === undefined) return { ...beside, file };
  const { python: __, ...settings } = beside;
  return { ...settings, file };
}

async function findEntry<Made, Context, About>(
  registry: Registry<Made, Context, About>,
  section: Section,
  { path, locate }: SectionPlace,
): Promise<Entry<Made, Context> & Partial<About>> {
  const { what, entries, fromFile, fromPython } = registry;
  const { name = '', module } = section;
  if (module !== undefined) return await fromFile(module);
  const python = pythonFile(registry, section);
  if (python !== undefined && fromPython !== undefined) return fromPython(python);
  const found = ownValue(entries, name);
  if (found !== undefined) return found;
  const where = locate?.([...path, 'name']) ?? [...path, 'name'].join('.');
  throw unknownName(what, name, Object.keys(entries), where);
}
