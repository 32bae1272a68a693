/** The streams of a run as Parquet files, for programs that read no Arrow streams, such as DuckDB's shell. */

import { join } from 'node:path';
import { DataType, type Table, type Vector } from 'apache-arrow';
import { type BasicType, type ColumnSource, parquetWriteBuffer } from 'hyparquet-writer';
import { TroupeError } from '../config/errors.js';
import { onFile, writeFileWhole } from '../config/files.js';
import { makeFolder } from '../config/make-folder.js';
import type { TableName } from '../streams/tables.js';
import { readTables } from './read-tables.js';
import { readRunConfig } from './run-directory.js';

export interface ExportedTable {
  table: TableName;
  path: string;
  rows: number;
}

/**
 * Writes one file per table, up to its last whole batch; the run may go on meanwhile. Files that are there are
 * replaced. Throws a TroupeError if the folder is no run, if the run has no rows yet, or if a stream has another
 * schema version. `warn` is told what was left out.
 */
export function exportParquet(
  run: string,
  folder: string,
  warn: (message: string) => void = () => {},
): ExportedTable[] {
  readRunConfig(run);
  const tables = [...readTables(run)];
  for (const { leftOut } of tables) if (leftOut !== undefined) warn(leftOut);
  if (tables.every(({ table }) => table.numRows === 0)) {
    throw new TroupeError('has no rows yet.', { where: run, hint: 'Export it after its first step.' });
  }
  onFile(folder, () => makeFolder(folder));
  return tables.map(({ name, table }) => {
    const path = join(folder, `${name}.parquet`);
    writeFileWhole(path, toParquet(table));
    return { table: name, path, rows: table.numRows };
  });
}

function toParquet(table: Table): Uint8Array {
  const columnData = table.schema.fields.map((field): ColumnSource => {
    const vector = table.getChild(field.name);
    if (vector === null) throw new Error(`no column ${field.name}`);
    const type = basicType(field.type);
    return { name: field.name, type, nullable: field.nullable, data: valuesOf(vector, type) };
  });
  const kvMetadata = [...table.schema.metadata].map(([key, value]) => ({ key, value }));
  return new Uint8Array(parquetWriteBuffer({ columnData, kvMetadata, createdBy: 'troupe' }));
}

function basicType(type: DataType): BasicType {
  if (DataType.isInt(type)) return type.bitWidth === 64 ? 'INT64' : 'INT32';
  if (DataType.isFloat(type)) return 'DOUBLE';
  if (DataType.isBool(type)) return 'BOOLEAN';
  if (DataType.isTimestamp(type)) return 'TIMESTAMP';
  if (DataType.isUtf8(type) || DataType.isDictionary(type)) return 'STRING';
  throw new Error(`no Parquet type for ${type}`);
}

function valuesOf(vector: Vector, type: BasicType): ColumnSource['data'] {
  if (type === 'TIMESTAMP') return Array.from(vector, (value) => (value === null ? null : new Date(value)));
  const numbers = type === 'INT32' || type === 'INT64' || type === 'DOUBLE';
  return numbers && vector.nullCount === 0 ? vector.toArray() : Array.from(vector);
}
