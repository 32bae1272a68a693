/**
 * The rows of Parquet and Arrow files. They are read in a thread of their own: a damaged file makes a library loop, take
 * all memory or leave behind a rejection that nobody holds, and none of these may end the program.
 */
import { statSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { reasonOf } from '../../config/errors.js';
import type { Packing } from './bytes.js';

/** What the thread is told to read. */
export interface BinaryFile {
  file: string;
  kind: 'parquet' | 'arrow';
  packing?: Packing;
}

/** Seconds that the next rows of any file may take, and those for each megabyte of it; a sound one is far faster. */
const PATIENCE = 10;
const PATIENCE_PER_MEGABYTE = 2;

/** Some rows at a time, which the thread reads when they are asked for. Rejects with an Error if the file is damaged. */
export async function* binaryRows(data: BinaryFile): AsyncGenerator<unknown[]> {
  const seconds = PATIENCE + PATIENCE_PER_MEGABYTE * (statSync(data.file).size / 1e6);
  const worker = new Worker(new URL('./binary-worker.js', import.meta.url), { workerData: data });
  try {
    for (;;) {
      const rows = await nextRows(worker, seconds);
      if (rows === undefined) return;
      yield rows;
    }
  } finally {
    await worker.terminate();
  }
}

async function nextRows(worker: Worker, seconds: number): Promise<unknown[] | undefined> {
  let free = () => {};
  try {
    return await new Promise<unknown[] | undefined>((resolve, reject) => {
      const fail = (reason: string) => reject(new Error(`it is damaged: ${reason}`));
      // What a library says that went on with parts that are not there is of its own code.
      const lost = (error: unknown) => error instanceof TypeError || error instanceof RangeError;
      const onError = (error: unknown) =>
        fail(lost(error) ? 'parts of it are missing or none' : reasonOf(error));
      const onExit = () => fail('reading it ended early');
      const late = () => fail(`reading it came to no end in ${Math.round(seconds)} s`);
      const timer = setTimeout(late, 1000 * seconds);
      free = () => {
        clearTimeout(timer);
        worker.off('message', resolve).off('error', onError).off('exit', onExit);
      };
      worker.on('message', resolve).on('error', onError).on('exit', onExit);
      worker.postMessage('next');
    });
  } finally {
    free();
  }
}
