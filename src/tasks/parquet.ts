/**
 * The rows of a Parquet file. They are read in a thread of their own: a damaged file makes the library loop, take all
 * memory or leave behind a rejection that nobody holds, and none of these may end the program.
 */
import { statSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { reasonOf } from '../config/errors.js';

/** Seconds that any file may take, and those for each megabyte of it; a sound one is read ten times as fast. */
const PATIENCE = 10;
const PATIENCE_PER_MEGABYTE = 2;

/** Rejects with an Error if the file is damaged. */
export async function parquetRows(file: string): Promise<unknown[]> {
  const seconds = PATIENCE + PATIENCE_PER_MEGABYTE * (statSync(file).size / 1e6);
  // Threads run what was built, in the tests too.
  const program = import.meta.url.endsWith('.ts') ? '../../build/js/tasks/' : './';
  const worker = new Worker(new URL(`${program}parquet-worker.js`, import.meta.url), { workerData: file });
  let timer: NodeJS.Timeout | undefined;
  try {
    return await new Promise<unknown[]>((resolve, reject) => {
      const fail = (reason: string) => reject(new Error(`it is damaged: ${reason}`));
      timer = setTimeout(() => fail(`reading it came to no end in ${Math.round(seconds)} s`), 1000 * seconds);
      worker.once('message', resolve);
      worker.once('error', (error) => fail(reasonOf(error)));
      worker.once('exit', () => fail('reading it ended early'));
    });
  } finally {
    clearTimeout(timer);
    await worker.terminate();
  }
}
