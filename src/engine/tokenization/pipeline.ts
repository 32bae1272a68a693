/**
 * A tokenizer as tokenizer.json describes it, with the ids and texts of Hugging Face's Rust library
 * (test/golden/tokenizer_kinds.py). Written here because the library's build for Node ends the process where a file
 * or a text makes it panic, and the one in JavaScript gives other ids for a third of the kinds (docs/models.md).
 */
import { type AddedToken, addedTokens, TokenFinder } from './added-tokens.js';
import { createDecoder, type Decoder } from './decoders.js';
import { marked, markFor, unmarked } from './marks.js';
import { createModel, type Model } from './models.js';
import { createNormalizer, type Normalizer } from './normalizers.js';
import { againstTheClock } from './pattern.js';
import { createPreTokenizer, type Piece, type PreTokenizer } from './pre-tokenizers.js';
import type { TokenizerJson } from './schema.js';
import { Spellings } from './spellings.js';

export class Pipeline {
  readonly model: Model;
  readonly added: readonly AddedToken[];
  readonly #normalizer: Normalizer;
  readonly #preTokenizer: PreTokenizer;
  readonly #decoder: Decoder | undefined;
  /** An expression that is looked for in every text may take time without end. */
  readonly #unbounded: boolean;
  /** Of tokens that are found in the text as it is. */
  readonly #raw: TokenFinder;
  /** Of those that are found behind the normalizer. */
  readonly #normalized: TokenFinder;
  readonly #tokens = new Map<number, string>();
  readonly #special: ReadonlyMap<string, number>;
  readonly #spellings: Spellings;

  /** Throws an Error whose message says what of it cannot be used. */
  constructor(json: TokenizerJson) {
    this.model = createModel(json.model);
    this.#normalizer = createNormalizer(json.normalizer);
    this.#preTokenizer = createPreTokenizer(json.pre_tokenizer);
    this.#decoder = json.decoder === null ? undefined : createDecoder(json.decoder);
    // The library looks at what the beginning was before it was normalized.
    const { drops, spreads } = this.#normalizer;
    const { asksForFirst, asksBehindSplit } = this.#preTokenizer;
    if ((drops && asksForFirst) || (spreads && asksBehindSplit)) {
      throw new Error(
        `a normalizer that ${drops ? 'drops' : 'multiplies'} characters stands before a Metaspace with prepend_scheme "first"`,
      );
    }
    const { unbounded } = this.#normalizer;
    this.#unbounded = unbounded || this.#preTokenizer.unbounded;
    const normalize = (text: string) => guarded(unbounded, () => this.#normalizer.normalize(text));
    this.added = addedTokens(json.added_tokens, this.model, normalize);
    this.#raw = new TokenFinder(this.added.filter((token) => !token.normalized));
    this.#normalized = new TokenFinder(this.added.filter((token) => token.normalized));
    for (const [token, id] of this.model.vocabulary) this.#tokens.set(id, token);
    // The library names a normalized token by its normalized text, under which a special one is none.
    for (const { id, sought } of this.added) this.#tokens.set(id, sought);
    this.#special = new Map(
      this.added.filter(({ special }) => special).map(({ content, id }) => [content, id]),
    );
    this.#spellings = new Spellings(this.added, json.normalizer.length === 0 ? undefined : this.#normalizer);
  }

  /** Tokens by id. */
  get tokens(): ReadonlyMap<number, string> {
    return this.#tokens;
  }

