/** What the roles of a planned step say: texts that are given, or filler of the length that is asked for. */

import { ownValue } from '../../config/own-value.js';
import type { CompletionRequest } from '../../engine/types.js';
import type { ChatTokenizer } from '../../rollout/conversation.js';
import type { GivenTexts } from '../play.js';
import type { Respond } from './decode-schedule.js';

/** Of roles by name, in the order of asking and from the first again after the last. */
export type Responses = Readonly<Record<string, readonly Int32Array[]>>;

const FILLER =
  'First I look at what is given and what is asked, then I work it out step by step and check the result. ';

/** A tokenizer where there is none: a token for every four characters, as English has in large vocabularies. */
export const estimatedTokenizer: ChatTokenizer = {
  renderChat: (messages) => ({
    text: `${messages.map(({ role, content }) => `<|${role}|>\n${content}\n`).join('')}<|assistant|>\n`,
    literal: new Set(),
  }),
  encode: (text) => estimatedIds(text),
  encodePlain: (text) => estimatedIds(text),
  // Texts of different responses differ from the start, or the prompts that quote them would be shared.
  decode: (ids) => {
    const own = Array.from(ids).reduce((hash, id) => (Math.imul(hash, 31) + id) >>> 0, 7);
    const text = `${own.toString(36)} ${FILLER.repeat(Math.ceil((4 * ids.length) / FILLER.length))}`;
    return text.slice(0, 4 * ids.length);
  },
};

function estimatedIds(text: string): Int32Array {
  return Int32Array.from({ length: Math.ceil(text.length / 4) }, (_, i) => {
    const part = text.slice(4 * i, 4 * i + 4);
    return [...part].reduce((hash, character) => (hash * 31 + (character.codePointAt(0) ?? 0)) >>> 1, 7);
  });
}

/** Response ids that differ almost from their first token on, of a text that has as many. */
function filler(tokenizer: ChatTokenizer): (length: number) => Int32Array {
  let responses = 0;
  return (length) => {
    responses++;
    const text = `${responses} ${FILLER.repeat(1 + Math.ceil((8 * length) / FILLER.length))}`;
    return tokenizer.encodePlain(text).slice(0, length);
  };
}

export interface ResponseOptions {
  /**
   * Of every response; of several, each response has the next one, from the first again after the last, so that they stand
   * for how lengths are distributed. Never more than its role may have, and left out: as many.
   */
  responseTokens?: readonly number[] | undefined;
  /** What roles of the workflow say in the place of filler, so that an episode has the calls that follow from it. */
  responses?: ((roles: readonly string[]) => Responses) | undefined;
}

/** Answers requests of the roles, whose indices are in their counters. */
export function responder(
  tokenizer: ChatTokenizer,
  roles: readonly string[],
  { responseTokens, responses }: ResponseOptions,
): Respond {
  const said = responses?.(roles) ?? {};
  const fill = filler(tokenizer);
  const asked = new Map<string, number>();
  let filled = 0;
  return ({ sampling: { maxTokens }, counter: [, , roleIndex] }: CompletionRequest) => {
    const role = roles[roleIndex] ?? '';
    const given = ownValue(said, role);
    if (given !== undefined && given.length > 0) {
      const next = asked.get(role) ?? 0;
      asked.set(role, next + 1);
      const ids = given[next % given.length] as Int32Array;
      return ids.length > maxTokens ? ids.slice(0, maxTokens) : ids;
    }
    const wanted = responseTokens?.[filled++ % responseTokens.length];
    return fill(Math.min(maxTokens, wanted ?? maxTokens));
  };
}

/** Texts as responses, and a tokenizer that gives them back. `end`: the token that a response ends with, if one is known. */
export function textResponses(tokenizer: ChatTokenizer, end?: number) {
  const textOf = new Map<Int32Array, string>();
  const response = (text: string) => {
    const ids = [...tokenizer.encodePlain(text), ...(end === undefined ? [] : [end])];
    // A sample has one token at least.
    const response = Int32Array.from(ids.length === 0 ? [0] : ids);
    textOf.set(response, text);
    return response;
  };
  const decode: ChatTokenizer['decode'] = (ids, special) => textOf.get(ids) ?? tokenizer.decode(ids, special);
  const responses = (texts: GivenTexts): Responses =>
    Object.fromEntries(Object.entries(texts).map(([role, given]) => [role, [given].flat().map(response)]));
  return { tokenizer: { ...tokenizer, decode }, responses };
}
