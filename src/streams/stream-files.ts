/** Where the streams of a run lie, and how much is in them: what can be asked without Arrow, which takes long to load. */
import { closeSync, existsSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { onFile } from '../config/files.js';
import { fileSource, scanMessages } from './stream-messages.js';
import { TABLES, type TableName } from './tables.js';

export const TABLE_NAMES = Object.keys(TABLES) as TableName[];

/** File of a table in the folder of a run. */
export function streamPath(run: string, table: TableName): string {
  return join(run, 'streams', `${table}.arrows`);
}

/** Whole record batches of a stream, one for each append; 0 where there is no such file. */
export function countBatches(path: string): number {
  if (!existsSync(path)) return 0;
  return onFile(path, () => {
    const descriptor = openSync(path, 'r');
    try {
      return [...scanMessages(fileSource(descriptor))].filter(({ kind }) => kind === 'batch').length;
    } finally {
      closeSync(descriptor);
    }
  });
}
