/**
 * Rows of token sequences of which common beginnings are computed once. The same numbers as packing a batch gives
 * (native/batch), without the native addon, and so the fewest: a GPU's trees have at most two levels.
 */
import type { TrainCall } from '../../engine/types.js';

export interface Rows {
  rows: number;
  /** Keys that the rows meet in attention: each its own position and those before it. */
  keys: number;
  /** Trees, and blocks of up to 64 positions that a CPU's attention cuts their unbranched runs into. */
  trees: number;
  blocks: number;
}

/** Positions of a block (native/kernels/cpu/attention.h). */
export const BLOCK = 64;

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
  const total: Rows = { ...NONE };
  const runs = new Runs();
  let before = new Int32Array();
  for (const text of texts.sort(inOrder)) {
    const shared = sharedLength(before, text);
    total.rows += text.length - shared;
    total.keys += (text.length * (text.length + 1) - shared * (shared + 1)) / 2;
    if (shared === 0 && text.length > 0) total.trees += 1;
    runs.add(shared, text.length);
    before = text;
  }
  return { ...total, blocks: runs.blocks() };
}

const NONE: Rows = { rows: 0, keys: 0, trees: 0, blocks: 0 };

/** The unbranched runs of a prefix tree, from its sequences in order. */
class Runs {
  #blocks = 0;
  /** Those that the last sequence goes through: where each begins and ends. */
  #path: { begin: number; end: number }[] = [];

  add(shared: number, length: number): void {
    const ended = this.#path.at(-1)?.end;
    this.#leave(shared);
    if (length === shared) return;
    const last = this.#path.at(-1);
    // It goes on from the one before it, as a conversation does: no branch (native/batch).
    if (last !== undefined && ended === shared) last.end = length;
    else this.#path.push({ begin: shared, end: length });
  }

  /** Of all sequences; none may be added afterwards. */
  blocks(): number {
    this.#leave(0);
    return this.#blocks;
  }

  /** What lies beyond `depth` has no more branches; a run that goes across it is cut in two. */
  #leave(depth: number): void {
    for (let last = this.#path.at(-1); last !== undefined && last.end > depth; last = this.#path.at(-1)) {
      this.#blocks += Math.ceil((last.end - Math.max(depth, last.begin)) / BLOCK);
      if (last.begin < depth) last.end = depth;
      else this.#path.pop();
    }
  }
}

/** Rows of a batch whose groups share nothing with each other. */
export function groupedRows(calls: readonly TrainCall[]): Rows {
  const groups = new Map<number, TrainCall[]>();
  for (const call of calls) groups.set(call.group, [...(groups.get(call.group) ?? []), call]);
  const parts = [...groups.values()].map(prefixRows);
  return parts.reduce(
    (a, b) => ({
      rows: a.rows + b.rows,
      keys: a.keys + b.keys,
      trees: a.trees + b.trees,
      blocks: a.blocks + b.blocks,
    }),
    NONE,
  );
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
