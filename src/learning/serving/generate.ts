/**
 * One choice of a request, as it comes: a completion of the engine, cut where a stop text begins. What is streamed and
 * what is not are the same completion, with the same random numbers.
 */
import type { Completion, CompletionPart, CompletionRequest } from '../../engine/types.js';
import { GrowingText } from './growing-text.js';
import type { Ask } from './requests.js';
import type { Served } from './served.js';
import { sampledTokens, type TokenLogprob } from './token-logprobs.js';

/** Tokens of a part where likely ones are measured, which reads all tokens before them again. */
const MEASURED_TOKENS = 16;

/** What came since the last part. */
export interface Part {
  text: string;
  tokens: TokenLogprob[];
  /** Set in the last part. */
  finish?: 'stop' | 'length';
  /** Tokens generated so far. */
  generated: number;
}

/** The first parts of a request's random numbers; the choice follows. */
export type Numbers = readonly [number, number];

interface Choice {
  prompt: Int32Array;
  choice: number;
  numbers: Numbers;
}

/** Yields parts until the choice ends; ends without a last one where `signal` is aborted. */
export async function* generate(
  served: Served,
  ask: Ask,
  choice: Choice,
  signal: AbortSignal,
): AsyncGenerator<Part> {
  if (ask.sampling.maxTokens === 0) {
    yield { text: '', tokens: [], generated: 0, finish: 'length' };
    return;
  }
  const growing = new GrowingText((ids) => served.chat.decode(ids));
  const logprobs: number[] = [];
  let sent = 0;
  let told = 0;
  for await (const { ids, logprobs: theirs, finish } of sampled(served, ask, choice, signal)) {
    if (signal.aborted) return;
    const soFar = growing.add(ids);
    logprobs.push(...theirs);
    const text = finish === undefined ? soFar : growing.whole();
    const cut = firstStop(text, ask.sampling.stop);
    const last = finish !== undefined || cut !== undefined;
    const safe = cut ?? (last ? text.length : safeLength(text, ask.sampling.stop));
    const until = Math.max(told, tokensToTell(served, ask, growing.ids, { text, safe, last }));
    if (!last && (safe <= sent || ((ask.logprobs ?? 0) > 0 && until - told < MEASURED_TOKENS))) continue;
    const tokens = await sampledTokens(
      served,
      ask,
      {
        before: Int32Array.from([...choice.prompt, ...growing.ids.slice(0, told)]),
        ids: growing.ids.slice(told, until),
        sampled: logprobs.slice(told, until),
      },
      signal,
    );
    const stopped = cut !== undefined || finish === 'stop';
    yield {
      text: text.slice(sent, Math.max(sent, safe)),
      tokens,
      generated: growing.ids.length,
      ...(last && { finish: stopped ? ('stop' as const) : ('length' as const) }),
    };
    if (last) return;
    sent = Math.max(sent, safe);
    told = until;
  }
}

type Sampled = CompletionPart & { finish?: Completion['finish'] };

/** The completion: what of it came since the last time, and at its end how it ended. Whoever stops reading ends it. */
async function* sampled(
  { engine }: Served,
  { served, sampling, stream }: Ask,
  { prompt, choice, numbers }: Choice,
  signal: AbortSignal,
): AsyncGenerator<Sampled> {
  const request: CompletionRequest = {
    policy: served.policy,
    prompt,
    sampling,
    counter: [...numbers, choice, 0, 0],
  };
  if (!stream) {
    yield await engine.complete(request, signal);
    return;
  }
  const unread: CompletionPart[] = [];
  let wake = () => {};
  const left = new AbortController();
  let end: Completion | undefined;
  const ended = engine.complete(request, AbortSignal.any([signal, left.signal]), (part) => {
    unread.push(part);
    wake();
  });
  // Whether it fails is seen below, when it is awaited.
  const over = ended.then(
    (completion) => {
      end = completion;
    },
    () => undefined,
  );
  let read = 0;
  try {
    for (;;) {
      if (unread.length === 0 && end === undefined) {
        await Promise.race([over, new Promise<void>((resolve) => (wake = resolve))]);
        if (unread.length === 0 && end === undefined) await ended;
      }
      const ids = unread.flatMap((part) => Array.from(part.ids));
      const logprobs = unread.flatMap((part) => Array.from(part.logprobs));
      unread.length = 0;
      if (end !== undefined) {
        yield { ids: end.ids.slice(read), logprobs: end.logprobs.slice(read), finish: end.finish };
        return;
      }
      read += ids.length;
      yield { ids: Int32Array.from(ids), logprobs: Float32Array.from(logprobs) };
    }
  } finally {
    left.abort();
  }
}

/** Where the first of the stop texts begins. */
function firstStop(text: string, stops: readonly string[]): number | undefined {
  const found = stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
  return found.length === 0 ? undefined : Math.min(...found);
}

/** How much of a text can be sent before more is known: nothing that may begin a stop text. */
function safeLength(text: string, stops: readonly string[]): number {
  const longest = Math.max(0, ...stops.map(({ length }) => length - 1));
  for (let from = Math.max(0, text.length - longest); from < text.length; from++) {
    if (stops.some((stop) => stop.startsWith(text.slice(from)))) return from;
  }
  return text.length;
}

/**
 * How many tokens can be told of: those that begin within the text that can be sent, without the one that ended the
 * response. With an echo all: programs that score texts count the generated ones from the end.
 */
function tokensToTell(
  { tokenizer, bytesOf }: Served,
  { echo }: Ask,
  ids: readonly number[],
  { text, safe, last }: { text: string; safe: number; last: boolean },
): number {
  if (echo && last) return ids.length;
  const ended = last && tokenizer.endTokens.includes(ids.at(-1) ?? -1);
  const whole = ended ? ids.length - 1 : ids.length;
  if (safe === text.length) return whole;
  const limit = Buffer.byteLength(text.slice(0, safe));
  let bytes = 0;
  for (let i = 0; i < whole; i++) {
    if (bytes >= limit) return i;
    bytes += bytesOf(ids[i] ?? 0).length;
  }
  return whole;
}
