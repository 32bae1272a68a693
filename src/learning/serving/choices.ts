/** The choices of one request, and how the two APIs write them. */
import { randomInt } from 'node:crypto';
import { generate, type Numbers, type Part } from './generate.js';
import type { Ask } from './requests.js';
import type { Served } from './served.js';
import { type LikelyToken, promptTokens, type TokenLogprob } from './token-logprobs.js';

const WORDS = 2 ** 32;

/** The remainder that is never negative. */
const mod = (value: number, by: number) => ((value % by) + by) % by;

export class Choices {
  readonly #served: Served;
  readonly #ask: Ask;
  readonly #shape: Shape;
  readonly #signal: AbortSignal;
  readonly #numbers: Numbers;
  readonly #head: { id: string; created: number; model: string };

  /** Aborting the signal ends what runs; what was asked for then is not answered. */
  constructor(served: Served, ask: Ask, shape: Shape, signal: AbortSignal) {
    this.#served = served;
    this.#ask = ask;
    this.#shape = shape;
    this.#signal = signal;
    const { seed } = ask;
    this.#numbers =
      seed === undefined
        ? [randomInt(WORDS), randomInt(WORDS)]
        : [mod(seed, WORDS), mod(Math.floor(seed / WORDS), WORDS)];
    const created = Math.floor(Date.now() / 1000);
    this.#head = { id: `${shape.id}-${randomInt(2 ** 47)}`, created, model: ask.model };
  }

  async whole(): Promise<object> {
    const { prompts, n, logprobs, echo } = this.#ask;
    const running = Promise.all(this.#choices().map(collected));
    const echoed =
      echo && logprobs !== undefined
        ? promptTokens(this.#served, this.#ask, prompts, this.#signal)
        : Promise.resolve([]);
    const [all, before] = await Promise.all([running, echoed]);
    const choices = all.map((part, index) => {
      const k = Math.floor(index / n);
      const tokens = [...(before[k] ?? []), ...part.tokens];
      const text = echo ? (prompts[k]?.text ?? '') + part.text : part.text;
      return this.#shape.choice({ ...part, text, tokens }, index, logprobs);
    });
    const usage = this.#usage(all.map(({ generated }) => generated));
    return { ...this.#head, object: this.#shape.object, choices, usage };
  }

  /** Tells of every part; resolves when all choices have ended. */
  async stream(tell: (event: object) => Promise<void>): Promise<void> {
    const { logprobs, includeUsage } = this.#ask;
    const head = { ...this.#head, object: this.#shape.chunk };
    const generated = await Promise.all(
      this.#choices().map(async (parts, index) => {
        let tokens = 0;
        let first = true;
        for await (const part of parts) {
          await tell({ ...head, choices: [this.#shape.delta(part, index, { first, logprobs })] });
          first = false;
          tokens = part.generated;
        }
        return tokens;
      }),
    );
    if (includeUsage) await tell({ ...head, choices: [], usage: this.#usage(generated) });
  }

  /** Each prompt's choices, one prompt after the other. */
  #choices(): AsyncGenerator<Part>[] {
    const { prompts, n } = this.#ask;
    return prompts
      .flatMap((prompt) => Array.from({ length: n }, () => prompt.ids))
      .map((prompt, choice) => {
        return generate(this.#served, this.#ask, { prompt, choice, numbers: this.#numbers }, this.#signal);
      });
  }

  #usage(generated: readonly number[]): object {
    const prompt = this.#ask.prompts.reduce((sum, { ids }) => sum + ids.length, 0);
    const completion = generated.reduce((sum, count) => sum + count, 0);
    return { prompt_tokens: prompt, completion_tokens: completion, total_tokens: prompt + completion };
  }
}

async function collected(parts: AsyncGenerator<Part>): Promise<Part> {
  const whole: Part = { text: '', tokens: [], generated: 0 };
  for await (const { text, tokens, generated, finish } of parts) {
    whole.text += text;
    whole.tokens.push(...tokens);
    whole.generated = generated;
    if (finish !== undefined) whole.finish = finish;
  }
  return whole;
}

/** How one of the two APIs writes choices. */
export interface Shape {
  id: string;
  object: string;
  chunk: string;
  choice(part: Part, index: number, logprobs: Ask['logprobs']): object;
  delta(part: Part, index: number, about: { first: boolean; logprobs: Ask['logprobs'] }): object;
}

const chatLogprobs = (tokens: readonly TokenLogprob[]) => ({
  content: tokens.map(({ top, ...token }) => ({ ...token, top_logprobs: top })),
  refusal: null,
});

export const chatShape: Shape = {
  id: 'chatcmpl',
  object: 'chat.completion',
  chunk: 'chat.completion.chunk',
  choice: ({ text, tokens, finish }, index, logprobs) => ({
    index,
    message: { role: 'assistant', content: text, refusal: null },
    logprobs: logprobs === undefined ? null : chatLogprobs(tokens),
    finish_reason: finish,
  }),
  delta: ({ text, tokens, finish }, index, { first, logprobs }) => ({
    index,
    delta: { ...(first && { role: 'assistant' }), content: text },
    logprobs: logprobs === undefined ? null : chatLogprobs(tokens),
    finish_reason: finish ?? null,
  }),
};

function completionChoice({ text, tokens, finish }: Part, index: number, logprobs: Ask['logprobs']) {
  const listed = {
    tokens: tokens.map(({ token }) => token),
    token_logprobs: tokens.map(({ logprob }) => logprob),
    top_logprobs: logprobs === 0 ? null : tokens.map(topByText),
    text_offset: textOffsets(tokens),
  };
  return { index, text, logprobs: logprobs === undefined ? null : listed, finish_reason: finish ?? null };
}

/** By their texts, the chosen one always among them. Of tokens with one text the likeliest. */
function topByText({ top, ...chosen }: TokenLogprob): Record<string, number> | null {
  if (chosen.logprob === null) return null;
  const byText: [string, number][] = [];
  for (const { token, logprob } of [...top, chosen] as (LikelyToken & { logprob: number })[]) {
    if (!byText.some(([text]) => text === token)) byText.push([token, logprob]);
  }
  // No prototype is written to where a token is named as one.
  return Object.fromEntries(byText);
}

/** Where each token begins in the text, UTF-16 units: a character of several tokens at the last of them. */
function textOffsets(tokens: readonly TokenLogprob[]): number[] {
  const decoder = new TextDecoder();
  let length = 0;
  return tokens.map(({ bytes }) => {
    const at = length;
    length += decoder.decode(Uint8Array.from(bytes), { stream: true }).length;
    return at;
  });
}

export const completionShape: Shape = {
  id: 'cmpl',
  object: 'text_completion',
  chunk: 'text_completion',
  choice: completionChoice,
  delta: (part, index, { logprobs }) => completionChoice(part, index, logprobs),
};
