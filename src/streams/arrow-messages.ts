/**
 * What the metadata of an Arrow IPC message says, with every offset, length and count checked against the bytes that
 * there are. apache-arrow's decoder believes what it reads: one flipped bit makes it loop over a billion fields, or
 * hands out rows that have no bytes. So nothing reaches it that this file has not read first, by the same rules.
 * Layouts: Arrow's format/Message.fbs and Schema.fbs; https://flatbuffers.dev/internals.
 */

/** Bytes that no message has; the text says what is wrong with them. */
export class DamagedMessage extends Error {}

/** How a column's values lie in its buffers; undefined: a type that Troupe's streams do not have. */
export type Layout = { bits: 1 | 32 | 64; dictionary?: number } | 'text' | undefined;

interface Region {
  offset: number;
  length: number;
}

export interface BatchMetadata {
  rows: number;
  /** Rows and nulls of each column. */
  nodes: { length: number; nulls: number }[];
  buffers: Region[];
}

export type MessageMetadata =
  | { kind: 'schema'; bodyLength: number; columns: Layout[] }
  | { kind: 'dictionary'; bodyLength: number; id: number; batch: BatchMetadata }
  | { kind: 'batch'; bodyLength: number; batch: BatchMetadata };

/** Numbers of the tables' fields, as flatbuffers' compiler gives them. */
const MESSAGE = { headerType: 1, header: 2, bodyLength: 3, metadata: 4 };
const SCHEMA = { fields: 1, metadata: 2 };
const FIELD = { name: 0, typeType: 2, type: 3, dictionary: 4, children: 5, metadata: 6 };
const DICTIONARY = { id: 0, data: 1 };
const ENCODING = { id: 0, indexType: 1 };
const BATCH = { length: 0, nodes: 1, buffers: 2, compression: 3, variadicCounts: 4 };
const INT = { bitWidth: 0, signed: 1 };
const HEADER = { schema: 1, dictionary: 2, batch: 3 };
const TYPE = { int: 2, float: 3, text: 5, bool: 6, timestamp: 10 };
const DOUBLE = 2;

/** Bytes and elements that a header of Troupe's never comes near. */
const MOST_WORK = 2 ** 22;
const DEEPEST = 4;

/** Reads the metadata of one message, without its prefix. Throws a DamagedMessage. */
export function messageMetadata(header: Uint8Array): MessageMetadata {
  const flat = new Flat(header);
  const message = flat.root();
  checkKeyValues(flat, message, MESSAGE.metadata);
  const bodyLength = flat.int64(message, MESSAGE.bodyLength);
  const body = flat.table(message, MESSAGE.header);
  if (body === undefined) throw new DamagedMessage('a message without a header');
  switch (flat.byte(message, MESSAGE.headerType)) {
    case HEADER.schema:
      checkKeyValues(flat, body, SCHEMA.metadata);
      return { kind: 'schema', bodyLength, columns: fields(flat, body, SCHEMA.fields, 0) };
    case HEADER.dictionary: {
      const data = flat.table(body, DICTIONARY.data);
      if (data === undefined) throw new DamagedMessage('a dictionary without words');
      const id = flat.int64(body, DICTIONARY.id);
      return { kind: 'dictionary', bodyLength, id, batch: batchMetadata(flat, data, bodyLength) };
    }
    case HEADER.batch:
      return { kind: 'batch', bodyLength, batch: batchMetadata(flat, body, bodyLength) };
    default:
      throw new DamagedMessage('a message of an unknown kind');
  }
}

/** Whether the buffers hold all rows of the columns. Throws a DamagedMessage. */
export function checkFits(columns: readonly Layout[], { rows, nodes, buffers }: BatchMetadata): void {
  if (nodes.length !== columns.length) {
    throw new DamagedMessage(`${nodes.length} columns instead of ${columns.length}`);
  }
  if (columns.length === 0 && rows > 0) throw new DamagedMessage(`${rows} rows without a column`);
  let next = 0;
  const take = (bytes: number) => {
    const length = buffers[next++]?.length ?? -1;
    if (length < bytes) throw new DamagedMessage(`a buffer of ${length} bytes that needs ${bytes}`);
  };
  for (const [i, layout] of columns.entries()) {
    const { length, nulls } = nodes[i] as BatchMetadata['nodes'][number];
    if (layout === undefined) throw new DamagedMessage('a column of an unknown type');
    if (length !== rows || nulls > rows) throw new DamagedMessage(`a column of ${length} rows in ${rows}`);
    take(nulls > 0 ? Math.ceil(rows / 8) : 0);
    if (layout === 'text') take(rows === 0 ? 0 : 4 * (rows + 1));
    take(layout === 'text' ? 0 : Math.ceil((rows * layout.bits) / 8));
  }
  if (next !== buffers.length) throw new DamagedMessage(`${buffers.length} buffers instead of ${next}`);
}

function fields(flat: Flat, table: number, id: number, depth: number): Layout[] {
  if (depth > DEEPEST) throw new DamagedMessage('columns that are nested too deeply');
  return flat.tables(table, id).map((field) => {
    flat.text(field, FIELD.name);
    checkKeyValues(flat, field, FIELD.metadata);
    const nested = fields(flat, field, FIELD.children, depth + 1).length > 0;
    const own = nested ? undefined : layoutOf(flat, field);
    const encoding = flat.table(field, FIELD.dictionary);
    if (encoding === undefined) return own;
    const index = flat.table(encoding, ENCODING.indexType);
    const bits = index === undefined ? 32 : flat.int32(index, INT.bitWidth);
    const dictionary = flat.int64(encoding, ENCODING.id);
    return own === 'text' && bits === 32 ? { bits, dictionary } : undefined;
  });
}

