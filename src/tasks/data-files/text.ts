/** Text in data files: byte-order marks, lines, and the elements of a JSON array, each as bytes. */
import { TextDecoder } from 'node:util';

/** Bytes of one row; a string cannot be much longer. */
export const MOST_OF_ROW = 2 ** 28;

const MARKS = [
  { encoding: 'utf-16le', mark: [0xff, 0xfe] },
  { encoding: 'utf-16be', mark: [0xfe, 0xff] },
  { encoding: 'utf-8', mark: [0xef, 0xbb, 0xbf] },
] as const;

/** The same text as UTF-8 without a byte-order mark, which says when it is UTF-16. */
export async function* asUtf8(bytes: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let decoder: TextDecoder | undefined;
  let first = true;
  for await (const piece of withHead(bytes, 3)) {
    const found = first ? MARKS.find(({ mark }) => mark.every((byte, i) => piece[i] === byte)) : undefined;
    first = false;
    if (found !== undefined && found.encoding !== 'utf-8')
      decoder = new TextDecoder(found.encoding, { fatal: true });
    if (decoder !== undefined) yield Buffer.from(decoder.decode(piece, { stream: true }));
    else yield found === undefined ? piece : piece.subarray(found.mark.length);
  }
  if (decoder !== undefined) yield Buffer.from(decoder.decode());
}

/** The same bytes; the first piece has at least `size` of them if there are so many. */
async function* withHead(bytes: AsyncIterable<Buffer>, size: number): AsyncGenerator<Buffer> {
  let head: Buffer | undefined = Buffer.alloc(0);
  for await (const piece of bytes) {
    if (head === undefined) {
      yield piece;
      continue;
    }
    head = Buffer.concat([head, piece]);
    if (head.length < size) continue;
    yield head;
    head = undefined;
  }
  if (head !== undefined) yield head;
}

/** Parts of a row that lies across pieces. */
class Parts {
  #parts: Buffer[] = [];
  #length = 0;

  /** Throws an Error if the row grows too long. */
  add(part: Buffer): void {
    this.#parts.push(part);
    this.#length += part.length;
    if (this.#length > MOST_OF_ROW) throw new Error(`it has a row of more than ${MOST_OF_ROW} bytes`);
  }

  take(): Buffer {
    const whole = this.#parts.length === 1 ? this.#parts[0] : Buffer.concat(this.#parts);
    this.#parts = [];
    this.#length = 0;
    return whole ?? Buffer.alloc(0);
  }

  get length(): number {
    return this.#length;
  }
}

const NEWLINE = 0x0a;
/** A packed file may hold more of them than anybody could wait for. */
const MOST_EMPTY_LINES = 2 ** 22;

/** The lines of each piece together; a last line without its end counts. Throws an Error for millions of empty ones. */
export async function* linesOf(bytes: AsyncIterable<Buffer>): AsyncGenerator<Buffer[]> {
  const parts = new Parts();
  let empty = 0;
  for await (const piece of bytes) {
    const lines: Buffer[] = [];
    let start = 0;
    for (let end = piece.indexOf(NEWLINE); end >= 0; end = piece.indexOf(NEWLINE, start)) {
      parts.add(piece.subarray(start, end));
      if (parts.length === 0 && ++empty > MOST_EMPTY_LINES)
        throw new Error(`it has more than ${MOST_EMPTY_LINES} empty lines`);
      lines.push(parts.take());
      start = end + 1;
    }
    parts.add(piece.subarray(start));
    yield lines;
  }
  if (parts.length > 0) yield [parts.take()];
}

const [QUOTE, BACKSLASH, COMMA] = [0x22, 0x5c, 0x2c];
const OPEN = new Set([0x5b, 0x7b]);
const CLOSE = new Set([0x5d, 0x7d]);
const SPACE = new Set([0x20, 0x09, 0x0a, 0x0d]);

/** Whether text is a JSON array: whether its first letter is a bracket. */
export function beginsArray(text: Buffer): boolean {
  return text.find((byte) => !SPACE.has(byte)) === 0x5b;
}

/**
 * The texts between the commas of a JSON array. Whether each is JSON is for others to see. Throws an Error for an
 * array that does not end, or behind which something follows.
 */
export async function* elementsOf(bytes: AsyncIterable<Buffer>): AsyncGenerator<Buffer[]> {
  const parts = new Parts();
  let [depth, inText, escaped, count, ended] = [0, false, false, 0, false];
  for await (const piece of bytes) {
    const elements: Buffer[] = [];
    let start = 0;
    const cut = (end: number) => {
      parts.add(piece.subarray(start, end));
      elements.push(parts.take());
      count++;
    };
    for (let i = 0; i < piece.length; i++) {
      const byte = piece[i] as number;
      if (inText) {
        if (escaped) escaped = false;
        else if (byte === BACKSLASH) escaped = true;
        else if (byte === QUOTE) inText = false;
      } else if (ended) {
        if (!SPACE.has(byte)) throw new Error('something follows its JSON array');
      } else if (byte === QUOTE) inText = true;
      else if (OPEN.has(byte)) {
        depth++;
        if (depth === 1) start = i + 1;
      } else if (CLOSE.has(byte)) {
        depth--;
        if (depth === 0) {
          ended = true;
          cut(i);
        }
      } else if (byte === COMMA && depth === 1) {
        cut(i);
        start = i + 1;
      }
    }
    if (!ended && depth > 0) parts.add(piece.subarray(start));
    // An empty array is one text of nothing.
    yield ended && count === 1 && isBlank(elements[0]) ? [] : elements;
  }
  if (!ended) throw new Error('its JSON array does not end: the file is cut off');
}

export function isBlank(text: Buffer | undefined): boolean {
  return text?.every((byte) => SPACE.has(byte)) ?? true;
}
