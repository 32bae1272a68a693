/** Tokens that are found in a text as they stand, before anything else is done: AddedVocabulary of tokenizers. */
import { WORD } from './characters.js';
import type { Model } from './models.js';
import type { AddedTokenJson } from './schema.js';

const ENDS_WITH_WORD = new RegExp(`[${WORD}]$`, 'u');
const STARTS_WITH_WORD = new RegExp(`^[${WORD}]`, 'u');
const WHITE_SPACE = /\p{White_Space}/u;

export interface AddedToken extends AddedTokenJson {
  /** What is looked for: the content, or its normalized form. */
  sought: string;
}

/** Ids of the tokens, as the library gives them: the model's own where it has one, else one after the other. */
export function addedTokens(
  json: readonly AddedTokenJson[],
  model: Model,
  normalize: (text: string) => string,
): AddedToken[] {
  const tokens: AddedToken[] = [];
  const ids = new Map<string, number>();
  let highest = -1;
  for (const token of json) {
    if (token.content === '') continue;
    const size = model.vocabulary.size;
    const given = ids.get(token.content) ?? model.vocabulary.get(token.content);
    const id = given ?? (highest >= size || (size === 0 && highest >= 0) ? highest + 1 : size);
    if (id !== token.id) {
      throw new Error(`its added token ${token.content} has the id ${token.id}, which should be ${id}`);
    }
    ids.set(token.content, id);
    highest = Math.max(highest, id);
    tokens.push({ ...token, sought: token.normalized ? normalize(token.content) : token.content });
  }
  return tokens;
}

/** A part of a text: itself, or the id of an added token that stood there. */
export type Part = { start: number; end: number; id?: number };

/** Finds tokens from left to right, at each place the longest. */
export class TokenFinder {
  readonly #tokens = new Map<string, AddedToken>();
  readonly #pattern: RegExp | undefined;

  constructor(tokens: readonly AddedToken[]) {
    for (const token of tokens) {
      const same = this.#tokens.get(token.sought);
      if (same !== undefined && same.content !== token.content) {
        // The library takes one of them by chance.
        throw new Error(`its added tokens ${same.content} and ${token.content} are one, normalized`);
      }
      if (token.sought !== '') this.#tokens.set(token.sought, token);
    }
    const texts = [...this.#tokens.keys()].sort((a, b) => b.length - a.length);
    const escaped = texts.map((text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&'));
    this.#pattern = texts.length === 0 ? undefined : new RegExp(escaped.join('|'), 'gu');
  }

  /** Parts that cover the text. `literal`: places where a token that begins there is text. */
  find(text: string, literal: ReadonlySet<number> = new Set()): Part[] {
    const parts: Part[] = [];
    let last = 0;
    for (const { index, 0: found } of this.#pattern === undefined ? [] : text.matchAll(this.#pattern)) {
      const token = this.#tokens.get(found) as AddedToken;
      let [start, end] = [index, index + found.length];
      if (literal.has(index) && token.special) continue;
      if (token.single_word && !isSingle(text, start, end)) continue;
      if (token.lstrip) while (start > last && WHITE_SPACE.test(text.charAt(start - 1))) start--;
      if (token.rstrip) while (end < text.length && WHITE_SPACE.test(text.charAt(end))) end++;
      if (last < start) parts.push({ start: last, end: start });
      parts.push({ start, end, id: token.id });
      last = end;
    }
    if (last < text.length) parts.push({ start: last, end: text.length });
    return parts;
  }
}

function isSingle(text: string, start: number, end: number): boolean {
  // Two code units, in case the neighbour is outside the basic plane.
  return (
    !ENDS_WITH_WORD.test(text.slice(Math.max(0, start - 2), start)) &&
    !STARTS_WITH_WORD.test(text.slice(end, end + 2))
  );
}
