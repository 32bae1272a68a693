/** Where the streams of a run lie, and how much is in them: what can be asked without Arrow, which takes long to load. */
import { closeSync, existsSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { onFile } from '../config/files.js';
import { fileSource, type StreamMessage, scanMessages } from './stream-messages.js';
import { TABLES, type TableName } from './tables.js';

export const TABLE_NAMES = Object.keys(TABLES) as TableName[];

/** File of a table in the folder of a run. */
export function streamPath(run: string, table: TableName): string {
  return join(run, 'streams', `${table}.arrows`);
}

/** Whole record batches of a stream, one for each append; 0 where there is no such file. */
export function countBatches(path: string): number {
  return messagesOf(path).filter(({ kind }) => kind === 'batch').length;
}

/** Whether the stream holds whole messages up to the byte `end`. */
export function holdsUpTo(path: string, end: number): boolean {
  return messagesOf(path).some(({ offset, bytes }) => offset + bytes === end);
}

function messagesOf(path: string): StreamMessage[] {
  if (!existsSync(path)) return [];
  return onFile(path, () => {
    const descriptor = openSync(path, 'r');
    try {
      return [...scanMessages(fileSource(descriptor))];
    } finally {
      closeSync(descriptor);
    }
  });
}
