/** The streams of a run that are there, and what of them could not be read. */
import { existsSync } from 'node:fs';
import type { Table } from 'apache-arrow';
import { isInUse } from '../config/lock.js';
import { streamPath, TABLE_NAMES } from '../streams/stream-files.js';
import { readStream } from '../streams/stream-reader.js';
import type { TableName } from '../streams/tables.js';

export interface RunTable {
  name: TableName;
  table: Table;
  /** What was left out, in a sentence: bytes behind the last whole batch of a run that nobody writes. */
  leftOut?: string;
}

/** Every stream up to its last whole batch. A run may be older than a table, and so lack it. */
export function* readTables(
  run: string,
  wanted: (name: TableName) => boolean = () => true,
): Generator<RunTable> {
  for (const name of TABLE_NAMES) {
    const path = streamPath(run, name);
    if (!wanted(name) || !existsSync(path)) continue;
    const { table, cutBytes } = readStream(path);
    const complete = cutBytes === 0 || isInUse(run);
    yield complete ? { name, table } : { name, table, leftOut: leftOut(path, cutBytes) };
  }
}

export function leftOut(path: string, bytes: number): string {
  return `${path}: its last ${bytes} bytes are no whole batch and are left out.`;
}
