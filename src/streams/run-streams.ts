/** The streams of one run, one file per table of tables.ts, in the run's folder "streams". */
import { existsSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { Table } from 'apache-arrow';
import { onFile, syncFolder } from '../config/files.js';
import { makeFolder } from '../config/make-folder.js';
import type { RunVocabularies } from './column-kinds.js';
import { streamPath, TABLE_NAMES } from './stream-files.js';
import { StreamWriter } from './stream-writer.js';
import type { TableName, TableRow } from './tables.js';

/** Length of each stream in bytes: where a resumed run goes on. A run may be older than a table. */
export type StreamOffsets = Record<TableName, number>;

/**
 * Writers of every table. A step's rows are appended table by table; `endStep` brings them to the disk.
 *
 * @example
 * const streams = RunStreams.create(folder, { roles: ['generator'], policies: ['shared'] });
 * streams.append('prompts', [{ step: 0, prompt: 0, text: '[user]\n1+1' }]);
 * await streams.endStep();
 */
export class RunStreams {
  private readonly writers: Map<TableName, StreamWriter<TableName>>;
  /** Where the streams ended when the last step or evaluation was whole. */
  private boundary: StreamOffsets;
  /** Sees the rows that are appended, after they are written. */
  observe: ((table: TableName, rows: Table) => void) | undefined;

  private constructor(open: (table: TableName) => StreamWriter<TableName>) {
    this.writers = new Map();
    try {
      for (const table of TABLE_NAMES) this.writers.set(table, open(table));
    } catch (error) {
      this.close();
      throw error;
    }
    this.boundary = this.ends();
  }

  /** New, empty streams. Throws a TroupeError if one exists or cannot be written. */
  static create(run: string, words: RunVocabularies): RunStreams {
    const folder = join(run, 'streams');
    onFile(folder, () => makeFolder(folder));
    const streams = new RunStreams((table) => {
      return StreamWriter.create(table, streamPath(run, table), words);
    });
    onFile(folder, () => syncFolder(folder));
    return streams;
  }

  /**
   * Goes on where `offsets` say; rows behind them are moved to the folder `aside` (a step that was not finished, or
   * that comes again). Without offsets the streams start again, empty, and all rows are moved.
   */
  static resume(
    run: string,
    words: RunVocabularies,
    offsets: StreamOffsets | undefined,
    aside: string,
  ): RunStreams {
    if (offsets === undefined) {
      moveStreams(run, aside);
      return RunStreams.create(run, words);
    }
    return new RunStreams((table) => {
      const path = streamPath(run, table);
      // A run may be older than the table.
      if (offsets[table] === undefined && !existsSync(path)) return StreamWriter.create(table, path, words);
      return StreamWriter.resume(table, path, words, offsets[table], streamPath(aside, table));
    });
  }

  /**
   * Appends rows as one record batch; readers see them from here on. Throws a TroupeError, and writes none of them, for
   * a value that its column does not take.
   */
  append<N extends TableName>(table: N, rows: readonly TableRow<N>[]): void {
    const batch = this.writer(table).append(rows);
    this.observe?.(table, new Table([batch]));
  }

  /** What was appended so far belongs to whole steps and evaluations: a checkpoint may refer to it. */
  markBoundary(): void {
    this.boundary = this.ends();
  }

  /**
   * Marks a boundary, and resolves when the rows of every stream are on the disk. Together, because a disk commits ten
   * files in little more time than one; a step may begin meanwhile.
   */
  async endStep(): Promise<void> {
    this.markBoundary();
    await this.sync();
  }

  /** Resolves when the rows of every stream are on the disk. */
  async sync(): Promise<void> {
    await Promise.all([...this.writers.values()].map((writer) => writer.sync()));
  }

  /** Where the streams ended at the last boundary: rows behind it are of a step that was not finished. */
  offsets(): StreamOffsets {
    return this.boundary;
  }

  close(): void {
    for (const writer of this.writers.values()) writer.close();
    this.writers.clear();
  }

  private ends(): StreamOffsets {
    const entries = TABLE_NAMES.map((table) => [table, this.writer(table).bytes]);
    return Object.fromEntries(entries) as StreamOffsets;
  }

  private writer<N extends TableName>(table: N): StreamWriter<N> {
    const writer = this.writers.get(table);
    if (writer === undefined) throw new Error(`the streams are closed (table ${table})`);
    return writer as unknown as StreamWriter<N>;
  }
}

/** Moves the streams of a run into the folder `aside`. */
function moveStreams(run: string, aside: string): void {
  const folder = join(run, 'streams');
  if (!existsSync(folder)) return;
  onFile(folder, () => {
    makeFolder(aside);
    renameSync(folder, join(aside, 'streams'));
    syncFolder(run);
  });
}
