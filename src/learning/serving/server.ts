/**
 * `troupe serve`: the OpenAI chat-completions and completions API on this machine alone. It answers only requests that name
 * it so, and only JSON: a web page elsewhere cannot use it by pointing its own name here, nor by posting a form.
 */
import { once, setMaxListeners } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { setTimeout } from 'node:timers/promises';
import { reasonOf, TroupeError } from '../../config/errors.js';
import { HOST, listenHere, namesThisMachine, portOf } from '../../config/local-server.js';
import { Choices, chatShape, completionShape, type Shape } from './choices.js';
import { type Ask, RequestError, readChat, readCompletion } from './requests.js';
import type { Served } from './served.js';

const THERE = 'Here are GET /v1/models, POST /v1/chat/completions and POST /v1/completions.';
/** Bytes of a request at most. */
const LONGEST_BODY = 8 * 2 ** 20;

export class ApiServer {
  readonly #served: Served;
  readonly #server: Server;
  readonly #created = Math.floor(Date.now() / 1000);

  private constructor(served: Served) {
    this.#served = served;
    this.#server = createServer((request, response) => {
      // A request never ends the program: what goes wrong with it is its answer.
      this.#answer(request, response).catch((error) => fail(response, error));
    });
  }

  /** `port`: 0 takes a free one. Throws a TroupeError if it is taken. */
  static async start(served: Served, port: number): Promise<ApiServer> {
    const server = new ApiServer(served);
    await listenHere(server.#server, port);
    return server;
  }

  /** What clients take as their base URL. */
  get url(): string {
    return `http://${HOST}:${portOf(this.#server)}/v1`;
  }

  /** Ends connections; after `grace` milliseconds those too that are being answered. */
  async close(grace = 0): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    if (grace > 0) {
      this.#server.closeIdleConnections();
      await Promise.race([closed, setTimeout(grace)]);
    }
    this.#server.closeAllConnections();
    await closed;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.setHeader('X-Content-Type-Options', 'nosniff');
    response.setHeader('Cache-Control', 'no-store');
    if (!namesThisMachine(request, this.#server)) throw new RequestError(403, `Ask for ${this.url}.`);
    const [path = ''] = (request.url ?? '').split('?');
    const models = /^\/v1\/models(?:\/(?<named>.*))?$/s.exec(path);
    if (models !== null) {
      allow(request, response, ['GET', 'HEAD']);
      json(response, 200, this.#models(models.groups?.named));
      return;
    }
    const read = { '/v1/chat/completions': readChat, '/v1/completions': readCompletion }[path];
    if (read === undefined) throw new RequestError(404, THERE);
    allow(request, response, ['POST']);
    const { 'content-type': type = '', 'content-encoding': encoding = 'identity' } = request.headers;
    if (type.split(';', 1)[0]?.trim().toLowerCase() !== 'application/json') {
      throw new RequestError(415, 'A request is application/json.');
    }
    if (encoding.toLowerCase() !== 'identity') throw new RequestError(415, 'A request is not compressed.');
    const ask = read(await bodyOf(request), this.#served);
    const shape = path === '/v1/completions' ? completionShape : chatShape;
    await this.#generate(ask, shape, response);
  }

  /** All, or the one that is named, as a path has it. */
  #models(named = ''): object {
    const data = [...this.#served.models.keys()].map((id) => {
      return { id, object: 'model', created: this.#created, owned_by: 'troupe' };
    });
    if (named === '') return { object: 'list', data };
    const found = data.find(({ id }) => id === named || encodeURIComponent(id) === named);
    if (found === undefined) throw new RequestError(404, `There is no model "${named}".`);
    return found;
  }

  async #generate(ask: Ask, shape: Shape, response: ServerResponse): Promise<void> {
    const gone = new AbortController();
    setMaxListeners(0, gone.signal);
    response.once('close', () => gone.abort());
    try {
      const choices = new Choices(this.#served, ask, shape, gone.signal);
      if (ask.stream) await stream(choices, response, gone.signal);
      else {
        const whole = await choices.whole();
        if (!gone.signal.aborted) json(response, 200, whole);
      }
    } catch (error) {
      if (!gone.signal.aborted) throw this.#fault(error);
    } finally {
      gone.abort();
    }
  }

  /** What failed behind the API, not in the request. A model that can answer nothing any more is not there. */
  #fault(error: unknown): RequestError {
    const reason = reasonOf(error);
    if (this.#served.engine.ended) {
      return new RequestError(503, `The engine has ended, and the server with it: ${reason}`);
    }
    if (!(error instanceof TroupeError)) console.error(error);
    return new RequestError(500, reason);
  }
}

/** Throws the refusal of a request by another method. */
function allow(request: IncomingMessage, response: ServerResponse, methods: readonly string[]): void {
  if (methods.includes(request.method ?? '')) return;
  response.setHeader('Allow', methods.join(', '));
  throw new RequestError(405, THERE);
}

/** Sends events as they come. Whoever reads slowly holds the choices up, not the memory. */
async function stream(choices: Choices, response: ServerResponse, gone: AbortSignal): Promise<void> {
  // The status line waits for the first part: what the engine refuses is answered as an error.
  const send = (data: object | string) => {
    if (!response.headersSent) response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.write(`data: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`);
  };
  const left = once(gone, 'abort').catch(() => undefined);
  await choices.stream(async (event) => {
    if (gone.aborted) return;
    send(event);
    if (response.writableNeedDrain) await Promise.race([once(response, 'drain'), left]);
  });
  if (gone.aborted) return;
  send('[DONE]');
  response.end();
}

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
  if (!(error instanceof RequestError || error instanceof TroupeError)) console.error(error);
  const type = status >= 500 ? 'server_error' : 'invalid_request_error';
  const body = { error: { message: reasonOf(error), type, param: null, code: null } };
  if (response.destroyed) return;
  if (response.headersSent) {
    response.end(`data: ${JSON.stringify(body)}\n\n`);
    return;
  }
  // What is still being sent is not read: the connection ends with the answer.
  response.setHeader('Connection', 'close');
  json(response, status, body);
}
