/** Values of an Arrow table by column and row. */
import type { Table } from 'apache-arrow';

export interface Columns {
  /** Null where the value or the column is missing, or no finite number. */
  number(column: string, row: number): number | null;
  /** Null where the value or the column is missing. */
  text(column: string, row: number): string | null;
}

export function columnsOf(table: Table, ...names: readonly (readonly string[])[]): Columns {
  const vectors = new Map(names.flat().map((name) => [name, table.getChild(name)]));
  return {
    number(column, row) {
      const value: unknown = vectors.get(column)?.get(row);
      const number = typeof value === 'bigint' ? Number(value) : value;
      return typeof number === 'number' && Number.isFinite(number) ? number : null;
    },
    text(column, row) {
      const value: unknown = vectors.get(column)?.get(row);
      return typeof value === 'string' ? value : null;
    },
  };
}
