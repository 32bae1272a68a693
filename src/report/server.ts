/**
 * `troupe watch`: the page of a run, live, and its tables as Arrow streams. It listens on this machine alone, and
 * answers only requests that name it so: a web page elsewhere cannot read a run by pointing its own name here.
 */
import { existsSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { reasonOf } from '../config/errors.js';
import { HOST, listenHere, namesThisMachine, portOf } from '../config/local-server.js';
import { isInUse } from '../config/lock.js';
import { END_OF_STREAM, followStream } from '../streams/follow.js';
import { streamPath, TABLE_NAMES } from '../streams/stream-files.js';
import { html } from './html.js';
import { SCRIPT } from './live-page.js';
import { LiveRun } from './live-run.js';
import { page } from './page.js';
import { picturesOf, runSection } from './run-section.js';

/** Milliseconds between signs of life on an event stream. */
const HEARTBEAT = 15_000;

export class RunServer {
  readonly #folder: string;
  readonly #live: LiveRun;
  readonly #server: Server;
  readonly #listeners = new Set<ServerResponse>();
  readonly #closing = new AbortController();
  #content: string | undefined;

  private constructor(folder: string) {
    this.#folder = folder;
    this.#live = new LiveRun(folder, () => this.#changed());
    this.#server = createServer((request, response) => {
      try {
        this.#answer(request, response);
      } catch (error) {
        // A request never ends the program; a page that cannot be drawn says why in its place.
        if (response.headersSent) response.destroy();
        else text(response, 500, `This page cannot be drawn: ${reasonOf(error)}.\n`);
      }
    });
    const heartbeat = setInterval(() => this.#send(': alive\n\n'), HEARTBEAT).unref();
    this.#closing.signal.addEventListener('abort', () => clearInterval(heartbeat));
  }

  /** `port`: 0 takes a free one. Throws a TroupeError if the folder is no run or the port is taken. */
  static async start(folder: string, port: number): Promise<RunServer> {
    const server = new RunServer(folder);
    try {
      await listenHere(server.#server, port);
    } catch (error) {
      await server.close();
      throw error;
    }
    return server;
  }

  get url(): string {
    return `http://${HOST}:${portOf(this.#server)}/`;
  }

  /** Rejects if a stream of the run cannot be read. */
  get ended(): Promise<void> {
    return this.#live.ended;
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#server.closeAllConnections();
    this.#server.close();
    await this.#live.close();
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    response.setHeader('X-Content-Type-Options', 'nosniff');
    response.setHeader('Cache-Control', 'no-store');
    if (!namesThisMachine(request, this.#server)) {
      text(response, 403, `Ask for ${this.url}.\n`);
      return;
    }
    // Of an answer to HEAD, Node sends the head alone.
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.setHeader('Allow', 'GET, HEAD');
      text(response, 405, 'Only GET and HEAD are answered.\n');
      return;
    }
    // Split by hand: what follows the slash is whatever a client sends, and URL throws for half of it.
    const [pathname = '', query = ''] = (request.url ?? '/').split(/\?(.*)/s);
    const searchParams = new URLSearchParams(query);
    const table = TABLE_NAMES.find((name) => pathname === `/tables/${name}.arrows`);
    if (table !== undefined) {
      const follow = searchParams.has('follow') && request.method === 'GET';
      void this.#sendTable(response, streamPath(this.#folder, table), follow);
    } else if (pathname === '/') {
      text(response, 200, page(this.#live.data.name, html``, '/watch.js'), 'text/html; charset=utf-8');
    } else if (pathname === '/watch.js') text(response, 200, SCRIPT, 'text/javascript; charset=utf-8');
    else if (pathname === '/content') text(response, 200, this.#currentContent(), 'text/html; charset=utf-8');
    else if (pathname === '/events') this.#listenTo(request, response);
    else text(response, 404, `Here are /, and /tables/NAME.arrows for: ${TABLE_NAMES.join(', ')}.\n`);
  }

  /** Rendered when it is asked for, once for all who ask. */
  #currentContent(): string {
    this.#content ??= runSection(picturesOf(this.#live.data), 'run-1').text;
    return this.#content;
  }

  #changed(): void {
    this.#content = undefined;
    this.#send(`event: change\ndata: ${this.#live.data.steps}\n\n`);
  }

  #listenTo(request: IncomingMessage, response: ServerResponse): void {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    if (request.method === 'HEAD') {
      response.end();
      return;
    }
    response.write(': hello\n\n');
    this.#listeners.add(response);
    response.once('close', () => this.#listeners.delete(response));
  }

  #send(event: string): void {
    for (const listener of this.#listeners) listener.write(event);
  }

  /** Up to its last whole batch, or as steps land until the run ends. */
  async #sendTable(response: ServerResponse, path: string, follow: boolean): Promise<void> {
    const { signal } = this.#closing;
    if (!existsSync(path)) {
      text(response, 404, 'The run has not written this table yet.\n');
      return;
    }
    response.setHeader('Content-Type', 'application/vnd.apache.arrow.stream');
    const isLive = () => follow && isInUse(this.#folder) && !response.destroyed;
    async function* bytes() {
      for await (const part of followStream(path, { isLive, signal })) {
        // An Arrow stream cannot take rows back: who asks again gets them as they are now.
        if (part.rewound) return response.destroy();
        yield part.bytes;
      }
      yield END_OF_STREAM;
    }
    // A reader that goes away is no error; of a stream that cannot be read `ended` says so, which follows them all.
    await pipeline(Readable.from(bytes()), response).catch(() => response.destroy());
  }
}

function text(
  response: ServerResponse,
  status: number,
  body: string,
  type = 'text/plain; charset=utf-8',
): void {
  response.writeHead(status, { 'Content-Type': type });
  response.end(body);
}
