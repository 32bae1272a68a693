/**
 * Reads stream files, also while they grow or after a crash cut them: a reader stops at the last whole batch
 * and loses nothing before it. A file may hold any bytes: arrow-messages.ts reads them before apache-arrow does.
 * Written by stream.ts.
 */
import { closeSync, existsSync, fstatSync, openSync, readSync } from 'node:fs';
import { type Data, DataType, type Schema, type Table, tableFromIPC } from 'apache-arrow';
import { TroupeError } from '../config/errors.js';
import { onFile } from '../config/files.js';
import { checkFits, DamagedMessage, type MessageMetadata, messageMetadata } from './arrow-messages.js';
import { SCHEMA_VERSION, TABLE_KEY, VERSION_KEY } from './arrow-schema.js';

/** Bytes that can be read anywhere. */
export interface Source {
  size: number;
  /** May return fewer bytes at the end. */
  read(offset: number, length: number): Uint8Array;
}

export interface StreamMessage {
  kind: MessageMetadata['kind'];
  metadata: MessageMetadata;
  /** From the start of the source, bytes. */
  offset: number;
  /** Prefix, header, padding and body together. */
  bytes: number;
}

/** Marks the start of a message in Arrow's encapsulated format. */
const CONTINUATION = 0xffffffff;
const PREFIX = 8;
/** Longest message header that is believed; ours have a few kilobytes. */
const LONGEST_HEADER = 2 ** 20;

export function bytesSource(bytes: Uint8Array): Source {
  return { size: bytes.length, read: (offset, length) => bytes.subarray(offset, offset + length) };
}

export function fileSource(descriptor: number): Source {
  return {
    size: fstatSync(descriptor).size,
    read(offset, length) {
      const bytes = new Uint8Array(length);
      let filled = 0;
      while (filled < length) {
        const count = readSync(descriptor, bytes, filled, length - filled, offset + filled);
        if (count === 0) break;
        filled += count;
      }
      return bytes.subarray(0, filled);
    },
  };
}

/** Whether a source without a whole message is empty or begins as one does: it may be being written. */
export function mayBecomeStream(source: Source): boolean {
  const start = source.read(0, 4);
  return start.every((byte) => byte === 0xff);
}

/** The whole messages from `offset` on; ends before the first one that is cut, broken or an end mark. */
export function* scanMessages(source: Source, offset = 0): Generator<StreamMessage> {
  for (let at = offset; ; ) {
    const message = messageAt(source, at);
    if (message === undefined || at + message.bytes > source.size) return;
    yield message;
    at += message.bytes;
  }
}

function messageAt(source: Source, offset: number): StreamMessage | undefined {
  const prefix = source.read(offset, PREFIX);
  if (prefix.length < PREFIX) return undefined;
  const view = new DataView(prefix.buffer, prefix.byteOffset, PREFIX);
  const length = view.getInt32(4, true);
  if (view.getUint32(0, true) !== CONTINUATION || length <= 0 || length > LONGEST_HEADER) return undefined;
  const header = source.read(offset + PREFIX, length);
  if (header.length < length) return undefined;
  const metadata = decode(header);
  if (metadata === undefined) return undefined;
  return { kind: metadata.kind, metadata, offset, bytes: PREFIX + length + metadata.bodyLength };
}

/** A crash may leave any bytes at the end of a file. */
function decode(header: Uint8Array): MessageMetadata | undefined {
  try {
    return messageMetadata(header);
  } catch (error) {
    if (error instanceof DamagedMessage) return undefined;
    throw error;
  }
}

/** Whole record batches of a stream, one for each append; 0 where there is no such file. */
export function countBatches(path: string): number {
  if (!existsSync(path)) return 0;
  return onFile(path, () => {
    const descriptor = openSync(path, 'r');
    try {
      return [...scanMessages(fileSource(descriptor))].filter(({ kind }) => kind === 'batch').length;
    } finally {
      closeSync(descriptor);
    }
  });
}

/** What `readStream` found. */
export interface StreamContents {
  table: Table;
  /** Record batches, one for each append. */
  batches: number;
  /** Bytes up to the end of the last whole batch. */
  bytes: number;
  /** Bytes behind it: a batch being written, or one that a crash cut. */
  cutBytes: number;
}

/**
 * The rows of a stream up to its last whole batch; none in a run that has not finished a step. Throws a
 * TroupeError if there is no such file, if it is not a stream of Troupe's, or if its schema has another version.
 */
export function readStream(path: string): StreamContents {
  return onFile(path, () => {
    const descriptor = openSync(path, 'r');
    try {
      return contents(fileSource(descriptor), path);
    } finally {
      closeSync(descriptor);
    }
  });
}

