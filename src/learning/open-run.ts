/** A run directory as a program reads it. */
import { existsSync } from 'node:fs';
import type { RunConfig } from '../config/schema.js';
import { History } from '../judgement/history.js';
import { type Verdict, verdict } from '../judgement/verdict.js';
import { type KeptCheckpoint, listCheckpoints } from '../runs/checkpoint.js';
import type { Environment } from '../runs/environment.js';
import { addStreams } from '../runs/read-history.js';
import { loadRun } from '../runs/run-config.js';
import { type RecordedChange, readChanges, readEnvironments } from '../runs/run-directory.js';
import { streamPath, TABLE_NAMES } from '../streams/stream-files.js';
import { readStream, type StreamContents } from '../streams/stream-reader.js';
import type { TableName } from '../streams/tables.js';

/** A run on the disk, also one that is going on. What it says is read anew at each call. */
export interface OpenRun {
  folder: string;
  /** The resolved configuration: every key is there. */
  config: RunConfig;
  /** What each process that worked on it ran on, the first one first. */
  environments: Environment[];
  /** What of the configuration changed on the way. */
  changes: RecordedChange[];
  /** Names of the streams that are there. */
  tables(): TableName[];
  /** A stream up to its last whole batch. Throws a TroupeError if it is not there or is damaged. */
  table(name: TableName): StreamContents;
  /** Complete checkpoints, oldest first; `policies/NAME` in their folders are models or adapters. */
  checkpoints(): KeptCheckpoint[];
  /** Cliffs, alarms and dead roles that its streams show. */
  verdict(): Verdict;
}

/**
 * Throws a TroupeError if the folder is no run.
 *
 * @example
 * const run = openRun('runs/voting-20260102-030405');
 * const { table } = run.table('steps');
 * console.log(table.getChild('reward_mean')?.toJSON());
 */
export function openRun(folder: string): OpenRun {
  const { config } = loadRun(folder);
  return {
    folder,
    config,
    environments: readEnvironments(folder),
    changes: readChanges(folder),
    tables: () => TABLE_NAMES.filter((name) => existsSync(streamPath(folder, name))),
    table: (name) => readStream(streamPath(folder, name)),
    checkpoints: () => listCheckpoints(folder),
    verdict: () => {
      const history = new History();
      addStreams(history, folder);
      return verdict(history, config.alarms);
    },
  };
}
