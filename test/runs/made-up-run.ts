/** Runs with made-up measurements: what readers of streams make of them is known beforehand. */

import { describeEnvironment } from '../../src/runs/environment.js';
import { createRun } from '../../src/runs/run-directory.js';
import { RunStreams } from '../../src/streams/run-streams.js';
import type { TableName } from '../../src/streams/tables.js';
import { filled, type Row } from './rows.js';
import { temporaryFolder } from './temporary.js';

export type { Row } from './rows.js';

export interface Words {
  roles: string[];
  policies: string[];
}

export const VOTING: Words = { roles: ['generator', 'aggregator'], policies: ['shared'] };

/** A run that is in use until it is released. */
export class MadeUpRun {
  readonly folder = temporaryFolder();
  readonly release: () => void;
  readonly #words: Words;
  readonly #streams: RunStreams;

  constructor(words: Words = VOTING, config = '') {
    this.#words = words;
    const environment = describeEnvironment({ libtorch: null, devices: [] });
    const { release } = createRun(this.folder, config, environment);
    this.#streams = RunStreams.create(this.folder, words);
    this.release = () => {
      this.#streams.close();
      release();
    };
  }

  /** Columns that a row does not name are null or, where they may not be, zero or the first word. */
  append(rows: Partial<Record<TableName, Row[]>>): void {
    for (const [table, list] of Object.entries(rows) as [TableName, Row[]][]) {
      const whole = list.map((row) => filled(table, row, this.#words));
      this.#streams.append(table, whole as never);
    }
  }
}

/** The folder of a run with these rows that is no longer written. */
export function madeUp(rows: Partial<Record<TableName, Row[]>>, words?: Words): string {
  const run = new MadeUpRun(words);
  run.append(rows);
  run.release();
  return run.folder;
}
