/**
 * Requests of the OpenAI API, checked. What this server cannot do is refused, never ignored: unknown keys, tools, penalties,
 * biases. What has no meaning here (`user`, `store`) is taken and does nothing.
 */
import { z } from 'zod';
import { checkSection } from '../../config/check.js';
import type { Sampling } from '../../engine/types.js';
import type { Message } from '../../workflows/types.js';
import type { Served, ServedModel } from './served.js';

/** An answer with this status and message. */
export class RequestError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export interface Prompt {
  ids: Int32Array;
  /** As it was given, or of the ids. */
  text: string;
}

/** What is to be generated. */
export interface Ask {
  model: string;
  served: ServedModel;
  prompts: Prompt[];
  /** Choices of each prompt. */
  n: number;
  sampling: Sampling;
  /** undefined: other numbers each time. */
  seed: number | undefined;
  /** Likely tokens told of in each place, 0: the chosen one alone; undefined: no log-probabilities. */
  logprobs: number | undefined;
  /** The prompt is part of the answer. */
  echo: boolean;
  stream: boolean;
  includeUsage: boolean;
}

const optional = <T extends z.ZodType>(type: T) => type.nullish().transform((value) => value ?? undefined);
const off = optional(z.literal(0));
/** What clients send that want nothing of it. */
const empty = z.union([z.null(), z.array(z.never()).max(0), z.strictObject({})]).optional();

/** Choices of one request at most. */
const MOST_CHOICES = 4096;
/** Likely tokens of a place at most, as OpenAI has it. */
const MOST_LIKELY = 20;

const common = {
  model: z.string(),
  n: optional(z.int().min(1).max(128)),
  temperature: optional(z.union([z.literal(0), z.number().min(1e-4).max(1e4)])),
  top_p: optional(z.number().gt(0).max(1)),
  /** Not OpenAI's, but vLLM's. */
  top_k: optional(z.int().min(0)),
  min_p: optional(z.number().min(0).max(1)),
  stop: optional(
    z.union([
      z
        .string()
        .min(1)
        .transform((one) => [one]),
      z.array(z.string().min(1)).max(16),
    ]),
  ),
  seed: optional(z.int()),
  stream: optional(z.boolean()),
  stream_options: optional(z.strictObject({ include_usage: optional(z.boolean()) })),
  frequency_penalty: off,
  presence_penalty: off,
  logit_bias: empty,
  user: z.unknown().optional(),
  store: z.unknown().optional(),
  metadata: z.unknown().optional(),
};

const part = z.strictObject({ type: z.literal('text'), text: z.string() });
const content = z.union([
  z.string(),
  z.array(part).transform((parts) => parts.map(({ text }) => text).join('')),
]);

const chatSchema = z.strictObject({
  ...common,
  messages: z
    .array(
      z.strictObject({
        role: z
          .enum(['system', 'developer', 'user', 'assistant'])
          .transform((role): Message['role'] => (role === 'developer' ? 'system' : role)),
        content,
        name: z.unknown().optional(),
        refusal: z.null().optional(),
      }),
    )
    .min(1),
  max_tokens: optional(z.int().min(1)),
  max_completion_tokens: optional(z.int().min(1)),
  logprobs: optional(z.boolean()),
  top_logprobs: optional(z.int().min(0).max(MOST_LIKELY)),
  tools: empty,
  response_format: optional(z.strictObject({ type: z.literal('text') })),
});

const ids = z.array(z.int().min(0)).min(1);
const completionSchema = z.strictObject({
  ...common,
  prompt: z.union([z.string(), z.array(z.string()).min(1), ids, z.array(ids).min(1)]),
  /** 0: what a prompt earns is wanted, with `echo`. */
  max_tokens: optional(z.int().min(0)),
  logprobs: optional(z.int().min(0).max(MOST_LIKELY)),
  echo: optional(z.boolean()),
  best_of: optional(z.literal(1)),
  suffix: z.null().optional(),
});

