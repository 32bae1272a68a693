/** What answers say of single tokens: their log-probabilities, and what was likeliest in their places. */
import type { LikeliestTokens } from '../../engine/types.js';
import type { Ask, Prompt } from './requests.js';
import type { Served } from './served.js';

export interface LikelyToken {
  token: string;
  /** null: nothing stands before it. */
  logprob: number | null;
  bytes: number[];
}

export interface TokenLogprob extends LikelyToken {
  /** The likeliest tokens in its place, likeliest first; empty where none were asked for. */
  top: LikelyToken[];
}

/**
 * Of tokens that were sampled behind `before`. Where the likeliest are asked for all numbers of a place are of one softmax,
 * the trainer's forward pass; else they are the sampler's.
 */
export async function sampledTokens(
  served: Served,
  { served: { policy }, logprobs, sampling }: Ask,
  { before, ids, sampled }: { before: Int32Array; ids: readonly number[]; sampled: readonly number[] },
  signal: AbortSignal,
): Promise<TokenLogprob[]> {
  if (logprobs === undefined || ids.length === 0) return [];
  if (logprobs === 0) return ids.map((id, i) => ({ ...named(served, id, sampled[i] ?? null), top: [] }));
  const temperature = sampling.temperature === 0 ? 1 : sampling.temperature;
  const calls = [{ prompt: before, response: Int32Array.from(ids), temperature }];
  const [likeliest] = await served.engine.send('likeliest', { policy, calls, count: logprobs }, signal);
  return ids.map((id, i) => tokenOf(served, id, i, logprobs, likeliest));
}

/** Of prompts, at temperature 1 whatever their answers are sampled at; nothing stands before the first token of each. */
export async function promptTokens(
  served: Served,
  { served: { policy }, logprobs = 0 }: Ask,
  prompts: readonly Prompt[],
  signal: AbortSignal,
): Promise<TokenLogprob[][]> {
  const calls = prompts.map(({ ids }) => ({
    prompt: ids.slice(0, 1),
    response: ids.slice(1),
    temperature: 1,
  }));
  const measured = await served.engine.send('likeliest', { policy, calls, count: logprobs }, signal);
  return prompts.map(({ ids }, k) => {
    return Array.from(ids, (id, i) => {
      if (i === 0) return { ...named(served, id, null), top: [] };
      return tokenOf(served, id, i - 1, logprobs, measured[k]);
    });
  });
}

function tokenOf(
  served: Served,
  id: number,
  place: number,
  count: number,
  likeliest: LikeliestTokens | undefined,
): TokenLogprob {
  const from = place * count;
  const values = likeliest?.values.subarray(from, from + count) ?? [];
  const top = Array.from(values, (value, i) => named(served, likeliest?.ids[from + i] ?? 0, value));
  return { ...named(served, id, likeliest?.logprobs[place] ?? null), top };
}

function named({ bytesOf }: Served, id: number, logprob: number | null): LikelyToken {
  const bytes = bytesOf(id);
  return { token: Buffer.from(bytes).toString(), logprob, bytes: [...bytes] };
}
