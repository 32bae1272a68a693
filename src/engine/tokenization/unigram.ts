/** Unigram: the tokens of a piece whose scores have the largest sum. As Unigram::encode_optimized of tokenizers. */
import { byteToken } from './bpe.js';
import type { UnigramJson } from './schema.js';

/** Below the lowest score, for a character that no token begins with. */
const UNKNOWN_PENALTY = 10;

interface Node {
  /** By code unit. */
  next: Map<number, Node>;
  id: number | undefined;
}

export class Unigram {
  readonly vocabulary: ReadonlyMap<string, number>;
  readonly #json: UnigramJson;
  readonly #root: Node = { next: new Map(), id: undefined };
  readonly #unknownScore: number;

  constructor(json: UnigramJson) {
    const { vocab, unk_id: unknown } = json;
    if (unknown != null && unknown >= vocab.length) throw new Error('its unk_id is beyond its vocabulary');
    this.#json = json;
    this.vocabulary = new Map(vocab.map(([token], id) => [token, id]));
    let lowest = Number.POSITIVE_INFINITY;
    for (const [, score] of vocab) lowest = Math.min(lowest, score);
    this.#unknownScore = lowest - UNKNOWN_PENALTY;
    for (const [token, id] of this.vocabulary) this.#insert(token, id);
  }

  #insert(token: string, id: number): void {
    let node = this.#root;
    for (let i = 0; i < token.length; i++) {
      const unit = token.charCodeAt(i);
      let below = node.next.get(unit);
      if (below === undefined) {
        below = { next: new Map(), id: undefined };
        node.next.set(unit, below);
      }
      node = below;
    }
    if (token !== '') node.id = id;
  }

  ids(piece: string): number[] {
    return this.#pieces(piece).flatMap((text) => {
      const id = this.vocabulary.get(text);
      if (id !== undefined) return [id];
      const bytes = this.#json.byte_fallback ? this.#bytes(text) : undefined;
      return bytes ?? [this.#unknown()];
    });
  }

  #bytes(text: string): number[] | undefined {
    const ids = Array.from(Buffer.from(text, 'utf8'), (byte) => this.vocabulary.get(byteToken(byte)));
    return ids.every((id) => id !== undefined) ? (ids as number[]) : undefined;
  }

  #unknown(): number {
    if (this.#json.unk_id != null) return this.#json.unk_id;
    throw new Error('it has no unknown token (unk_id), which a text needs');
  }

  /** The best path; neighbouring unknown characters are one piece. */
  #pieces(text: string): string[] {
    const { start, id } = this.#bestPath(text);
    const found: string[] = [];
    let joined = '';
    for (let end = text.length; end > 0; ) {
      const from = start[end] as number;
      const part = text.slice(from, end);
      if (id[end] === this.#json.unk_id) joined = part + joined;
      else {
        if (joined !== '') found.push(joined);
        joined = '';
        found.push(part);
      }
      end = from;
    }
    if (joined !== '') found.push(joined);
    return found.reverse();
  }

  /** By end position: where the last token of the best path to there starts, and which it is. */
  #bestPath(text: string): { start: Int32Array; id: Int32Array } {
    const score = new Float64Array(text.length + 1);
    const start = new Int32Array(text.length + 1).fill(-1);
    const id = new Int32Array(text.length + 1);
    const offer = (from: number, end: number, token: number, sum: number) => {
      if (start[end] !== -1 && sum <= (score[end] as number)) return;
      score[end] = sum;
      start[end] = from;
      id[end] = token;
    };
    for (let at = 0; at < text.length; ) {
      const before = score[at] as number;
      const width = (text.codePointAt(at) as number) > 0xffff ? 2 : 1;
      let single = false;
      let node: Node | undefined = this.#root;
      for (let end = at + 1; end <= text.length; end++) {
        node = node.next.get(text.charCodeAt(end - 1));
        if (node === undefined) break;
        if (node.id === undefined) continue;
        offer(at, end, node.id, before + (this.#json.vocab[node.id]?.[1] ?? 0));
        if (end === at + width) single = true;
      }
      if (!single) offer(at, at + width, this.#unknown(), before + this.#unknownScore);
      at += width;
    }
    return { start, id };
  }
}
