/**
 * `troupe serve`: the OpenAI chat-completions and completions API on this machine alone. It answers only requests that name
 * it so, and only JSON: a web page elsewhere cannot use it by pointing its own name here, nor by posting a form.
 */
import { randomInt } from 'node:crypto';
import { once, setMaxListeners } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { reasonOf, TroupeError } from '../../config/errors.js';
import { type BytesOf, generate, type Numbers, type Part, type TokenLogprob } from './generate.js';
import { type Ask, RequestError, readChat, readCompletion } from './requests.js';
import type { Served } from './served.js';

const HOST = '127.0.0.1';
/** Bytes of a request at most. */
const LONGEST_BODY = 8 * 2 ** 20;
const WORDS = 2 ** 32;

export class ApiServer {
  readonly #served: Served;
  readonly #server: Server;
  readonly #bytesOf: BytesOf;
  readonly #created = Math.floor(Date.now() / 1000);

  private constructor(served: Served) {
    this.#served = served;
    const { bytes, offsets } = served.tokenizer.tokenBytes(served.vocabularySize);
    this.#bytesOf = (id) => bytes.subarray(offsets[id], offsets[id + 1]);
    this.#server = createServer((request, response) => {
      // A request never ends the program: what goes wrong with it is its answer.
      this.#answer(request, response).catch((error) => fail(response, error));
    });
  }

  /** `port`: 0 takes a free one. Throws a TroupeError if it is taken. */
  static async start(served: Served, port: number): Promise<ApiServer> {
    const server = new ApiServer(served);
    await new Promise<void>((resolve, reject) => {
      server.#server.once('error', (error) => {
        const hint = 'Choose another one with --port; 0 takes a free one.';
        reject(new TroupeError(`cannot be listened on: ${error.message}.`, { where: `port ${port}`, hint }));
      });
      server.#server.listen(port, HOST, resolve);
    });
    return server;
  }

  /** What clients take as their base URL. */
  get url(): string {
    return `http://${HOST}:${this.#port}/v1`;
  }

  async close(): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  get #port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.setHeader('X-Content-Type-Options', 'nosniff');
    response.setHeader('Cache-Control', 'no-store');
    const names = [`${HOST}:${this.#port}`, `localhost:${this.#port}`];
    if (!names.includes(request.headers.host ?? '')) throw new RequestError(403, `Ask for ${this.url}.`);
    const [path = ''] = (request.url ?? '').split('?');
    if (request.method === 'GET' && path.startsWith('/v1/models')) {
      json(response, 200, this.#models(path.slice('/v1/models'.length)));
      return;
    }
    const read = { '/v1/chat/completions': readChat, '/v1/completions': readCompletion }[path];
    const there = 'Here are GET /v1/models, POST /v1/chat/completions and POST /v1/completions.';
    if (read === undefined) throw new RequestError(404, there);
    if (request.method !== 'POST') throw new RequestError(405, there);
    if (!/^application\/json\b/.test(request.headers['content-type'] ?? '')) {
      throw new RequestError(415, 'A request is application/json.');
    }
    const ask = read(await bodyOf(request), this.#served);
    const shape = path === '/v1/completions' ? completionShape : chatShape;
    await this.#generate(ask, shape, response);
  }

  #models(rest: string): object {
    const data = [...this.#served.models.keys()].map((id) => {
      return { id, object: 'model', created: this.#created, owned_by: 'troupe' };
    });
    if (rest === '' || rest === '/') return { object: 'list', data };
    const found = data.find(({ id }) => `/${id}` === rest);
    if (found === undefined) throw new RequestError(404, `There is no model "${rest.slice(1)}".`);
    return found;
  }

  async #generate(ask: Ask, shape: Shape, response: ServerResponse): Promise<void> {
    const gone = new AbortController();
    setMaxListeners(0, gone.signal);
    response.once('close', () => gone.abort());
    const seed = ask.seed;
    const numbers: Numbers =
      seed === undefined
        ? [randomInt(WORDS), randomInt(WORDS)]
        : [mod(seed, WORDS), mod(Math.floor(seed / WORDS), WORDS)];
    const choices = ask.prompts.flatMap((prompt) => Array.from({ length: ask.n }, () => prompt));
    const run = (prompt: Int32Array, choice: number) =>
      generate(this.#served, ask, { prompt, choice, numbers }, this.#bytesOf, gone.signal);
    const head = {
      id: `${shape.id}-${randomInt(2 ** 47)}`,
      created: Math.floor(Date.now() / 1000),
      model: ask.model,
    };
    const promptTokens = ask.prompts.reduce((sum, { length }) => sum + length, 0);
    const usage = (generated: readonly number[]) => {
      const tokens = generated.reduce((sum, count) => sum + count, 0);
      return { prompt_tokens: promptTokens, completion_tokens: tokens, total_tokens: promptTokens + tokens };
    };

    if (!ask.stream) {
      const all = await Promise.all(choices.map((prompt, choice) => collected(run(prompt, choice))));
      if (gone.signal.aborted) return;
      json(response, 200, {
        ...head,
        object: shape.object,
        choices: all.map((part, index) => shape.choice(part, index, ask.logprobs)),
        usage: usage(all.map(({ generated }) => generated)),
      });
      return;
    }

    // The status line waits for the first part: what the engine refuses is answered as an error.
    const send = (data: object | string) => {
      if (!response.headersSent) response.writeHead(200, { 'Content-Type': 'text/event-stream' });
      response.write(`data: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`);
    };
    const event = { ...head, object: shape.chunk };
    const streamed = choices.map(async (prompt, index) => {
      let generated = 0;
      let first = true;
      for await (const part of run(prompt, index)) {
        send({ ...event, choices: [shape.delta(part, index, { first, logprobs: ask.logprobs })] });
        first = false;
        generated = part.generated;
        // Whoever reads slowly holds the choice up, not the memory.
        if (response.writableNeedDrain)
          await Promise.race([once(response, 'drain'), once(gone.signal, 'abort')]);
      }
      return generated;
    });
    try {
      const generated = await Promise.all(streamed);
      if (gone.signal.aborted) return;
      if (ask.includeUsage) send({ ...event, choices: [], usage: usage(generated) });
      send('[DONE]');
      response.end();
    } catch (error) {
      gone.abort();
      await Promise.allSettled(streamed);
      throw error;
    }
  }
}

