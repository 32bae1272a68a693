/** The history of a run (judgement/history.ts) from the files that it has written. */
import { History } from '../judgement/history.js';
import { readTables } from './read-tables.js';

/**
 * Adds what the streams hold, up to their last whole batches; streams that are not there hold nothing. `warn` is told
 * what was left out.
 */
export function addStreams(history: History, run: string, warn: (message: string) => void = () => {}): void {
  for (const { name, table, leftOut } of readTables(run, (one) => History.reads(one))) {
    if (leftOut !== undefined) warn(leftOut);
    history.add(name, table);
  }
}
