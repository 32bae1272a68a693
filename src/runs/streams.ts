/** The streams of one run, one file per table of gradients/tables.ts, in the run's folder "streams". */

import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { makeFolder } from '../config/make-folder.js';
import type { RunVocabularies } from '../gradients/columns.js';
import { newColumns, type TableColumns } from '../gradients/schemas.js';
import { TABLES, type TableName } from '../gradients/tables.js';
import { onFile, syncFolder } from './files.js';
import { StreamWriter } from './stream.js';

export const TABLE_NAMES = Object.keys(TABLES) as TableName[];

/** Length of each stream in bytes: where a resumed run goes on. */
export type StreamOffsets = Record<TableName, number>;

/** File of a table in the folder of a run. */
export function streamPath(run: string, table: TableName): string {
  return join(run, 'streams', `${table}.arrows`);
}

/**
 * Writers of every table. A step's rows are appended table by table; `endStep` brings them to the disk.
 *
 * @example
 * const streams = RunStreams.create(folder, { roles: ['generator'], policies: ['shared'] });
 * const steps = streams.columns('steps');
 * steps.step.push(0); // … every column of the table
 * streams.append('steps', steps);
 * await streams.endStep();
 */
export class RunStreams {
  private readonly writers: Map<TableName, StreamWriter<TableName>>;
  private readonly words: RunVocabularies;
  /** Sees the rows that are appended, after they are written. */
  observe: ((table: TableName, columns: object) => void) | undefined;

  private constructor(words: RunVocabularies, open: (table: TableName) => StreamWriter<TableName>) {
    this.words = words;
    this.writers = new Map();
    try {
      for (const table of TABLE_NAMES) this.writers.set(table, open(table));
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** New, empty streams. Throws a TroupeError if one exists or cannot be written. */
  static create(run: string, words: RunVocabularies): RunStreams {
    const folder = join(run, 'streams');
    onFile(folder, () => makeFolder(folder));
    const streams = new RunStreams(words, (table) => {
      return StreamWriter.create(table, streamPath(run, table), words);
    });
    onFile(folder, () => syncFolder(folder));
    return streams;
  }

  /**
   * Goes on where `offsets` say and drops what lies behind. Without them (no checkpoint was written yet) the
   * streams start again, empty.
   */
  static resume(run: string, words: RunVocabularies, offsets: StreamOffsets | undefined): RunStreams {
    if (offsets !== undefined) {
      return new RunStreams(words, (table) => {
        const path = streamPath(run, table);
        // A run may be older than the table.
        if (offsets[table] === undefined && !existsSync(path)) return StreamWriter.create(table, path, words);
        return StreamWriter.resume(table, path, words, offsets[table]);
      });
    }
    for (const table of TABLE_NAMES) {
      const path = streamPath(run, table);
      if (existsSync(path)) onFile(path, () => rmSync(path));
    }
    return RunStreams.create(run, words);
  }

  /** Empty columns of a table with the run's words. */
  columns<N extends TableName>(table: N): TableColumns<N> {
    return newColumns(table, this.words);
  }

  /** Appends rows as one record batch; readers see them from here on. */
  append<N extends TableName>(table: N, columns: TableColumns<N>): void {
    this.writer(table).append(columns);
    this.observe?.(table, columns);
  }

  /**
   * Resolves when the rows of every stream are on the disk. Together, because a disk commits ten files in little
   * more time than one; a step may begin meanwhile.
   */
  async endStep(): Promise<void> {
    await Promise.all([...this.writers.values()].map((writer) => writer.sync()));
  }

  /** Where the streams end now. */
  offsets(): StreamOffsets {
    const entries = TABLE_NAMES.map((table) => [table, this.writer(table).bytes]);
    return Object.fromEntries(entries) as StreamOffsets;
  }

  close(): void {
    for (const writer of this.writers.values()) writer.close();
    this.writers.clear();
  }

  private writer<N extends TableName>(table: N): StreamWriter<N> {
    const writer = this.writers.get(table);
    if (writer === undefined) throw new Error(`the streams are closed (table ${table})`);
    return writer as unknown as StreamWriter<N>;
  }
}
