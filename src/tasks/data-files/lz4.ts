/**
 * Unpacks LZ4: blocks as Parquet has them and frames as Arrow has them (github.com/lz4/lz4, doc/lz4_Block_format.md
 * and lz4_Frame_format.md). Checksums are not compared.
 */

/**
 * Unpacks one block into `output` from `start` on, and returns where it ends. Matches may lie before `start`. Throws an
 * Error for a block that is damaged or too large for `output`.
 */
export function lz4Block(input: Uint8Array, output: Uint8Array, start: number): number {
  let [from, to] = [0, start];
  const length = (nibble: number) => {
    let sum = nibble;
    for (let byte = nibble === 15 ? 255 : 0; byte === 255; ) {
      byte = input[from++] ?? 0;
      sum += byte;
    }
    return sum;
  };
  while (from < input.length) {
    const token = input[from++] as number;
    const literals = length(token >> 4);
    if (literals > input.length - from || literals > output.length - to)
      throw new Error('LZ4 literals too long');
    output.set(input.subarray(from, from + literals), to);
    from += literals;
    to += literals;
    // The last sequence has no match.
    if (from >= input.length) break;
    const offset = (input[from++] ?? 0) | ((input[from++] ?? 0) << 8);
    const match = length(token & 15) + 4;
    if (offset === 0 || offset > to || match > output.length - to) throw new Error('LZ4 match out of range');
    // What is copied may be what was just written.
    for (const end = to + match; to < end; to++) output[to] = output[to - offset] as number;
  }
  return to;
}

const MAGIC = 0x184d2204;
const BLOCK_CHECKSUMS = 0x10;
const CONTENT_SIZE = 0x08;
const DICTIONARY = 0x01;
const STORED = 2 ** 31;

/** Unpacks one frame. Throws an Error for one that is damaged or cut off. */
export function lz4Frame(input: Uint8Array): Uint8Array {
  const view = new DataView(input.buffer, input.byteOffset, input.byteLength);
  if (view.getUint32(0, true) !== MAGIC) throw new Error('no LZ4 frame');
  const blocks = [...blocksOf(view, view.getUint8(4))];
  // 64 KiB, 256 KiB, 1 MiB or 4 MiB.
  const largest = 2 ** (8 + 2 * ((view.getUint8(5) >> 4) & 7));
  const output = new Uint8Array(blocks.length * largest);
  let end = 0;
  for (const { at, length, stored } of blocks) {
    const block = input.subarray(at, at + length);
    if (!stored) end = lz4Block(block, output, end);
    else {
      output.set(block, end);
      end += length;
    }
  }
  return output.subarray(0, end);
}

function* blocksOf(
  view: DataView,
  flags: number,
): Generator<{ at: number; length: number; stored: boolean }> {
  let at = 7 + (flags & CONTENT_SIZE ? 8 : 0) + (flags & DICTIONARY ? 4 : 0);
  for (;;) {
    const word = view.getUint32(at, true);
    if (word === 0) return;
    at += 4;
    const length = word % STORED;
    if (at + length > view.byteLength) throw new Error('an LZ4 frame that is cut off');
    yield { at, length, stored: word >= STORED };
    at += length + (flags & BLOCK_CHECKSUMS ? 4 : 0);
  }
}
