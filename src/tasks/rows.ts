/**
 * Reads the rows of data files: JSON lines, a JSON array, or Parquet. A row that is not an object, or that a
 * task cannot use, is skipped and counted, or an error with `strict`; either way it is named by file and line
 * (by its number, in files without lines).
 */
import { existsSync } from 'node:fs';
import { basename, extname } from 'node:path';
import { reasonOf, TroupeError } from '../config/errors.js';
import { nestsTooDeeply, readText } from '../config/json.js';
import { findPath } from '../config/package.js';
import { parseJson } from './code-values.js';
import { parquetRows } from './parquet.js';

export type Row = Record<string, unknown>;

/** One row, or why there is none. `where`: "gsm8k.jsonl:12". */
export interface ReadRow {
  where: string;
  row?: Row;
  error?: string;
}

export interface RowOptions {
  strict: boolean;
  /** Is told once what was skipped. */
  warn(message: string): void;
}

/** Why a row cannot be used, in a few words: "has no answer". */
export class BadRow extends Error {}

/**
 * The rows of all files as `use` makes them. Throws a TroupeError for a file that cannot be read, for no usable
 * row at all, and with `strict` for the first row for which `use` throws a BadRow.
 */
export async function readRows<T>(
  paths: readonly string[],
  use: (row: Row, where: string) => T,
  { strict, warn }: RowOptions,
): Promise<T[]> {
  const used: T[] = [];
  const skipped: string[] = [];
  let count = 0;
  for (const path of paths) {
    for (const read of await rowsOf(path)) {
      count++;
      const result = usable(read, use);
      if ('value' in result) used.push(result.value);
      else if (strict) throw new TroupeError(`${result.error}.`, { where: read.where });
      else skipped.push(`${read.where}: ${result.error}`);
    }
  }
  if (used.length === 0) {
    throw new TroupeError(`has no usable row${skipped.length > 0 ? `; ${some(skipped)}` : ''}.`, {
      where: paths.join(', '),
    });
  }
  if (skipped.length > 0) warn(`skipped ${skipped.length} of ${count} data rows: ${some(skipped)}.`);
  return used;
}

function usable<T>(
  { row, where, error }: ReadRow,
  use: (row: Row, where: string) => T,
): { value: T } | { error: string } {
  if (row === undefined) return { error: error ?? 'is not an object' };
  try {
    return { value: use(row, where) };
  } catch (problem) {
    if (problem instanceof BadRow) return { error: problem.message };
    throw problem;
  }
}

const SHOWN = 3;

function some(messages: string[]): string {
  const more = messages.length - SHOWN;
  return `${messages.slice(0, SHOWN).join('; ')}${more > 0 ? `; and ${more} more` : ''}`;
}

async function rowsOf(path: string): Promise<ReadRow[]> {
  const file = findPath(path);
  const name = basename(file);
  if (!existsSync(file)) {
    throw new TroupeError('there is no such data file.', { where: file, hint: 'Check task.files.' });
  }
  try {
    if (extname(file) === '.parquet') return numbered(name, await parquetRows(file));
    const text = readText(file);
    return /^\s*\[/.test(text) ? numbered(name, arrayRows(text)) : parseLines(name, text);
  } catch (error) {
    if (error instanceof TroupeError) throw error;
    throw new TroupeError(`cannot be read as data rows: ${reasonOf(error)}.`, { where: file, cause: error });
  }
}

function arrayRows(text: string): unknown[] {
  const value = parseJson(text);
  if (!Array.isArray(value)) throw new Error('is not a JSON array');
  return value;
}

function numbered(name: string, rows: readonly unknown[]): ReadRow[] {
  return rows.map((row, i) => asRow(`${name}:${i + 1}`, row));
}

/** The rows of JSON lines; empty lines are none. */
export function parseLines(name: string, text: string): ReadRow[] {
  return text.split('\n').flatMap((line, i) => {
    if (line.trim() === '') return [];
    const where = `${name}:${i + 1}`;
    try {
      return [asRow(where, parseJson(line))];
    } catch (error) {
      return [{ where, error: `is not JSON (${reasonOf(error)})` }];
    }
  });
}

function asRow(where: string, row: unknown): ReadRow {
  const isObject = typeof row === 'object' && row !== null && !Array.isArray(row);
  if (!isObject) return { where, error: 'is not an object' };
  return nestsTooDeeply(row) ? { where, error: 'nests too deeply' } : { where, row: row as Row };
}

/** The text under the first of `keys` that has one; "reward_model.ground_truth" goes into objects. */
export function textOf(row: Row, keys: readonly string[]): string | undefined {
  for (const key of keys) {
    const value = valueAt(row, key);
    if (typeof value === 'string' && value.trim() !== '') return value.trim();
    if (typeof value === 'number' || typeof value === 'bigint') return String(value);
  }
  return undefined;
}

export function valueAt(row: Row, key: string): unknown {
  return key.split('.').reduce<unknown>((value, part) => {
    return typeof value === 'object' && value !== null ? (value as Row)[part] : undefined;
  }, row);
}

/** The question of a row: text, or the user's messages of a chat. */
export function questionOf(row: Row, keys: readonly string[]): string | undefined {
  const text = textOf(row, keys);
  if (text !== undefined) return text;
  const messages = keys.map((key) => valueAt(row, key)).find(Array.isArray) as unknown[] | undefined;
  const said = messages?.flatMap((message) => {
    const { role, content } = (message ?? {}) as Row;
    return role === 'user' && typeof content === 'string' ? [content.trim()] : [];
  });
  return said === undefined || said.join('').trim() === '' ? undefined : said.join('\n\n');
}
