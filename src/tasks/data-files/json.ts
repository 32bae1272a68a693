/** Rows of JSON lines or of a JSON array, as Python writes them too: NaN and Infinity are numbers. */
import { reasonOf } from '../../config/errors.js';
import { nestsTooDeeply } from '../../config/json.js';
import { parseJson } from '../code-values.js';
import type { ReadRow, Row } from './data-row.js';
import { asUtf8, beginsArray, elementsOf, isBlank, linesOf } from './text.js';

/** Lines are numbered from 1, elements too. */
export async function* jsonRows(name: string, bytes: AsyncIterable<Buffer>): AsyncGenerator<ReadRow[]> {
  let number = 0;
  const texts = await isArray(asUtf8(bytes));
  for await (const some of texts.isArray ? elementsOf(texts.bytes) : linesOf(texts.bytes)) {
    yield some.flatMap((text) => {
      number++;
      return isBlank(text) && !texts.isArray ? [] : [rowOf(`${name}:${number}`, text)];
    });
  }
}

/** Pieces, of at most a MiB. */
const MOST_BLANK = 64;

/** Looks at the beginning, and gives all bytes back. */
async function isArray(
  bytes: AsyncGenerator<Buffer>,
): Promise<{ isArray: boolean; bytes: AsyncIterable<Buffer> }> {
  const seen: Buffer[] = [];
  let next = await bytes.next();
  while (next.done !== true) {
    seen.push(next.value);
    if (!isBlank(next.value)) break;
    if (seen.length > MOST_BLANK)
      throw new Error(`it begins with more than ${MOST_BLANK} MiB of white space`);
    next = await bytes.next();
  }
  const last = seen.at(-1);
  return {
    isArray: last !== undefined && beginsArray(last),
    bytes: (async function* () {
      yield* seen;
      yield* bytes;
    })(),
  };
}

const utf8 = new TextDecoder('utf-8', { fatal: true });

function rowOf(where: string, bytes: Buffer): ReadRow {
  let text: string;
  try {
    text = utf8.decode(bytes);
  } catch {
    return { where, error: 'is not UTF-8 text' };
  }
  try {
    return asRow(where, parseJson(text));
  } catch (error) {
    return { where, error: `is not JSON (${reasonOf(error)})` };
  }
}

export function asRow(where: string, row: unknown): ReadRow {
  const isObject = typeof row === 'object' && row !== null && !Array.isArray(row);
  if (!isObject) return { where, error: 'is not an object' };
  return nestsTooDeeply(row) ? { where, error: 'nests too deeply' } : { where, row: row as Row };
}
