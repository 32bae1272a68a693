/** Arrow schemas of the tables in tables.ts. Rows: batch.ts. */
import {
  Bool,
  type DataType,
  Dictionary,
  Field,
  Float64,
  Int32,
  Int64,
  Schema,
  TimestampMillisecond,
  Utf8,
} from 'apache-arrow';
import type { ColumnSpec, Specs, Table } from './column-kinds.js';

/** In the metadata of every file. Raised when a column is removed or changes its meaning. */
export const SCHEMA_VERSION = 2;
export const VERSION_KEY = 'troupe.schema';
export const TABLE_KEY = 'troupe.table';

/** Arrow schema of a table. Every column has a dictionary of its own. */
export function arrowSchema(table: Table<Specs>): Schema {
  const fields = Object.entries(table.columns).map(([column, spec], index) => {
    const metadata = new Map([['description', spec.description]]);
    if (spec.unit !== undefined) metadata.set('unit', spec.unit);
    return new Field<DataType>(column, arrowType(spec, index), spec.nullable, metadata);
  });
  return new Schema(
    fields,
    new Map([
      [TABLE_KEY, table.name],
      [VERSION_KEY, String(SCHEMA_VERSION)],
    ]),
  );
}

function arrowType(spec: ColumnSpec<unknown>, dictionaryId: number): DataType {
  switch (spec.type) {
    case 'int32':
      return new Int32();
    case 'int64':
      return new Int64();
    case 'float64':
      return new Float64();
    case 'bool':
      return new Bool();
    case 'text':
      return new Utf8();
    case 'name':
      return new Dictionary(new Utf8(), new Int32(), dictionaryId, false);
    case 'time':
      return new TimestampMillisecond('UTC');
  }
}
