/** Where a text that is not the template's spells a special token, also one that only the normalizer makes of it. */
import { type AddedToken, anyOf, holds } from './added-tokens.js';
import { marked, markFor, unmarked } from './marks.js';
import type { Normalizer } from './normalizers.js';

export class Spellings {
  readonly #asItStands: RegExp | undefined;
  readonly #normalized: RegExp | undefined;
  readonly #normalizer: Normalizer | undefined;
  /** Characters that special tokens begin with, behind the normalizer. */
  readonly #first: ReadonlySet<string>;

  /** `normalizer`: none where it changes nothing. */
  constructor(added: readonly AddedToken[], normalizer: Normalizer | undefined) {
    const special = added.filter((token) => token.special);
    const contents = special.map(({ content }) => content);
    const made = [...contents, ...special.map(({ sought }) => sought)];
    this.#asItStands = overlapping(contents);
    this.#normalized = normalizer && overlapping(made);
    this.#normalizer = normalizer;
    this.#first = new Set(contents.map((text) => this.#made([...text][0] ?? '')));
  }

  places(text: string): ReadonlySet<number> {
    const found = new Set(this.#asItStands && [...text.matchAll(this.#asItStands)].map(({ index }) => index));
    if (this.#normalized === undefined || !this.#madeBeside(text, found)) return found;
    // Which characters become the token only the normalizer knows: all that may be its first, or else all.
    for (const may of [(character: string) => this.#first.has(this.#made(character)), () => true]) {
      let at = 0;
      for (const character of text) {
        if (may(character)) found.add(at);
        at += character.length;
      }
      if (!this.#madeBeside(text, found)) return found;
    }
    throw new Error('its normalizer makes a special token out of a single character');
  }

  /** Whether the normalizer makes a special token that begins at none of the places. */
  #madeBeside(text: string, places: ReadonlySet<number>): boolean {
    const { normalize, mark } = this.#normalizer as Normalizer;
    const between = markFor([text]);
    const made = unmarked(normalize(marked(text, places, between)), mark(between));
    return [...made.text.matchAll(this.#normalized as RegExp)].some(
      ({ index, 1: token = '' }) => !holds(made.places, index, index + token.length),
    );
  }

  #made(character: string): string {
    return this.#normalizer?.normalize(character) ?? character;
  }
}

/** Finds the texts wherever they begin, inside another one too. */
function overlapping(texts: readonly string[]): RegExp | undefined {
  const pattern = anyOf(texts);
  return pattern && new RegExp(`(?=(${pattern.source}))`, 'gu');
}