/** The remainder that is never negative. */
const mod = (value: number, by: number) => ((value % by) + by) % by;

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
interface Shape {
  id: string;
  object: string;
  chunk: string;
  choice(part: Part, index: number, logprobs: boolean): object;
  delta(part: Part, index: number, about: { first: boolean; logprobs: boolean }): object;
}

const chatLogprobs = (tokens: readonly TokenLogprob[]) => ({
  content: tokens.map((token) => ({ ...token, top_logprobs: [] })),
  refusal: null,
});

const chatShape: Shape = {
  id: 'chatcmpl',
  object: 'chat.completion',
  chunk: 'chat.completion.chunk',
  choice: ({ text, tokens, finish }, index, logprobs) => ({
    index,
    message: { role: 'assistant', content: text, refusal: null },
    logprobs: logprobs ? chatLogprobs(tokens) : null,
    finish_reason: finish,
  }),
  delta: ({ text, tokens, finish }, index, { first, logprobs }) => ({
    index,
    delta: { ...(first && { role: 'assistant' }), content: text },
    logprobs: logprobs ? chatLogprobs(tokens) : null,
    finish_reason: finish ?? null,
  }),
};

function completionChoice({ text, tokens, finish }: Part, index: number, logprobs: boolean) {
  const listed = {
    tokens: tokens.map(({ token }) => token),
    token_logprobs: tokens.map(({ logprob }) => logprob),
    top_logprobs: null,
    text_offset: tokens.map((_, i) => tokens.slice(0, i).reduce((sum, { token }) => sum + token.length, 0)),
  };
  return { index, text, logprobs: logprobs ? listed : null, finish_reason: finish ?? null };
}

const completionShape: Shape = {
  id: 'cmpl',
  object: 'text_completion',
  chunk: 'text_completion',
  choice: completionChoice,
  delta: (part, index, { logprobs }) => completionChoice(part, index, logprobs),
};

async function bodyOf(request: IncomingMessage): Promise<unknown> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    length += part.length;
    if (length > LONGEST_BODY) throw new RequestError(413, `A request has ${LONGEST_BODY} bytes at most.`);
    parts.push(part);
  }
  try {
    return JSON.parse(Buffer.concat(parts).toString()) as unknown;
  } catch (error) {
    throw new RequestError(400, `The request is no JSON: ${reasonOf(error)}.`);
  }
}

function json(response: ServerResponse, status: number, value: object): void {
  response.writeHead(status, { 'Content-Type': 'application/json' });
  response.end(JSON.stringify(value));
}

/** What is wrong with a request is the client's to mend; anything else is a fault here. */
function fail(response: ServerResponse, error: unknown): void {
  const status = error instanceof RequestError ? error.status : error instanceof TroupeError ? 400 : 500;
  if (status === 500) console.error(error);
  if (response.headersSent || response.destroyed) {
    response.destroy();
    return;
  }
  const type = status === 500 ? 'server_error' : 'invalid_request_error';
  const message = status === 500 ? reasonOf(error) : (error as Error).message;
  // What is still being sent is not read: the connection ends with the answer.
  response.setHeader('Connection', 'close');
  json(response, status, { error: { message, type, param: null, code: null } });
}
