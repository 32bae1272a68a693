/**
 * One choice of a request, as it comes. The engine answers with whole completions, so a long one is asked for in pieces of
 * a few tokens, each a request that goes on behind the last; the KV cache has what was before. A piece draws random numbers
 * of its own, so that a seed gives the same text whether it is streamed or not.
 */
import type { CompletionRequest } from '../../engine/types.js';
import type { Ask } from './requests.js';
import type { Served } from './served.js';

/** Tokens of a piece: those of a page of the KV cache. */
const PIECE = 16;

export interface TokenLogprob {
  token: string;
  logprob: number;
  bytes: number[];
}

/** What came since the last part. */
export interface Part {
  text: string;
  tokens: TokenLogprob[];
  /** Set in the last part. */
  finish?: 'stop' | 'length';
  /** Tokens generated so far. */
  generated: number;
}

export type BytesOf = (id: number) => Uint8Array;

/** The first parts of a request's random numbers; the choice and the piece follow. */
export type Numbers = readonly [number, number];

/** Yields parts until the choice ends; ends without a last one where `signal` is aborted. */
export async function* generate(
  { engine, tokenizer, chat }: Served,
  ask: Ask,
  { prompt, choice, numbers }: { prompt: Int32Array; choice: number; numbers: Numbers },
  bytesOf: BytesOf,
  signal: AbortSignal,
): AsyncGenerator<Part> {
  const { sampling, served } = ask;
  const ends = new Set(tokenizer.endTokens);
  let ids = new Int32Array();
  let logprobs = new Float32Array();
  let sent = 0;
  let sentTokens = 0;
  for (let piece = 0; ; piece++) {
    const request: CompletionRequest = {
      policy: served.policy,
      prompt: joined(prompt, ids),
      sampling: { ...sampling, maxTokens: Math.min(PIECE, sampling.maxTokens - ids.length) },
      counter: [...numbers, choice, 0, piece],
    };
    const completion = await engine.complete(request, signal);
    if (completion.finish === 'cancelled' || signal.aborted) return;
    ids = joined(ids, completion.ids);
    logprobs = Float32Array.from([...logprobs, ...completion.logprobs]);
    const whole = chat.decode(ids);
    const stop = firstStop(whole, sampling.stop);
    const over = stop !== undefined || completion.finish === 'stop' || ids.length >= sampling.maxTokens;
    const text = whole.slice(0, stop ?? (over ? whole.length : safeLength(whole, sampling.stop)));
    const tokens = tokensOf(ids, logprobs, { text, ends, bytesOf });
    const stopped = stop !== undefined || completion.finish === 'stop';
    yield {
      text: text.slice(sent),
      tokens: tokens.slice(sentTokens),
      generated: ids.length,
      ...(over && { finish: stopped ? ('stop' as const) : ('length' as const) }),
    };
    if (over) return;
    sent = Math.max(sent, text.length);
    sentTokens = Math.max(sentTokens, tokens.length);
  }
}

function joined(before: Int32Array, after: Int32Array): Int32Array<ArrayBuffer> {
  const both = new Int32Array(before.length + after.length);
  both.set(before);
  both.set(after, before.length);
  return both;
}

/** Where the first of the stop texts begins. */
function firstStop(text: string, stops: readonly string[]): number | undefined {
  const found = stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
  return found.length === 0 ? undefined : Math.min(...found);
}

/** How much of a text can be sent before more is known: no half character, nothing that may begin a stop text. */
function safeLength(text: string, stops: readonly string[]): number {
  const whole = text.replace(/\ufffd+$/, '').length;
  for (
    let from = Math.max(0, whole - Math.max(0, ...stops.map(({ length }) => length - 1)));
    from < whole;
    from++
  ) {
    if (stops.some((stop) => stop.startsWith(text.slice(from)))) return from;
  }
  return whole;
}

/** The tokens that begin within `text`, without the one that ended the response. */
function tokensOf(
  ids: Int32Array,
  logprobs: Float32Array,
  { text, ends, bytesOf }: { text: string; ends: ReadonlySet<number>; bytesOf: BytesOf },
): TokenLogprob[] {
  const tokens: TokenLogprob[] = [];
  const limit = Buffer.byteLength(text);
  let at = 0;
  for (const [i, id] of ids.entries()) {
    const bytes = bytesOf(id);
    if (at >= limit || (ends.has(id) && i === ids.length - 1)) break;
    tokens.push({ token: Buffer.from(bytes).toString(), logprob: logprobs[i] ?? 0, bytes: [...bytes] });
    at += bytes.length;
  }
  return tokens;
}
