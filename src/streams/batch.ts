/**
 * The one place where rows become Arrow: every value is checked against its column's spec and goes into a typed array,
 * a bitmap or UTF-8 bytes. What does not fit is a TroupeError that names the table, the column, the row and the value.
 * The tables stand in tables.ts; files are written by stream-writer.ts, read by stream-reader.ts.
 */
import { type Data, makeData, RecordBatch, Struct, Utf8, vectorFromArray } from 'apache-arrow';
import { TroupeError } from '../config/errors.js';
import { shownValue } from '../config/thrown.js';
import { arrowSchema } from './arrow-schema.js';
import type { ColumnSpec, RunVocabularies, Specs, Table } from './column-kinds.js';

/** What a column takes, and with `vocabulary` the words that it takes. */
interface Column extends ColumnSpec<unknown> {
  table: string;
  name: string;
  words: readonly string[];
}

/** How the values of a column are stored. `at` is called once for each value that is there, in the order of the rows. */
interface Storage {
  /** false: the column does not take this value. */
  at(row: number, value: unknown): boolean;
  /** Buffers of the column, for `makeData`. */
  buffers(): Record<string, unknown>;
}

/**
 * The rows as one record batch. Throws a TroupeError for a value that its column does not take, and for a row that has
 * other columns than the table.
 */
export function batchOf(
  table: Table<Specs>,
  rows: readonly object[],
  vocabularies: RunVocabularies,
): RecordBatch {
  const schema = arrowSchema(table);
  const specs = Object.entries(table.columns);
  for (const row of rows) {
    if (Object.keys(row).length > specs.length) throw unknownColumn(table, row);
  }
  const children = specs.map(([name, spec], i) => {
    const column = { ...spec, table: table.name, name, words: wordsOf(spec, vocabularies) };
    return columnData(column, rows as readonly Record<string, unknown>[], schema.fields[i]?.type);
  });
  const data = makeData({ type: new Struct(schema.fields), length: rows.length, nullCount: 0, children });
  return new RecordBatch(schema, data);
}

function wordsOf({ vocabulary = [] }: ColumnSpec<unknown>, own: RunVocabularies): readonly string[] {
  return vocabulary === 'roles' || vocabulary === 'policies' ? own[vocabulary] : vocabulary;
}

function columnData(column: Column, rows: readonly Record<string, unknown>[], type: unknown): Data {
  const { name, nullable } = column;
  const storage = storageOf(column, rows.length);
  const validity = new Uint8Array(Math.ceil(rows.length / 8));
  let nullCount = 0;
  for (let row = 0; row < rows.length; row++) {
    const value = rows[row]?.[name];
    // What is not a number was not measured.
    if (value === null || Number.isNaN(value)) {
      if (!nullable) throw misfit(column, row, value);
      nullCount += 1;
    } else {
      if (!storage.at(row, value)) throw misfit(column, row, value);
      validity[row >> 3] = (validity[row >> 3] ?? 0) | (1 << (row & 7));
    }
  }
  const nullBitmap = nullCount === 0 ? undefined : validity;
  const common = { type, length: rows.length, nullCount, nullBitmap };
  // `makeData` is typed per concrete type; here it is known only as DataType.
  return makeData({ ...common, ...storage.buffers() } as Parameters<typeof makeData>[0]);
}

function storageOf(column: Column, rows: number): Storage {
  switch (column.type) {
    case 'int32':
      return int32(rows);
    case 'int64':
    case 'time':
      return int64(rows);
    case 'float64':
      return float64(rows);
    case 'bool':
      return bool(rows);
    case 'text':
      return text(column, rows);
    case 'name':
      return name(column.words, rows);
  }
}

function int32(rows: number): Storage {
  const data = new Int32Array(rows);
  return {
    at: (row, value) => {
      data[row] = value as number;
      // A typed array wraps and cuts silently.
      return data[row] === value;
    },
    buffers: () => ({ data }),
  };
}

