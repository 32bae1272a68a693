/** A row of a data file. */

export type Row = Record<string, unknown>;

/** One row, or why there is none. `where`: "gsm8k.jsonl:12". */
export interface ReadRow {
  where: string;
  row?: Row;
  error?: string;
}
