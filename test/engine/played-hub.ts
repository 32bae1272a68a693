/** A server that answers as the Hugging Face hub does, and a cache for it, both new for each test. */
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, vi } from 'vitest';

/** The commit that every revision is. */
export const SHA = 'a'.repeat(40);
export const sha = (kind: string, content: Buffer) => createHash(kind).update(content).digest('hex');
const gitSha = (content: Buffer) =>
  createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex');

/** What the server has, how it behaves, and what was asked of it. */
class PlayedHub {
  readonly files = new Map<string, Buffer>();
  /** Paths that were asked for, and bytes that were given. */
  asked: string[] = [];
  sent = 0;
  /** What requests must bring. */
  token: string | undefined;
  /** Bytes after which each answer is cut. */
  cutAfter = Number.POSITIVE_INFINITY;
  /** Bytes that the server has left to give. */
  budget = Number.POSITIVE_INFINITY;
  /** Of the list of files. */
  change: (entries: object[]) => object[] = (entries) => entries;
  /** The file that comes with a wrong byte. */
  damaged = '';
  /** Takes over the answer that has the weights. */
  hold: ((response: ServerResponse, body: Buffer) => void) | undefined;
  /** HF_HOME. */
  cache = '';
  /** What the download said. */
  readonly lines: string[] = [];

  /** Of the model org/name in the cache. */
  repository(): string {
    return join(this.cache, 'hub', 'models--org--name');
  }
}

const isLarge = (path: string) => /safetensors|parquet/.test(path);

function answer(hub: PlayedHub, request: IncomingMessage, response: ServerResponse) {
  const url = new URL(request.url ?? '', 'http://hub');
  const json = (value: unknown, status = 200) => {
    response.writeHead(status, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify(value));
  };
  hub.asked.push(url.pathname);
  if (hub.token !== undefined && request.headers.authorization !== `Bearer ${hub.token}`) {
    return json({ error: 'Invalid credentials' }, 401);
  }
  const [, revision] = /^\/api\/(?:models|datasets)\/org\/name\/revision\/(.+)$/.exec(url.pathname) ?? [];
  if (revision !== undefined) {
    if (!['main', 'v1', SHA].includes(revision)) return json({ error: 'Revision not found' }, 404);
    return json({ _id: '1', id: 'org/name', sha: SHA, lastModified: '2026-01-01', tags: [] });
  }
  if (/^\/api\/(models|datasets)\/org\/name\/tree\//.test(url.pathname)) {
    const entries = [...hub.files].map(([path, content]) => ({
      type: 'file',
      path,
      size: content.length,
      oid: gitSha(content),
      ...(isLarge(path) && { lfs: { oid: sha('sha256', content), size: content.length, pointerSize: 130 } }),
    }));
    return json(hub.change(entries));
  }
  const [, path = ''] = /^\/(?:datasets\/)?org\/name\/resolve\/a{40}\/(.+)$/.exec(url.pathname) ?? [];
  const content = hub.files.get(path);
  if (content === undefined) return json({ error: 'Repository not found' }, 404);
  const [, from = '0', to = ''] = /bytes=(\d+)-(\d*)/.exec(request.headers.range ?? '') ?? [];
  const end = to === '' ? content.length : Number(to) + 1;
  const body = Buffer.from(content.subarray(Number(from), end));
  if (path === hub.damaged && body.length > 1) body[0] = (body[0] ?? 0) ^ 1;
  response.writeHead(206, {
    ETag: `"${gitSha(content)}"`,
    'Content-Range': `bytes ${from}-${end - 1}/${content.length}`,
    'Content-Length': body.length,
  });
  if (hub.hold !== undefined && body.length > 1 && path === 'model.safetensors')
    return hub.hold(response, body);
  const given = body.length > 1 ? Math.min(body.length, hub.cutAfter, hub.budget) : body.length;
  if (body.length > 1) {
    hub.sent += given;
    hub.budget -= given;
  }
  if (given === body.length) response.end(body);
  else response.write(body.subarray(0, given), () => setTimeout(() => response.destroy(), 20));
}

/** The hub, which each test finds as new. */
export function useHub(): PlayedHub {
  const hub = new PlayedHub();
  const server = createServer((request, response) => answer(hub, request, response));
  beforeAll(() => new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve)));
  afterAll(() => void server.close());
  beforeEach(() => {
    Object.assign(hub, new PlayedHub());
    hub.cache = mkdtempSync(join(tmpdir(), 'troupe-hub-'));
    const { port } = server.address() as AddressInfo;
    vi.stubEnv('HF_ENDPOINT', `http://127.0.0.1:${port}`);
    vi.stubEnv('HF_HOME', hub.cache);
    vi.stubEnv('HF_HUB_CACHE', '');
    vi.stubEnv('HF_TOKEN', '');
    vi.stubEnv('HF_HUB_OFFLINE', '');
  });
  afterEach(() => {
    vi.unstubAllEnvs();
    rmSync(hub.cache, { recursive: true, force: true });
  });
  return hub;
}

export const errorOf = async (promise: Promise<unknown>) =>
  (await promise.catch((error: Error) => error)) as Error;
