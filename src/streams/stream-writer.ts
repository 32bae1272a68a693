/**
 * One table of a run as a growing Arrow IPC stream file. The file starts with the schema and its dictionaries,
 * which are fixed for the whole run (so no delta or replacement dictionaries, which readers treat differently),
 * and grows by one uncompressed record batch per append. No end-of-stream mark is written: pyarrow and polars
 * take the end of the file for it, and a finished run may be continued.
 *
 * What the bytes are depends on the rows alone, so that a run that is cut back to an offset and goes on writes
 * the same file as one that never stopped. The set of a run's streams is kept by run-streams.ts.
 */
import { closeSync, fdatasync, ftruncateSync, openSync } from 'node:fs';
import { promisify } from 'node:util';
import { type RecordBatch, RecordBatchStreamWriter } from 'apache-arrow';
import { fileError, onFile, writeAll, writeFileWhole } from '../config/files.js';
import { batchOf } from './batch.js';
import type { RunVocabularies } from './column-kinds.js';
import { bytesSource, fileSource, scanMessages } from './stream-messages.js';
import { checkResumable } from './stream-reader.js';
import { TABLES, type TableName, type TableRow } from './tables.js';

/** Looked up at each call, not now: tests replace it. */
const fdatasyncAsync = (descriptor: number) => promisify(fdatasync)(descriptor);

/** Appends record batches to one stream file. */
export class StreamWriter<N extends TableName> {
  readonly table: N;
  readonly path: string;
  private readonly words: RunVocabularies;
  private readonly descriptor: number;
  private end: number;
  /** Length of the part that is on the disk for certain. */
  private synced = -1;

  private constructor(table: N, path: string, words: RunVocabularies, descriptor: number, end: number) {
    this.table = table;
    this.path = path;
    this.words = words;
    this.descriptor = descriptor;
    this.end = end;
  }

  /** A new file with the schema and no rows. Throws a TroupeError if the file exists or cannot be written. */
  static create<N extends TableName>(table: N, path: string, words: RunVocabularies): StreamWriter<N> {
    const descriptor = onFile(path, () => openSync(path, 'wx'));
    const writer = new StreamWriter(table, path, words, descriptor, 0);
    try {
      writer.write(headerOf(table, words));
    } catch (error) {
      closeSync(descriptor);
      throw error;
    }
    return writer;
  }

  /**
   * Opens a stream to go on at `offset`, a value that `bytes` had; without it, at the start. What lies behind it is
   * written to the file `aside`, a stream of its own, before it is cut off. Throws a TroupeError if the file ends before
   * it, if no batch ends there, or if the file has another schema or other words.
   */
  static resume<N extends TableName>(
    table: N,
    path: string,
    words: RunVocabularies,
    offset: number | undefined,
    aside: string,
  ): StreamWriter<N> {
    const header = headerOf(table, words);
    const end = offset ?? header.length;
    const descriptor = onFile(path, () => openSync(path, 'r+'));
    try {
      const source = fileSource(descriptor);
      checkResumable(source, path, header, end);
      if (source.size > end) {
        const rest = source.read(end, source.size - end);
        writeFileWhole(aside, Buffer.concat([header, rest]));
      }
      onFile(path, () => ftruncateSync(descriptor, end));
    } catch (error) {
      closeSync(descriptor);
      throw error;
    }
    return new StreamWriter(table, path, words, descriptor, end);
  }

  /** Length of the file: what a checkpoint records. */
  get bytes(): number {
    return this.end;
  }

  /**
   * Appends the rows as one record batch, which it returns; nothing where there are none. Throws a TroupeError, and
   * writes none of them, for a value that its column does not take.
   */
  append(rows: readonly TableRow<N>[]): RecordBatch {
    const batch = batchOf(TABLES[this.table], rows, this.words);
    if (rows.length > 0) this.write(encodeStream(this.table, batch).body);
    return batch;
  }

  /** Resolves when the rows so far are on the disk; at once, if they are there already. */
  async sync(): Promise<void> {
    const end = this.end;
    if (this.synced === end) return;
    try {
      await fdatasyncAsync(this.descriptor);
    } catch (error) {
      throw fileError(error, this.path);
    }
    this.synced = end;
  }

  close(): void {
    closeSync(this.descriptor);
  }

  /** All or nothing: a batch that the disk has no room for is cut off again. */
  private write(data: Uint8Array): void {
    onFile(this.path, () => {
      try {
        writeAll(this.descriptor, data, this.end);
      } catch (error) {
        ftruncateSync(this.descriptor, this.end);
        throw error;
      }
    });
    this.end += data.length;
  }
}

/** Schema message and dictionary messages of a table: how each of its files starts. */
function headerOf(table: TableName, words: RunVocabularies): Uint8Array {
  return encodeStream(table, batchOf(TABLES[table], [], words)).header;
}

/** A record batch as an Arrow IPC stream, cut where it begins. */
export function encodeStream(table: TableName, rows: RecordBatch): { header: Uint8Array; body: Uint8Array } {
  const writer = new RecordBatchStreamWriter();
  writer.write(rows);
  writer.finish();
  const stream = writer.toUint8Array(true);
  const batch = [...scanMessages(bytesSource(stream))].find((message) => message.kind === 'batch');
  if (batch === undefined) throw new Error(`table ${table}: the encoder wrote no record batch`);
  const end = batch.offset + batch.bytes;
  return { header: stream.slice(0, batch.offset), body: stream.slice(batch.offset, end) };
}
