/** The history of a run (gradients/history.ts) from the files that it has written. */
import { existsSync } from 'node:fs';
import { History } from '../gradients/history.js';
import { readStream } from './stream-reader.js';
import { streamPath, TABLE_NAMES } from './streams.js';

/** Adds what the streams hold, up to their last whole batches; streams that are not there hold nothing. */
export function addStreams(history: History, run: string): void {
  for (const name of TABLE_NAMES) {
    const path = streamPath(run, name);
    if (History.reads(name) && existsSync(path)) history.add(name, readStream(path).table);
  }
}