/** 64-bit integers given as numbers (bytes, milliseconds since 1970): exact up to 2^53. */
function int64(rows: number): Storage {
  const data = new BigInt64Array(rows);
  return {
    at: (row, value) => {
      if (!Number.isSafeInteger(value)) return false;
      data[row] = BigInt(value as number);
      return true;
    },
    buffers: () => ({ data }),
  };
}

function float64(rows: number): Storage {
  const data = new Float64Array(rows);
  return {
    at: (row, value) => {
      if (typeof value !== 'number') return false;
      data[row] = value;
      return true;
    },
    buffers: () => ({ data }),
  };
}

function bool(rows: number): Storage {
  const data = new Uint8Array(Math.ceil(rows / 8));
  return {
    at: (row, value) => {
      if (value === true) data[row >> 3] = (data[row >> 3] ?? 0) | (1 << (row & 7));
      return typeof value === 'boolean';
    },
    buffers: () => ({ data }),
  };
}

function text(column: Column, rows: number): Storage {
  const texts: string[] = [];
  const valueOffsets = new Int32Array(rows + 1);
  /** Rows whose end offset is set; nulls in between are empty. */
  let filled = 0;
  let bytes = 0;
  const fill = (end: number) => {
    valueOffsets.fill(bytes, filled + 1, end + 1);
    filled = end;
  };
  return {
    at: (row, value) => {
      if (typeof value !== 'string') return false;
      fill(row);
      texts.push(value);
      bytes += Buffer.byteLength(value);
      valueOffsets[row + 1] = bytes;
      filled = row + 1;
      return true;
    },
    buffers: () => {
      fill(rows);
      if (bytes > MOST_TEXT) throw tooMuchText(column, bytes);
      const data = Buffer.allocUnsafe(bytes);
      let at = 0;
      for (const value of texts) at += data.write(value, at);
      return { valueOffsets, data };
    },
  };
}

/** Words of a fixed list, as indices: the list goes into the file once, before the first batch. */
function name(words: readonly string[], rows: number): Storage {
  const data = new Int32Array(rows);
  const positions = new Map<unknown, number>(words.map((word, index) => [word, index]));
  const dictionary = vectorFromArray(words, new Utf8());
  return {
    at: (row, value) => {
      const position = positions.get(value);
      data[row] = position ?? 0;
      return position !== undefined;
    },
    buffers: () => ({ data, dictionary }),
  };
}

/** Offsets of a text column are 32-bit integers. */
const MOST_TEXT = 2 ** 31 - 1;

const TAKES: Record<ColumnSpec<unknown>['type'], string> = {
  int32: 'a 32-bit integer',
  int64: 'an integer',
  float64: 'a number',
  bool: 'true or false',
  text: 'a text',
  name: 'one of',
  time: 'an integer (milliseconds since 1970)',
};

function misfit(column: Column, row: number, value: unknown): TroupeError {
  const takes = `${TAKES[column.type]}${column.type === 'name' ? ` ${column.words.join(', ')}` : ''}`;
  const orNull = column.nullable ? ' or null' : '';
  return new TroupeError(`row ${row} has ${shownValue(value)}; it takes ${takes}${orNull}.`, {
    where: placeOf(column),
  });
}

function tooMuchText(column: Column, bytes: number): TroupeError {
  return new TroupeError(`${bytes} bytes of text in one step; a stream takes ${MOST_TEXT}.`, {
    where: placeOf(column),
    hint: 'Have fewer episodes in a step.',
  });
}

const placeOf = ({ table, name }: Column) => `stream ${table}, column ${name}`;

function unknownColumn(table: Table<Specs>, row: object): TroupeError {
  const unknown = Object.keys(row).filter((name) => !(name in table.columns));
  return new TroupeError(`a row has ${unknown.join(', ')}, which is no column of it.`, {
    where: `stream ${table.name}`,
  });
}