function layoutOf(flat: Flat, field: number): Layout {
  const type = flat.table(field, FIELD.type);
  if (type === undefined) return undefined;
  switch (flat.byte(field, FIELD.typeType)) {
    case TYPE.int: {
      const bits = flat.int32(type, INT.bitWidth);
      return flat.byte(type, INT.signed) !== 0 && (bits === 32 || bits === 64) ? { bits } : undefined;
    }
    case TYPE.float:
      return flat.int16(type, 0) === DOUBLE ? { bits: 64 } : undefined;
    case TYPE.text:
      return 'text';
    case TYPE.bool:
      return { bits: 1 };
    case TYPE.timestamp:
      return { bits: 64 };
    default:
      return undefined;
  }
}

function batchMetadata(flat: Flat, batch: number, bodyLength: number): BatchMetadata {
  const unused = flat.has(batch, BATCH.compression) || flat.vector(batch, BATCH.variadicCounts, 8).length > 0;
  if (unused) throw new DamagedMessage('a compressed batch');
  const pairs = (id: number) => {
    const { at, length } = flat.vector(batch, id, 16);
    return Array.from({ length }, (_, i) => [flat.size(at + 16 * i), flat.size(at + 16 * i + 8)] as const);
  };
  const buffers = pairs(BATCH.buffers).map(([offset, length]) => ({ offset, length }));
  if (buffers.some(({ offset, length }) => offset + length > bodyLength)) {
    throw new DamagedMessage('a buffer beyond the end of its batch');
  }
  const nodes = pairs(BATCH.nodes).map(([length, nulls]) => ({ length, nulls }));
  return { rows: flat.int64(batch, BATCH.length), nodes, buffers };
}

function checkKeyValues(flat: Flat, table: number, id: number): void {
  for (const entry of flat.tables(table, id)) for (const end of [0, 1]) flat.text(entry, end);
}

/** A flatbuffer whose reads stay inside it: a DataView throws a RangeError beyond its ends. */
class Flat {
  readonly #view: DataView;
  #work = 0;

  constructor(bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  root(): number {
    return this.#read(() => this.#view.getInt32(0, true));
  }

  has(table: number, id: number): boolean {
    return this.#at(table, id) !== undefined;
  }

  byte(table: number, id: number): number {
    return this.#scalar(table, id, (at) => this.#view.getUint8(at));
  }

  int16(table: number, id: number): number {
    return this.#scalar(table, id, (at) => this.#view.getInt16(at, true));
  }

  int32(table: number, id: number): number {
    return this.#scalar(table, id, (at) => this.#view.getInt32(at, true));
  }

  /** Not negative, as every 64-bit number of the metadata. */
  int64(table: number, id: number): number {
    return this.#scalar(table, id, (at) => this.size(at));
  }

  /** The 64-bit number at a place. */
  size(at: number): number {
    const value = this.#read(() => this.#view.getBigInt64(at, true));
    if (value < 0n || value > BigInt(Number.MAX_SAFE_INTEGER)) throw new DamagedMessage(`a size of ${value}`);
    return Number(value);
  }

  table(table: number, id: number): number | undefined {
    const at = this.#at(table, id);
    return at === undefined ? undefined : this.#indirect(at);
  }

  tables(table: number, id: number): number[] {
    const { at, length } = this.vector(table, id, 4);
    return Array.from({ length }, (_, i) => this.#indirect(at + 4 * i));
  }

  text(table: number, id: number): void {
    this.vector(table, id, 1);
  }

  /** Of elements of so many bytes; empty where there is none. */
  vector(table: number, id: number, bytes: number): { at: number; length: number } {
    const field = this.#at(table, id);
    if (field === undefined) return { at: 0, length: 0 };
    const at = this.#indirect(field);
    const length = this.#read(() => this.#view.getInt32(at, true));
    if (length < 0 || at + 4 + length * bytes > this.#view.byteLength) {
      throw new DamagedMessage(`a list of ${length} beyond the end of its message`);
    }
    // Lists may share their bytes, and so be many times as long as the message.
    this.#work += length + 1;
    if (this.#work > MOST_WORK) throw new DamagedMessage('more lists than a message has');
    return { at: at + 4, length };
  }

  #scalar(table: number, id: number, read: (at: number) => number): number {
    const at = this.#at(table, id);
    return at === undefined ? 0 : this.#read(() => read(at));
  }

  /** Where a field of a table stands; undefined where it has its default. */
  #at(table: number, id: number): number | undefined {
    const offset = this.#read(() => {
      const fieldsAt = table - this.#view.getInt32(table, true);
      const place = 4 + 2 * id;
      return place < this.#view.getInt16(fieldsAt, true) ? this.#view.getInt16(fieldsAt + place, true) : 0;
    });
    return offset === 0 ? undefined : table + offset;
  }

  #indirect(at: number): number {
    return at + this.#read(() => this.#view.getInt32(at, true));
  }

  #read<T>(read: () => T): T {
    try {
      return read();
    } catch (error) {
      if (error instanceof RangeError) throw new DamagedMessage('an offset beyond the end of its message');
      throw error;
    }
  }
}
