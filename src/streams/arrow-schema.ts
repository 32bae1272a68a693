/**
 * Arrow schemas and empty columns of the tables in tables.ts, and their description for docs/streams.md. Files
 * are written by stream-writer.ts and read by stream-reader.ts.
 */
import { type DataType, Field, Schema } from 'apache-arrow';
import type { Specs, Table } from './column-kinds.js';
import { arrowType, type Column, type ColumnSpec, newColumn, type RunVocabularies } from './columns.js';
import { TABLES, type TableName } from './tables.js';

/** In the metadata of every file. Raised when a column is removed or changes its meaning. */
export const SCHEMA_VERSION = 2;
export const VERSION_KEY = 'troupe.schema';
export const TABLE_KEY = 'troupe.table';

/** Columns that are being filled; one batch of a table. */
export type Columns<S> = { [K in keyof S]: S[K] extends ColumnSpec<infer V> ? Column<V> : never };

export type TableColumns<N extends TableName> = Columns<(typeof TABLES)[N]['columns']>;

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

/** Empty columns of a table, to be filled and handed to `RunStreams.append`. */
export function newColumns<N extends TableName>(table: N, vocabularies: RunVocabularies): TableColumns<N> {
  const specs: Specs = TABLES[table].columns;
  const { fields } = arrowSchema({ ...TABLES[table], columns: specs });
  const columns = fields.map(({ name: column, type }) => {
    const spec = specs[column] as ColumnSpec<unknown>;
    return [column, newColumn(`${table}.${column}`, spec, type, vocabularies)];
  });
  return Object.fromEntries(columns) as TableColumns<N>;
}

/** The section of docs/streams.md about a table, in Markdown. */
export function describeTable(table: Table<Specs>): string {
  const rows = Object.entries(table.columns).map(([column, spec]) => {
    const type = spec.nullable ? `${spec.type}, null` : spec.type;
    return `| \`${column}\` | ${type} | ${spec.unit ?? ''} | ${spec.description.replaceAll('|', '\\|')} |`;
  });
  return [
    `## ${table.name}`,
    '',
    table.description,
    '',
    '| column | type | unit | meaning |',
    '| --- | --- | --- | --- |',
    ...rows,
  ].join('\n');
}
