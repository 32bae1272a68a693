/**
 * Reads stream files, also while they grow or after a crash cut them: a reader stops at the last whole batch
 * and loses nothing before it. A file may hold any bytes: arrow-messages.ts reads them before apache-arrow does.
 * Written by stream-writer.ts.
 */
import { closeSync, openSync } from 'node:fs';
import { type Data, DataType, type Schema, type Table, tableFromIPC } from 'apache-arrow';
import { TroupeError } from '../config/errors.js';
import { onFile } from '../config/files.js';
import { checkFits, DamagedMessage } from './arrow-messages.js';
import { SCHEMA_VERSION, TABLE_KEY, VERSION_KEY } from './arrow-schema.js';
import { bytesSource, fileSource, type Source, scanMessages } from './stream-messages.js';

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
      hint: 'Resume with the configuration, and with the roles of the workflow, that the run was started with.',
    });
  }
  for (const message of scanMessages(source, header.length)) {
    if (message.offset >= end) break;
    if (message.offset + message.bytes === end) return;
  }
  if (end === header.length) return;
  throw new TroupeError(`holds no whole batch that ends at byte ${end}, where the checkpoint left it.`, {
    where: path,
    hint: 'The file was changed or is damaged.',
  });
}
