/** What texts of tokens begin alike, and the rows of prefix trees of calls. */
import type { RoleCall } from '../workflows/types.js';

/** Tokens that both begin with. */
export function sharedLength(a: Int32Array, b: Int32Array): number {
  const end = Math.min(a.length, b.length);
  let length = 0;
  while (length < end && a[length] === b[length]) length++;
  return length;
}

/** Negative where `a` comes before `b`; a sequence comes before what begins like it. In order, neighbours share most. */
export function inOrder(a: Int32Array, b: Int32Array): number {
  const shared = sharedLength(a, b);
  if (shared === Math.min(a.length, b.length)) return a.length - b.length;
  return (a[shared] as number) - (b[shared] as number);
}

/**
 * Rows that a training pass computes of calls of one group together: a token that several begin alike with is one, a
 * conversation's turns go on from each other, and a response's last token, which predicts nothing, is none. Of trees of any
 * number of levels; a GPU's have two (docs/cuda-measurements.md), and a few rows more.
 */
export function rowsOf(calls: readonly Pick<RoleCall, 'prompt' | 'completion'>[]): number {
  const texts = calls.flatMap(({ prompt, completion: { ids } }) => {
    if (ids.length === 0) return [];
    const text = new Int32Array(prompt.length + ids.length - 1);
    text.set(prompt);
    text.set(ids.subarray(0, -1), prompt.length);
    return [text];
  });
  texts.sort(inOrder);
  let before = new Int32Array();
  let rows = 0;
  for (const text of texts) {
    rows += text.length - sharedLength(before, text);
    before = text;
  }
  return rows;
}
