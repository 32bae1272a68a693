/**
 * Byte-pair encoding: the characters of a piece, of which the pair that was learnt first is merged until none is left.
 * As BPE::merge_word and Word::merge_all of tokenizers do it, down to where unknown characters come out.
 */
import type { BpeJson } from './schema.js';

/** Pieces whose ids are kept, and the longest of them. */
const KEPT = 2 ** 16;
const LONGEST_KEPT = 256;
/** Ranks and positions share one number in the queue. */
const POSITIONS = 2 ** 31;
const MOST_MERGES = 2 ** 21;

interface Merge {
  rank: number;
  id: number;
}

export class Bpe {
  readonly vocabulary: ReadonlyMap<string, number>;
  readonly #json: BpeJson;
  /** By left id · size + right id. */
  readonly #merges = new Map<number, Merge>();
  /** What each rank makes. */
  readonly #made: number[] = [];
  readonly #size: number;
  readonly #unknown: number | undefined;
  readonly #kept = new Map<string, readonly number[]>();

  constructor(json: BpeJson) {
    this.#json = json;
    this.vocabulary = new Map(Object.entries(json.vocab));
    this.#unknown = json.unk_token == null ? undefined : this.vocabulary.get(json.unk_token);
    let highest = 0;
    for (const id of this.vocabulary.values()) highest = Math.max(highest, id);
    this.#size = highest + 1;
    if (this.#size > 2 ** 26) throw new Error(`it has the token id ${highest}, which no model has`);
    if (json.merges.length > MOST_MERGES) throw new Error(`it has ${json.merges.length} merges`);
    this.#readMerges(json.merges);
  }

  #readMerges(merges: readonly unknown[]): void {
    const skip = this.#json.continuing_subword_prefix?.length ?? 0;
    for (const merge of merges) {
      const pair = typeof merge === 'string' ? merge.split(' ') : merge;
      if (typeof merge === 'string' && merge.startsWith('#version')) continue;
      if (!isPair(pair)) throw new Error(`${JSON.stringify(merge)?.slice(0, 40)} is no merge of two tokens`);
      const [left, right] = pair;
      const id = this.#known(left + right.slice(skip));
      const rank = this.#made.push(id) - 1;
      this.#merges.set(this.#known(left) * this.#size + this.#known(right), { rank, id });
    }
  }

  #known(token: string): number {
    const id = this.vocabulary.get(token);
    if (id === undefined) throw new Error(`it merges ${token.slice(0, 40)}, which its vocabulary lacks`);
    return id;
  }

  ids(piece: string): readonly number[] {
    if (this.#json.ignore_merges) {
      const whole = this.vocabulary.get(piece);
      if (whole !== undefined) return [whole];
    }
    const kept = this.#kept.get(piece);
    if (kept !== undefined) return kept;
    const ids = this.#merge(this.#characters(piece));
    if (piece.length <= LONGEST_KEPT) {
      if (this.#kept.size >= KEPT) this.#kept.clear();
      this.#kept.set(piece, ids);
    }
    return ids;
  }

  #characters(piece: string): number[] {
    const { byte_fallback: fallback, fuse_unk: fuse, unk_token: token } = this.#json;
    const ids: number[] = [];
    let pending: number | undefined;
    const characters = [...piece];
    for (const [i, character] of characters.entries()) {
      const text = this.#spelled(character, i === 0, i === characters.length - 1);
      const id = this.vocabulary.get(text);
      if (id !== undefined) {
        if (pending !== undefined) ids.push(pending);
        pending = undefined;
        ids.push(id);
        continue;
      }
      const bytes = fallback ? this.#bytes(text) : undefined;
      // An unknown character before it waits until a known one: so does the library.
      if (bytes !== undefined) ids.push(...bytes);
      else if (token != null) {
        if (pending !== undefined && !fuse) ids.push(pending);
        if (this.#unknown === undefined) throw new Error(`its vocabulary lacks its unknown token ${token}`);
        pending = this.#unknown;
      }
    }
    if (pending !== undefined) ids.push(pending);
    return ids;
  }

  #spelled(character: string, first: boolean, last: boolean): string {
    const { continuing_subword_prefix: prefix, end_of_word_suffix: suffix } = this.#json;
    return `${first ? '' : (prefix ?? '')}${character}${last ? (suffix ?? '') : ''}`;
  }

  #bytes(text: string): number[] | undefined {
    const ids: number[] = [];
    for (const byte of Buffer.from(text, 'utf8')) {
      const id = this.vocabulary.get(byteToken(byte));
      if (id === undefined) return undefined;
      ids.push(id);
    }
    return ids;
  }

  /** `ids` is merged in place: `next` and `previous` link what is left of it. */
  #merge(ids: number[]): number[] {
    const next = Int32Array.from(ids, (_, i) => (i + 1 < ids.length ? i + 1 : -1));
    const previous = Int32Array.from(ids, (_, i) => i - 1);
    const queue = new Queue();
    const offer = (at: number) => {
      const after = at < 0 ? -1 : (next[at] as number);
      const merge = after < 0 ? undefined : this.#pair(ids[at] as number, ids[after] as number);
      if (merge !== undefined) queue.push(merge.rank * POSITIONS + at);
    };
    for (let i = 0; i + 1 < ids.length; i++) offer(i);
    for (let key = queue.pop(); key !== undefined; key = queue.pop()) {
      const at = key % POSITIONS;
      const made = this.#made[Math.floor(key / POSITIONS)] as number;
      const after = next[at] as number;
      // Merged into another, or its neighbour is not what it was.
      if (ids[at] === -1 || after < 0) continue;
      if (this.#pair(ids[at] as number, ids[after] as number)?.id !== made) continue;
      ids[at] = made;
      ids[after] = -1;
      next[at] = next[after] as number;
      if ((next[at] as number) >= 0) previous[next[at] as number] = at;
      offer(previous[at] as number);
      offer(at);
    }
    return ids.filter((id) => id !== -1);
  }

  #pair(left: number, right: number): Merge | undefined {
    return this.#merges.get(left * this.#size + right);
  }
}

function isPair(value: unknown): value is [string, string] {
  return Array.isArray(value) && value.length === 2 && value.every((part) => typeof part === 'string');
}

export const byteToken = (byte: number) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;

/** Numbers, the smallest first: a binary heap. */
class Queue {
  readonly #heap: number[] = [];

  push(key: number): void {
    const heap = this.#heap;
    let at = heap.push(key) - 1;
    while (at > 0) {
      const above = (at - 1) >> 1;
      if ((heap[above] as number) <= key) break;
      heap[at] = heap[above] as number;
      at = above;
    }
    heap[at] = key;
  }

  pop(): number | undefined {
    const heap = this.#heap;
    const top = heap[0];
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return top;
    let at = 0;
    for (let below = 1; below < heap.length; below = 2 * at + 1) {
      const right = below + 1;
      if (right < heap.length && (heap[right] as number) < (heap[below] as number)) below = right;
      if ((heap[below] as number) >= last) break;
      heap[at] = heap[below] as number;
      at = below;
    }
    heap[at] = last;
    return top;
  }
}
