/** The thread of parquet.ts: reads the file that it is given and sends its rows. */
import { parentPort, workerData } from 'node:worker_threads';
import { asyncBufferFromFile, parquetReadObjects } from 'hyparquet';
import { compressors } from 'hyparquet-compressors';

parentPort?.postMessage(
  await parquetReadObjects({ file: await asyncBufferFromFile(workerData), compressors }),
);
