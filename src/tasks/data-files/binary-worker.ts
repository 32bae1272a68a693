/** The thread of binary.ts: sends the next rows of its file each time that it is asked; undefined when none are left. */
import { parentPort, workerData } from 'node:worker_threads';
import type { BinaryFile } from './binary.js';

/** Rows that go over at once. */
const BATCH = 1000;

const batches = inBatches(await groupsOf(workerData));

parentPort?.on('message', async () => {
  const { value } = await batches.next();
  parentPort?.postMessage(value);
});

/** The libraries take their time to load: only the one that is needed. */
async function groupsOf({ file, kind, packing }: BinaryFile): Promise<AsyncIterable<unknown[]>> {
  if (kind === 'parquet') return (await import('./parquet.js')).parquetRows(file);
  return (await import('./arrow.js')).arrowRows(file, packing);
}

async function* inBatches(groups: AsyncIterable<unknown[]>): AsyncGenerator<unknown[], undefined> {
  for await (const rows of groups) {
    for (let start = 0; start < rows.length; start += BATCH) yield rows.slice(start, start + BATCH);
  }
}
