/** Rows of CSV and TSV (RFC 4180, as pandas writes it): the first record names the columns, every value is text. */
import { pipeline, Readable } from 'node:stream';
import { parse } from 'csv-parse';
import type { ReadRow, Row } from './data-row.js';
import { asUtf8, MOST_OF_ROW } from './text.js';

const BATCH = 1000;

interface Record {
  record: string[];
  /** `lines`: the line that the record ends in. */
  info: { lines: number };
}

/** Numbered by the line that a row ends in. Throws an Error where quotes do not end, or two columns share a name. */
export async function* csvRows(
  name: string,
  bytes: AsyncIterable<Buffer>,
  delimiter: string,
): AsyncGenerator<ReadRow[]> {
  const parser = parse({
    delimiter,
    // Each line by itself: files that were joined or edited elsewhere have several.
    record_delimiter: ['\r\n', '\n', '\r'],
    info: true,
    relax_column_count: true,
    relax_quotes: true,
    skip_empty_lines: true,
    max_record_size: MOST_OF_ROW,
  });
  // What breaks on the way destroys the parser with its error, which the loop below throws.
  pipeline(Readable.from(decoded(asUtf8(bytes))), parser, () => undefined);
  let columns: string[] | undefined;
  let rows: ReadRow[] = [];
  for await (const { record, info } of parser as AsyncIterable<Record>) {
    if (columns === undefined) columns = header(record);
    else rows.push(rowOf(`${name}:${info.lines}`, columns, record));
    if (rows.length < BATCH) continue;
    yield rows;
    rows = [];
  }
  yield rows;
}

async function* decoded(bytes: AsyncIterable<Buffer>): AsyncGenerator<string> {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  try {
    for await (const piece of bytes) yield decoder.decode(piece, { stream: true });
    yield decoder.decode();
  } catch (error) {
    if (error instanceof TypeError) throw new Error('it is not UTF-8 text; save it as UTF-8');
    throw error;
  }
}

function header(columns: string[]): string[] {
  const twice = columns.find((column, i) => column !== '' && columns.indexOf(column) !== i);
  if (twice !== undefined) throw new Error(`its first line names the column ${JSON.stringify(twice)} twice`);
  return columns;
}

function rowOf(where: string, columns: string[], values: string[]): ReadRow {
  if (values.length !== columns.length) {
    return { where, error: `has ${values.length} values for ${columns.length} columns` };
  }
  return {
    where,
    row: Object.fromEntries(columns.map((column, i): [string, unknown] => [column, values[i]])) as Row,
  };
}