  /** Places where a text spells a special token, as it stands or as the normalizer makes it. */
  spelled(text: string): ReadonlySet<number> {
    return guarded(this.#unbounded, () => this.#spellings.places(wellFormed(text)));
  }

  /** Ids of a text. `literal`: places in it where a special token that begins there is text. */
  encode(text: string, literal: ReadonlySet<number> = NOWHERE): number[] {
    return guarded(this.#unbounded, () => this.#encode(wellFormed(text), literal));
  }

  #encode(text: string, literal: ReadonlySet<number>): number[] {
    const ids: number[] = [];
    const places = [...literal].sort((a, b) => a - b);
    let next = 0;
    for (const { start, end, id } of this.#raw.find(text, literal)) {
      if (id !== undefined) ids.push(id);
      else {
        // Parts and places are in order: nothing is looked at twice, however many a message has.
        const inside: number[] = [];
        for (; next < places.length && (places[next] as number) < end; next++) {
          const at = (places[next] as number) - start;
          if (at >= 0) inside.push(at);
        }
        for (const one of this.#encodePart(text.slice(start, end), start === 0, inside)) ids.push(one);
      }
    }
    return ids;
  }

  #encodePart(part: string, first: boolean, literal: readonly number[]): number[] {
    const { text, places } = this.#normalize(part, literal);
    const ids: number[] = [];
    for (const { start, end, id } of this.#normalized.find(text, places)) {
      if (id !== undefined) ids.push(id);
      else if (end > start) {
        const piece: Piece = { text: text.slice(start, end), first: first && start === 0 };
        for (const { text: word } of this.#preTokenizer.split(piece)) {
          for (const one of literal.length > 0 ? this.#plainIds(word) : this.model.ids(word)) ids.push(one);
        }
      }
    }
    return ids;
  }

  /** The normalized text, and where in it the places are. */
  #normalize(part: string, literal: readonly number[]): { text: string; places: ReadonlySet<number> } {
    if (literal.length === 0) return { text: this.#normalizer.normalize(part), places: NOWHERE };
    const mark = markFor([part]);
    return unmarked(this.#normalizer.normalize(marked(part, literal, mark)), this.#normalizer.mark(mark));
  }

  /** Ids of a text in which special tokens are text although the model has tokens of their spelling. */
  #plainIds(word: string): readonly number[] {
    const ids = this.model.ids(word);
    for (const [content, id] of this.#special) {
      const at = word.indexOf(content);
      if (at < 0 || !ids.includes(id)) continue;
      // In two parts, between which no token goes.
      const cut = at + String.fromCodePoint(content.codePointAt(0) as number).length;
      if (cut >= at + content.length) throw new Error(`it has no other ids for the text ${content}`);
      return [...this.#plainIds(word.slice(0, cut)), ...this.#plainIds(word.slice(cut))];
    }
    return ids;
  }

  /** Text of ids; ids that nothing is named by are left out, as are special tokens where `skipSpecial`. */
  decode(ids: ArrayLike<number>, skipSpecial: boolean): string {
    const tokens: string[] = [];
    for (let i = 0; i < ids.length; i++) {
      const token = this.#tokens.get(ids[i] as number);
      if (token !== undefined && !(skipSpecial && this.#special.has(token))) tokens.push(token);
    }
    const decoder = this.#decoder;
    if (decoder === undefined) return tokens.join(' ');
    return guarded(decoder.unbounded, () => decoder.decode(tokens).join(''));
  }

  /** Bytes that a token inside a text stands for, of which the text of a single token may show none. */
  bytes(id: number): Uint8Array {
    const token = this.#tokens.get(id);
    if (token === undefined) return new Uint8Array();
    const decoder = this.#decoder;
    const bytes =
      decoder === undefined ? ` ${token}` : guarded(decoder.unbounded, () => decoder.bytes(token));
    return typeof bytes === 'string' ? Buffer.from(bytes, 'utf8') : bytes;
  }
}

const guarded = <T>(unbounded: boolean, work: () => T): T => (unbounded ? againstTheClock(work) : work());

const NOWHERE: ReadonlySet<number> = new Set();

/** Half a character, which JavaScript's texts may hold and no encoding has, becomes U+FFFD. */
function wellFormed(text: string): string {
  return /\p{Surrogate}/u.test(text) ? text.replace(/\p{Surrogate}/gu, '\uFFFD') : text;
}
