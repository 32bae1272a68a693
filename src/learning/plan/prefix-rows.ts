/**
 * Rows of token sequences of which common beginnings are computed once. The same numbers as packing a batch gives
 * (native/batch), without the native addon.
 */
import type { TrainCall } from '../../engine/types.js';

export interface Rows {
  rows: number;
  /** Keys that the rows meet in attention: each its own position and those before it. */
  keys: number;
}

type Sequence = Pick<TrainCall, 'prompt' | 'response'>;

/** Rows of a prefix tree: sorted, each sequence adds what it does not share with the one before it. */
function prefixRows(sequences: readonly Sequence[]): Rows {
  const texts = sequences.map(({ prompt, response }) => {
    // The last token of a response predicts nothing that is asked for.
    const text = new Int32Array(prompt.length + response.length - (response.length > 0 ? 1 : 0));
    text.set(prompt);
    text.set(response.subarray(0, text.length - prompt.length), prompt.length);
    return text;
  });
  const total: Rows = { rows: 0, keys: 0 };
  let before = new Int32Array();
  for (const text of texts.sort(inOrder)) {
    const shared = sharedLength(before, text);
    total.rows += text.length - shared;
    total.keys += (text.length * (text.length + 1) - shared * (shared + 1)) / 2;
    before = text;
  }
  return total;
}

/** Rows of a batch whose groups share nothing with each other. */
export function groupedRows(calls: readonly TrainCall[]): Rows {
  const groups = new Map<number, TrainCall[]>();
  for (const call of calls) groups.set(call.group, [...(groups.get(call.group) ?? []), call]);
  const parts = [...groups.values()].map(prefixRows);
  return parts.reduce((a, b) => ({ rows: a.rows + b.rows, keys: a.keys + b.keys }), { rows: 0, keys: 0 });
}

export function sharedLength(a: Int32Array, b: Int32Array): number {
  const end = Math.min(a.length, b.length);
  let length = 0;
  while (length < end && a[length] === b[length]) length++;
  return length;
}

/** Negative where `a` comes before `b`; a sequence comes before what begins like it. */
export function inOrder(a: Int32Array, b: Int32Array): number {
  const shared = sharedLength(a, b);
  if (shared === Math.min(a.length, b.length)) return a.length - b.length;
  return (a[shared] as number) - (b[shared] as number);
}