function contents(source: Source, path: string): StreamContents {
  const messages = [...scanMessages(source)];
  const last = messages.at(-1);
  if (last === undefined || messages[0]?.kind !== 'schema') {
    const empty = source.size === 0;
    throw new TroupeError(empty ? 'is empty: no schema was written.' : 'is not an Arrow IPC stream.', {
      where: path,
      hint: 'Streams of a run lie in its folder "streams".',
    });
  }
  const bytes = last.offset + last.bytes;
  const batches = messages.filter(({ kind }) => kind === 'batch').length;
  const table = decodeTable(source.read(0, bytes), path);
  return { table, batches, bytes, cutBytes: source.size - bytes };
}

/**
 * The rows of whole messages, the schema first. Throws a TroupeError if they are not a stream of Troupe's, have
 * another version, or do not hold what their metadata says.
 */
export function decodeTable(bytes: Uint8Array, path: string): Table {
  const messages = [...scanMessages(bytesSource(bytes))];
  const [schema] = messages;
  if (schema?.metadata.kind !== 'schema') {
    throw new TroupeError('is not an Arrow IPC stream.', { where: path });
  }
  const { columns } = schema.metadata;
  try {
    checkVersion(tableFromIPC(bytes.subarray(0, schema.bytes)).schema, path);
    if (columns.includes(undefined)) throw new DamagedMessage('a column of a type that streams do not have');
    for (const { metadata } of messages) {
      if (metadata.kind === 'dictionary') checkFits(['text'], metadata.batch);
      if (metadata.kind === 'batch') checkFits(columns, metadata.batch);
    }
    const table = tableFromIPC(bytes);
    for (const { data } of table.batches) for (const column of data.children) checkValues(column);
    return table;
  } catch (cause) {
    if (cause instanceof TroupeError) throw cause;
    const hint = 'Take it from a copy; no other stream needs it.';
    throw new TroupeError(`is damaged: it holds ${(cause as Error).message}.`, { where: path, hint, cause });
  }
}

/** Texts lie inside their buffer, one behind the other, and words in their dictionary. */
function checkValues(column: Data): void {
  const { type, length, dictionary } = column;
  if (DataType.isUtf8(type)) {
    const offsets: Int32Array = column.valueOffsets;
    let end = 0;
    for (let row = 0; row <= length && length > 0; row++) {
      const offset = offsets[row] ?? -1;
      if (offset < end) throw new DamagedMessage('texts that overlap');
      end = offset;
    }
    if (end > column.values.length) throw new DamagedMessage('texts beyond the end of their buffer');
  }
  if (DataType.isDictionary(type)) {
    for (const words of dictionary?.data ?? []) checkValues(words);
    const words = dictionary?.length ?? 0;
    const indices: Int32Array = column.values;
    for (let row = 0; row < length; row++) {
      const index = indices[row] ?? -1;
      if ((index < 0 || index >= words) && column.getValid(row)) {
        throw new DamagedMessage(`word ${index} of a dictionary of ${words}`);
      }
    }
  }
}

/** Throws a TroupeError if it is no stream of Troupe's, or has another schema version. */
export function checkStream(source: Source, path: string): void {
  const header = [...scanMessages(source)].filter(({ kind }) => kind !== 'batch').at(-1);
  const bytes =
    header === undefined ? source.read(0, source.size) : source.read(0, header.offset + header.bytes);
  contents(bytesSource(bytes), path);
}

function checkVersion(schema: Schema, path: string): void {
  const version = schema.metadata.get(VERSION_KEY);
  if (version === String(SCHEMA_VERSION)) return;
  if (version === undefined || !schema.metadata.has(TABLE_KEY)) {
    throw new TroupeError('is an Arrow stream, but not one of Troupe.', { where: path });
  }
  throw new TroupeError(`has schema version ${version}; this Troupe reads version ${SCHEMA_VERSION}.`, {
    where: path,
    hint: 'Read it with the version of Troupe that environment.json of the run names, or with pyarrow.',
  });
}

/**
 * Whether writing may go on at `end`: the file starts with `header`, and a whole message ends there. Throws a
 * TroupeError otherwise.
 */
export function checkResumable(source: Source, path: string, header: Uint8Array, end: number): void {
  if (Buffer.compare(source.read(0, header.length), header) !== 0) {
    contents(source, path);
    throw new TroupeError('was written for other roles or policies, or by another version of Troupe.', {
      where: path,
      hint: 'Resume with the configuration that the run was started with.',
    });
  }
  for (const message of scanMessages(source, header.length)) {
    if (message.offset >= end) break;
    if (message.offset + message.bytes === end) return;
  }
  if (end === header.length) return;
  throw new TroupeError(`holds no whole batch that ends at byte ${end}, where the checkpoint left it.`, {
    where: path,
    hint: 'The file was changed or is damaged; resume from an earlier checkpoint.',
  });
}
