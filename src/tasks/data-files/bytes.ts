/** The bytes of a data file, unpacked where it is packed, in pieces: no file has to fit into memory. */
import { createReadStream } from 'node:fs';
import { createGunzip } from 'node:zlib';
import { Decompress } from 'fzstd';

export type Packing = 'gzip' | 'zstd';

/** What a packed file may grow to: ROOM bytes, or GROWTH times its size if that is more. */
const ROOM = 2 ** 32;
const GROWTH = 100;

/** Throws an Error for a file that is cut off, damaged, or grows beyond all measure. `size`: the file's, in bytes. */
export async function* bytesOf(
  file: string,
  packing?: Packing,
  size = 0,
  room = ROOM,
): AsyncGenerator<Buffer> {
  const packed = createReadStream(file, { highWaterMark: 2 ** 20 });
  if (packing === undefined) return yield* packed;
  const most = Math.max(room, GROWTH * size);
  let count = 0;
  for await (const piece of packing === 'gzip' ? gunzipped(packed) : unzstd(packed)) {
    count += piece.length;
    if (count > most)
      throw new Error(`it unpacks to more than ${most} bytes; unpack it yourself if that is right`);
    yield piece;
  }
}

async function* gunzipped(packed: NodeJS.ReadableStream): AsyncGenerator<Buffer> {
  const unpacked = createGunzip({ chunkSize: 2 ** 20 });
  packed.once('error', (error) => unpacked.destroy(error));
  yield* packed.pipe(unpacked);
}

/** Node 20's zlib knows no zstd. Frames may follow each other; checksums are not compared. */
async function* unzstd(packed: AsyncIterable<string | Buffer>): AsyncGenerator<Buffer> {
  let pieces: Buffer[] = [];
  let begun = false;
  const decompress = new Decompress((piece) => {
    pieces.push(Buffer.from(piece));
  });
  const drain = () => {
    const drained = pieces;
    pieces = [];
    return drained;
  };
  for await (const piece of packed) {
    if (!begun) checkWindow(piece as Buffer);
    begun = true;
    decompress.push(piece as Buffer);
    yield* drain();
  }
  decompress.push(new Uint8Array(), true);
  yield* drain();
}

/** The window that zstd's own program decodes without being told to, in bytes: 2^27. */
const WIDEST_WINDOW = 2 ** 27;

/** A frame may ask for a window of 2 GiB, which a few bytes would make us hold (RFC 8878, 3.1.1.1.2). */
function checkWindow(frame: Buffer): void {
  const [flags = 0, descriptor = 0] = frame.subarray(4);
  const single = (flags & 0x20) !== 0;
  const base = 2 ** (10 + (descriptor >> 3));
  if (!single && base + (base / 8) * (descriptor & 7) > WIDEST_WINDOW) {
    throw new Error(`its zstd window is above ${WIDEST_WINDOW} bytes; pack it without --long`);
  }
}
