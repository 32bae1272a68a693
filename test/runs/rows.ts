/** Rows as a reader of the stream file sees them. */
import { tableFromIPC } from 'apache-arrow';
import { batchOf } from '../../src/streams/batch.js';
import type { RunVocabularies } from '../../src/streams/column-kinds.js';
import { encodeStream } from '../../src/streams/stream-writer.js';
import { TABLES, type TableName, type TableRow } from '../../src/streams/tables.js';

export type Row = Record<string, unknown>;

export function readBack<N extends TableName>(
  table: N,
  rows: readonly TableRow<N>[],
  words: RunVocabularies,
): Row[] {
  const { header, body } = encodeStream(table, batchOf(TABLES[table], rows, words));
  return tableFromIPC(Buffer.concat([header, body]))
    .toArray()
    .map((row) => row.toJSON());
}

/** Columns that a row does not name are null or, where they may not be, zero, empty or the first word. */
export function filled<N extends TableName>(table: N, row: Row, words: RunVocabularies): TableRow<N> {
  const entries = Object.entries(TABLES[table].columns).map(([name, { type, nullable, vocabulary }]) => {
    const list = vocabulary === 'roles' || vocabulary === 'policies' ? words[vocabulary] : vocabulary;
    const least = { name: list?.[0], text: '', bool: false }[type as string] ?? 0;
    return [name, row[name] ?? (nullable ? null : least)];
  });
  return Object.fromEntries(entries) as TableRow<N>;
}
