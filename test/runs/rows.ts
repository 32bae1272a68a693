/** Columns as plain rows, the way a reader of the stream file sees them. */
import { tableFromIPC } from 'apache-arrow';
import type { TableColumns } from '../../src/streams/arrow-schema.js';
import { encodeStream } from '../../src/streams/stream-writer.js';
import type { TableName } from '../../src/streams/tables.js';

export type Row = Record<string, unknown>;

export function rowsOf<N extends TableName>(table: N, columns: TableColumns<N>): Row[] {
  const { header, body } = encodeStream(table, columns);
  return tableFromIPC(Buffer.concat([header, body]))
    .toArray()
    .map((row) => row.toJSON());
}