const place = { whole: 'the request', locate: () => 'request' };

/** POST /v1/chat/completions. Throws a TroupeError or a RequestError for what cannot be answered. */
export function readChat(body: unknown, served: Served): Ask {
  const request = checkSection(chatSchema, body, place);
  const model = modelOf(request.model, served);
  const { text, literal } = served.chat.renderChat(request.messages, request.model);
  const prompts = [{ ids: served.chat.encode(text, literal), text }];
  const maxTokens = request.max_completion_tokens ?? request.max_tokens;
  if (request.top_logprobs !== undefined && request.logprobs !== true) {
    throw new RequestError(400, 'top_logprobs goes with logprobs: true.');
  }
  const logprobs = request.logprobs === true ? (request.top_logprobs ?? 0) : undefined;
  return askOf(request, model, served, { prompts, maxTokens, logprobs, echo: false });
}

/** POST /v1/completions. Throws as `readChat` does. */
export function readCompletion(body: unknown, served: Served): Ask {
  const request = checkSection(completionSchema, body, place);
  const model = modelOf(request.model, served);
  const { prompt } = request;
  const lists = typeof prompt === 'string' || typeof prompt[0] === 'number' ? [prompt] : prompt;
  if (lists.length * (request.n ?? 1) > MOST_CHOICES) {
    throw new RequestError(400, `A request has ${MOST_CHOICES} choices at most, prompts times n.`);
  }
  const prompts = (lists as (string | number[])[]).map((one): Prompt => {
    if (typeof one === 'string') return { ids: served.chat.encode(one, new Set()), text: one };
    const beyond = one.find((id) => id >= served.vocabularySize);
    if (beyond !== undefined) throw new RequestError(400, `prompt: this model has no token ${beyond}.`);
    const ids = Int32Array.from(one);
    return { ids, text: served.chat.decode(ids, true) };
  });
  const echo = request.echo ?? false;
  if (echo && request.stream) throw new RequestError(400, 'echo goes without stream.');
  return askOf(request, model, served, {
    prompts,
    maxTokens: request.max_tokens,
    logprobs: request.logprobs,
    echo,
  });
}

function modelOf(name: string, { models }: Served): ServedModel {
  const model = models.get(name);
  if (model !== undefined) return model;
  throw new RequestError(404, `There is no model "${name}"; there are ${[...models.keys()].join(', ')}.`);
}

type Common = Pick<
  z.output<typeof completionSchema>,
  Exclude<keyof typeof common, 'user' | 'store' | 'metadata'>
>;

function askOf(
  request: Common,
  served: ServedModel,
  { maxPositions }: Served,
  {
    prompts,
    maxTokens,
    logprobs,
    echo,
  }: Pick<Ask, 'prompts' | 'logprobs' | 'echo'> & { maxTokens: number | undefined },
): Ask {
  const longest = Math.max(...prompts.map(({ ids }) => ids.length));
  if (prompts.some(({ ids }) => ids.length === 0)) throw new RequestError(400, 'The prompt is empty.');
  const room = maxPositions - longest;
  if (room < (maxTokens ?? 1)) {
    const wanted = maxTokens ?? 1;
    const message = `The prompt has ${longest} tokens and ${wanted} are wanted; this model takes ${maxPositions} together.`;
    throw new RequestError(400, message);
  }
  const { sampling } = served;
  return {
    model: request.model,
    served,
    prompts,
    n: request.n ?? 1,
    sampling: {
      temperature: request.temperature ?? sampling.temperature,
      topK: request.top_k ?? sampling.topK,
      topP: request.top_p ?? sampling.topP,
      minP: request.min_p ?? sampling.minP,
      maxTokens: maxTokens ?? Math.min(sampling.maxTokens, room),
      stop: request.stop ?? sampling.stop,
    },
    seed: request.seed,
    logprobs,
    echo,
    stream: request.stream ?? false,
    includeUsage: request.stream_options?.include_usage ?? false,
  };
}
