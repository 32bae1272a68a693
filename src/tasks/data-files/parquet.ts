/** Rows of a Parquet file, one row group at a time: that much of the file is held, not all of it. */
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } from 'hyparquet';
import { compressors } from 'hyparquet-compressors';
import { lz4Block } from './lz4.js';

/** hyparquet-compressors takes an empty LZ4 page, which a column of nulls has, for a damaged one. */
const codecs = {
  ...compressors,
  LZ4_RAW: (input: Uint8Array, length: number) => {
    const output = new Uint8Array(length);
    lz4Block(input, output, 0);
    return output;
  },
};

export async function* parquetRows(path: string): AsyncGenerator<unknown[]> {
  const file = await asyncBufferFromFile(path);
  const metadata = await parquetMetadataAsync(file);
  let rowStart = 0;
  for (const group of metadata.row_groups) {
    const rowEnd = rowStart + Number(group.num_rows);
    yield await parquetReadObjects({ file, metadata, compressors: codecs, rowStart, rowEnd });
    rowStart = rowEnd;
  }
}
