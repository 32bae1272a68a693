/**
 * Rows of data as tasks see them: what is in a row by the names of its columns, and which rows a task can use. A row
 * that it cannot is skipped and counted, or an error with `strict`; either way it is named by file and line (by its
 * number, in files without lines). Reading the files is in data-files/.
 */
import { TroupeError } from '../config/errors.js';
import { dataSetOnHub, isDataSetOnHub } from '../engine/hub.js';
import { dataFilesFromHub } from '../engine/hub-download.js';
import type { ReadRow, Row } from './data-files/data-row.js';
import { rowsOf } from './data-files/rows-of.js';

export type { ReadRow, Row };

export interface RowOptions {
  strict: boolean;
  /** Is told once what was skipped. */
  warn(message: string): void;
  /** From the names that the task reads to the columns that hold them: { question: "prompt.text" }. */
  fields?: Readonly<Record<string, string | undefined>> | undefined;
}

/** Why a row cannot be used, in a few words: "is an interactive problem". */
export class BadRow extends Error {}

/** A row without something that a task needs: "has no answer". Which columns it has is said behind it. */
export class MissingColumn extends BadRow {}

/**
 * The rows of all files (`localFiles`) as `use` makes them, undefined for one that is skipped. Throws a TroupeError for a file that cannot be read, for no usable
 * row at all, and with `strict` for the first row for which `use` throws a BadRow.
 */
export async function* usableRows<T>(
  paths: readonly string[],
  use: (row: Row, where: string) => T,
  { strict, warn, fields }: RowOptions,
): AsyncGenerator<T | undefined> {
  const skipped = new Skipped();
  let count = 0;
  for (const path of paths) {
    for await (const rows of rowsOf(path)) {
      for (const read of rows) {
        const result = usable(read, use, fields ?? {});
        count++;
        if ('value' in result) yield result.value;
        else if (strict) throw new TroupeError(`${result.error}.`, { where: read.where });
        else {
          skipped.add(read.where, result.error);
          yield undefined;
        }
      }
    }
  }
  if (skipped.count === count) {
    throw new TroupeError(`has no usable row${count > 0 ? `; ${skipped}` : ''}.`, {
      where: paths.join(', '),
      ...(count > 0 ? { hint: 'task.fields maps columns of other names (docs/data.md).' } : {}),
    });
  }
  if (skipped.count > 0) warn(`skipped ${skipped.count} of ${count} data rows: ${skipped}.`);
}

/** The files that a list names: those of the hub as they lie in its cache, downloaded where they do not. */
export async function localFiles(paths: readonly string[]): Promise<string[]> {
  const found: string[] = [];
  for (const path of paths) {
    if (isDataSetOnHub(path)) found.push(...(await dataFilesFromHub(dataSetOnHub(path))));
    else found.push(path);
  }
  return found;
}

function usable<T>(
  { row, where, error }: ReadRow,
  use: (row: Row, where: string) => T,
  fields: NonNullable<RowOptions['fields']>,
): { value: T } | { error: string } {
  if (row === undefined) return { error: error ?? 'is not an object' };
  try {
    return { value: use(mapped(row, fields), where) };
  } catch (problem) {
    if (problem instanceof MissingColumn) return { error: `${problem.message}; ${columnsOf(row)}` };
    if (problem instanceof BadRow) return { error: problem.message };
    throw problem;
  }
}

/** The row with what lies in the named columns under the names that the task reads, which come before others. */
function mapped(row: Row, fields: NonNullable<RowOptions['fields']>): Row {
  const named = Object.entries(fields).filter((entry): entry is [string, string] => entry[1] !== undefined);
  if (named.length === 0) return row;
  const values = named.map(([name, column]): [string, unknown] => {
    const value = valueAt(row, column);
    if (value === undefined) throw new MissingColumn(`has no ${column}, which task.fields.${name} names`);
    return [name, value];
  });
  return { ...row, ...Object.fromEntries(values) };
}

const SHOWN_COLUMNS = 20;

/** "its columns are id, prompt, reward_model.ground_truth": the names down to the second level. */
function columnsOf(row: Row): string {
  const names = Object.entries(row).flatMap(([key, value]) => {
    const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
    const inner = isObject ? Object.keys(value).map((name) => `${key}.${name}`) : [];
    return inner.length > 0 ? inner : [key];
  });
  if (names.length === 0) return 'it has no columns';
  const shown = names.slice(0, SHOWN_COLUMNS).map(shownName);
  const more = names.length - shown.length;
  return `its columns are ${shown.join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
}

/** A foreign name as it can stand in a sentence. */
function shownName(name: string): string {
  const plain = name.replace(/[\p{C}\p{Z}]+/gu, ' ').trim();
  if (plain !== name && name.trim() === plain) return JSON.stringify(name);
  return plain === '' ? '""' : plain.length > 40 ? `${plain.slice(0, 40)}…` : plain;
}

const SHOWN = 3;

/** How many rows were skipped, and the first few reasons with the first row that each is true of. */
class Skipped {
  count = 0;
  readonly #reasons = new Map<string, { where: string; count: number }>();

  add(where: string, reason: string): void {
    this.count++;
    const known = this.#reasons.get(reason);
    if (known !== undefined) known.count++;
    else if (this.#reasons.size < SHOWN) this.#reasons.set(reason, { where, count: 1 });
  }

  /** "a.jsonl:2 and 7 more: has no answer; a.jsonl:5: is not JSON (…); and 3 more". */
  toString(): string {
    const shown = [...this.#reasons].map(([reason, { where, count }]) => {
      return `${where}${count > 1 ? ` and ${count - 1} more` : ''}: ${reason}`;
    });
    const named = [...this.#reasons.values()].reduce((sum, { count }) => sum + count, 0);
    return `${shown.join('; ')}${this.count > named ? `; and ${this.count - named} more` : ''}`;
  }
}

/** The text under the first of `keys` that has one; "reward_model.ground_truth" goes into objects. */
export function textOf(row: Row, keys: readonly string[]): string | undefined {
  for (const key of keys) {
    const value = valueAt(row, key);
    if (typeof value === 'string' && value.trim() !== '') return value.trim();
    // NaN is how pandas writes that there is nothing.
    if ((typeof value === 'number' && !Number.isNaN(value)) || typeof value === 'bigint')
      return String(value);
  }
  return undefined;
}

/** What lies under a name, or a path with points into objects and lists; a column may have points in its own name. */
export function valueAt(row: unknown, key: string): unknown {
  if (typeof row !== 'object' || row === null) return undefined;
  if (Object.hasOwn(row, key)) return (row as Row)[key];
  for (let dot = key.indexOf('.'); dot >= 0; dot = key.indexOf('.', dot + 1)) {
    const first = key.slice(0, dot);
    if (Object.hasOwn(row, first)) return valueAt((row as Row)[first], key.slice(dot + 1));
  }
  return undefined;
}

/** The question of a row: the first text, or the user's messages of the first chat, under one of `keys`. */
export function questionOf(row: Row, keys: readonly string[]): string | undefined {
  for (const key of keys) {
    const question = textOf(row, [key]) ?? saidIn(valueAt(row, key));
    if (question !== undefined) return question;
  }
  return undefined;
}

function saidIn(messages: unknown): string | undefined {
  if (!Array.isArray(messages)) return undefined;
  const said = messages.flatMap((message: unknown) => {
    const { role, content } = (message ?? {}) as Row;
    return role === 'user' && typeof content === 'string' ? [content.trim()] : [];
  });
  return said.join('').trim() === '' ? undefined : said.join('\n\n');
}
