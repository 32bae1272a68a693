/** Rows of an Arrow IPC file or stream, one record batch at a time, as plain values. */
import { open } from 'node:fs/promises';
import {
  CompressionType,
  compressionRegistry,
  DataType,
  type Field,
  type RecordBatch,
  RecordBatchReader,
  type Vector,
} from 'apache-arrow';
import { decompress } from 'fzstd';
import { bytesOf, type Packing } from './bytes.js';
import { lz4Frame } from './lz4.js';

// A copy, since columns of numbers have to begin at a multiple of eight bytes.
compressionRegistry.set(CompressionType.ZSTD, { decode: (bytes) => decompress(bytes).slice() });
compressionRegistry.set(CompressionType.LZ4_FRAME, { decode: lz4Frame });

/** Rows that are made at once; a batch may be the whole file. */
const ROWS = 1000;

export async function* arrowRows(path: string, packing?: Packing): AsyncGenerator<unknown[]> {
  // Of a file that lies there plainly only the batch that is next is read.
  const source = packing === undefined ? await open(path) : bytesOf(path, packing);
  const reader = await RecordBatchReader.from(source as AsyncIterable<Uint8Array>);
  for await (const batch of reader) yield* rowsOf(batch);
}

function* rowsOf(batch: RecordBatch): Generator<unknown[]> {
  const columns = batch.schema.fields.map((field, i) => ({
    name: field.name,
    values: batch.getChildAt(i),
    plain: plainOf(field.type),
  }));
  for (let start = 0; start < batch.numRows; start += ROWS) {
    const count = Math.min(ROWS, batch.numRows - start);
    yield Array.from({ length: count }, (_, i) =>
      Object.fromEntries(columns.map(({ name, values, plain }) => [name, plain(values?.get(start + i))])),
    );
  }
}

type Plain = (value: unknown) => unknown;

/** How a value of this type becomes one that JSON would have: lists, objects, text, numbers, bigints, dates. */
function plainOf(type: DataType): Plain {
  const some =
    (make: Plain): Plain =>
    (value) =>
      value === null || value === undefined ? null : make(value);
  if (DataType.isDictionary(type)) return plainOf(type.dictionary);
  if (DataType.isList(type) || DataType.isLargeList(type) || DataType.isFixedSizeList(type)) {
    const item = plainOf((type.children[0] as Field).type);
    return some((value) => Array.from(value as Vector, item));
  }
  if (DataType.isStruct(type)) {
    const fields = type.children.map(({ name, type: inner }) => ({ name, plain: plainOf(inner) }));
    return some((value) => {
      const row = value as Record<string, unknown>;
      return Object.fromEntries(fields.map(({ name, plain }) => [name, plain(row[name])]));
    });
  }
  if (DataType.isMap(type)) {
    const item = plainOf((type.children[0] as Field).type.children[1].type);
    return some((value) =>
      Object.fromEntries(
        [...(value as Iterable<[string, unknown]>)].map(([key, one]) => [String(key), item(one)]),
      ),
    );
  }
  if (DataType.isDecimal(type)) return some((value) => decimal(value as Uint32Array, type.scale));
  if (DataType.isTimestamp(type) || DataType.isDate(type)) return some((value) => new Date(Number(value)));
  return some((value) => value);
}

/** A decimal of any width as text: words of 32 bits from the low end, in two's complement. */
function decimal(words: Uint32Array, scale: number): string {
  const unsigned = words.reduceRight((sum, word) => (sum << 32n) | BigInt(word), 0n);
  const value = BigInt.asIntN(32 * words.length, unsigned);
  const digits = String(value < 0n ? -value : value).padStart(scale + 1, '0');
  const whole = digits.slice(0, digits.length - scale);
  const sign = value < 0n ? '-' : '';
  return scale > 0 ? `${sign}${whole}.${digits.slice(-scale)}` : `${sign}${whole}`;
}
