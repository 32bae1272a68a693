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
    const sought = token.normalized ? normalize(token.content) : token.content;
    // The library would find it everywhere, and split the text there.
    if (sought === '')
      throw new Error(`its added token ${JSON.stringify(token.content)} is nothing, normalized`);
    tokens.push({ ...token, sought });
  }
  return tokens;
}

/** Finds the texts, the longest first; undefined where there are none. */
export function anyOf(texts: Iterable<string>): RegExp | undefined {
  const longestFirst = [...texts].filter((text) => text !== '').sort((a, b) => b.length - a.length);
  const escaped = longestFirst.map((text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&'));
  return escaped.length === 0 ? undefined : new RegExp(escaped.join('|'), 'gu');
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
      this.#tokens.set(token.sought, token);
    }
    this.#pattern = anyOf(this.#tokens.keys());
  }

  /** Parts that cover the text. `literal`: places where a special token is spelled and is text. */
  find(text: string, literal: ReadonlySet<number> = new Set()): Part[] {
    const parts: Part[] = [];
    let last = 0;
    for (const { index, 0: found } of this.#pattern === undefined ? [] : text.matchAll(this.#pattern)) {
      const token = this.#tokens.get(found) as AddedToken;
      let [start, end] = [index, index + found.length];
      if (token.special && literal.size > 0 && holds(literal, start, end)) continue;
      if (token.single_word && !isSingle(text, start, end)) continue;
      if (token.lstrip) {
        // What the token before it stripped is gone, this token with it where it is made of spaces.
        start = Math.max(start, last);
        while (start > last && WHITE_SPACE.test(text.charAt(start - 1))) start--;
      }
      if (token.rstrip) while (end < text.length && WHITE_SPACE.test(text.charAt(end))) end++;
      if (start >= end) continue;
      if (last < start) parts.push({ start: last, end: start });
      parts.push({ start, end, id: token.id });
      last = end;
    }
    if (last < text.length) parts.push({ start: last, end: text.length });
    return parts;
  }
}

/** Whether one of the places is in the stretch. */
export function holds(places: ReadonlySet<number>, start: number, end: number): boolean {
  for (let at = start; at < end; at++) if (places.has(at)) return true;
  return false;
}

function isSingle(text: string, start: number, end: number): boolean {
  // Two code units, in case the neighbour is outside the basic plane.
  return (
    !ENDS_WITH_WORD.test(text.slice(Math.max(0, start - 2), start)) &&
    !STARTS_WITH_WORD.test(text.slice(end, end + 2))
  );
}
