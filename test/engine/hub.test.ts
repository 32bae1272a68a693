/**
 * Names on the hub, against a server here that answers as the hub does: fails if a file is fetched twice or not checked,
 * if a cut connection loses what came, if the cache of Python's libraries is not read, or if the network is used offline.
 * Not tried here: the real hub, and its xet protocol for large files.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { packageRoot } from '../../src/config/package.js';
import { chosenDataFiles, dataSetOnHub, modelOnHub } from '../../src/engine/hub.js';
import { dataFilesFromHub, modelFromHub } from '../../src/engine/hub-download.js';
import { localModel, resolveModel } from '../../src/engine/model-catalogue.js';
import { createTask } from '../../src/tasks/registry.js';

const SHA = 'a'.repeat(40);
const sha = (kind: string, content: Buffer) => createHash(kind).update(content).digest('hex');
const gitSha = (content: Buffer) =>
  createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex');

/** What the server has, and how it behaves. */
const files = new Map<string, Buffer>();
let asked: string[] = [];
let sent = 0;
let token: string | undefined;
/** Bytes after which each answer is cut. */
let cutAfter = Number.POSITIVE_INFINITY;
/** Bytes that the server has left to give. */
let budget = Number.POSITIVE_INFINITY;
let change: (entries: object[]) => object[] = (entries) => entries;
let damaged = '';
/** Takes over the answer that has the weights. */
let hold: ((response: ServerResponse, body: Buffer) => void) | undefined;

const isLarge = (path: string) => /safetensors|parquet/.test(path);

function answer(request: IncomingMessage, response: ServerResponse) {
  const url = new URL(request.url ?? '', 'http://hub');
  const json = (value: unknown, status = 200) => {
    response.writeHead(status, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify(value));
  };
  asked.push(url.pathname);
  if (token !== undefined && request.headers.authorization !== `Bearer ${token}`) {
    return json({ error: 'Invalid credentials' }, 401);
  }
  const [, revision] = /^\/api\/(?:models|datasets)\/org\/name\/revision\/(.+)$/.exec(url.pathname) ?? [];
  if (revision !== undefined) {
    if (!['main', 'v1', SHA].includes(revision)) return json({ error: 'Revision not found' }, 404);
    return json({ _id: '1', id: 'org/name', sha: SHA, lastModified: '2026-01-01', tags: [] });
  }
  if (/^\/api\/(models|datasets)\/org\/name\/tree\//.test(url.pathname)) {
    const entries = [...files].map(([path, content]) => ({
      type: 'file',
      path,
      size: content.length,
      oid: gitSha(content),
      ...(isLarge(path) && { lfs: { oid: sha('sha256', content), size: content.length, pointerSize: 130 } }),
    }));
    return json(change(entries));
  }
  const [, path = ''] = /^\/(?:datasets\/)?org\/name\/resolve\/a{40}\/(.+)$/.exec(url.pathname) ?? [];
  const content = files.get(path);
  if (content === undefined) return json({ error: 'Repository not found' }, 404);
  const [, from = '0', to = ''] = /bytes=(\d+)-(\d*)/.exec(request.headers.range ?? '') ?? [];
  const end = to === '' ? content.length : Number(to) + 1;
  const body = Buffer.from(content.subarray(Number(from), end));
  if (path === damaged && body.length > 1) body[0] = (body[0] ?? 0) ^ 1;
  response.writeHead(206, {
    ETag: `"${gitSha(content)}"`,
    'Content-Range': `bytes ${from}-${end - 1}/${content.length}`,
    'Content-Length': body.length,
  });
  if (hold !== undefined && body.length > 1 && path === 'model.safetensors') return hold(response, body);
  const given = body.length > 1 ? Math.min(body.length, cutAfter, budget) : body.length;
  if (body.length > 1) {
    sent += given;
    budget -= given;
  }
  if (given === body.length) response.end(body);
  else response.write(body.subarray(0, given), () => setTimeout(() => response.destroy(), 20));
}

const server = createServer(answer);
const lines: string[] = [];
const say = (line: string) => void lines.push(line);
let cache = '';

beforeAll(() => new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve)));
afterAll(() => void server.close());
beforeEach(() => {
  cache = mkdtempSync(join(tmpdir(), 'troupe-hub-'));
  const { port } = server.address() as AddressInfo;
  vi.stubEnv('HF_ENDPOINT', `http://127.0.0.1:${port}`);
  vi.stubEnv('HF_HOME', cache);
  vi.stubEnv('HF_HUB_CACHE', '');
  vi.stubEnv('HF_TOKEN', '');
  vi.stubEnv('HF_HUB_OFFLINE', '');
  files.clear();
  asked = [];
  sent = 0;
  token = undefined;
  cutAfter = Number.POSITIVE_INFINITY;
  budget = Number.POSITIVE_INFINITY;
  change = (entries) => entries;
  damaged = '';
  hold = undefined;
  lines.length = 0;
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(cache, { recursive: true, force: true });
});

/** What the hub has of a model, beside files that nobody needs here. */
function publishModel(): void {
  const bytes = (count: number) => Buffer.from(Array.from({ length: count }, (_, i) => (i * 37) % 251));
  files.set('config.json', Buffer.from('{}'));
  files.set('tokenizer.json', bytes(20_000));
  files.set('model.safetensors', bytes(60_000));
  files.set('additional_chat_templates/tool_use.jinja', bytes(100));
  files.set('pytorch_model.bin', bytes(1000));
  files.set('onnx/model.onnx', bytes(1000));
}
const model = (text = 'org/name') => modelFromHub(modelOnHub(text) as never, say);
/** Of what is fetched of it. */
const bytesOfModel = () =>
  [...files].reduce((sum, [name, content]) => sum + (/bin|onnx/.test(name) ? 0 : content.length), 0);
const errorOf = async (promise: Promise<unknown>) => (await promise.catch((error: Error) => error)) as Error;
const repository = () => join(cache, 'hub', 'models--org--name');

describe('a model', () => {
  it('is downloaded into the layout of the cache, once', async () => {
    publishModel();
    const folder = await model();
    expect(folder).toBe(join(repository(), 'snapshots', SHA));
    expect(readFileSync(join(repository(), 'refs', 'main'), 'utf8')).toBe(SHA);
    const weights = join(folder, 'model.safetensors');
    expect(lstatSync(weights).isSymbolicLink()).toBe(true);
    expect(readFileSync(weights)).toEqual(files.get('model.safetensors'));
    expect(
      existsSync(join(repository(), 'blobs', sha('sha256', files.get('model.safetensors') as Buffer))),
    ).toBe(true);
    expect(existsSync(join(folder, 'additional_chat_templates', 'tool_use.jinja'))).toBe(true);
    expect(readdirSync(folder)).not.toContain('pytorch_model.bin');
    expect(readdirSync(folder)).not.toContain('onnx');
    expect(lines).toContainEqual(
      expect.stringMatching(/^org\/name: file \d of \d, model\.safetensors \(0\.06 MB\)$/),
    );
    asked = [];
    expect(await model()).toBe(folder);
    expect(await resolveModel('org/name')).toBe(folder);
    expect(await resolveModel('hf:org/name')).toBe(folder);
    expect(localModel('org/name')).toBe(folder);
    expect(asked).toEqual([]);
  });

  it('that a cut connection leaves is gone on with', async () => {
    publishModel();
    cutAfter = 25_000;
    const folder = await model();
    expect(readFileSync(join(folder, 'model.safetensors'))).toEqual(files.get('model.safetensors'));
    // No byte came twice.
    expect(sent).toBe(bytesOfModel());
  });

  it('that two want at the same time comes once', async () => {
    publishModel();
    const [one, other] = await Promise.all([model(), model()]);
    expect(other).toBe(one);
    expect(readFileSync(join(one, 'model.safetensors'))).toEqual(files.get('model.safetensors'));
    expect(sent).toBe(bytesOfModel());
    expect(lines.filter((line) => line.includes('waiting for it'))).toHaveLength(1);
  });

  it('of which nothing comes any more says what is kept, and the next try goes on from there', async () => {
    publishModel();
    budget = 40_000;
    const message = /^org\/name: [\w.]+ broke off: .*; [\d.]+ MB of [\d.]+ MB are kept for the next try\.$/;
    expect((await errorOf(model())).message).toMatch(message);
    budget = Number.POSITIVE_INFINITY;
    expect(readFileSync(join(await model(), 'model.safetensors'))).toEqual(files.get('model.safetensors'));
    expect(sent).toBe(bytesOfModel());
  });

  it('whose bytes are not those of its checksum is refused', async () => {
    publishModel();
    for (const name of ['model.safetensors', 'config.json']) {
      damaged = name;
      expect((await errorOf(model())).message).toBe(
        `org/name: ${name} does not have its checksum; it was thrown away.`,
      );
      expect(existsSync(join(repository(), 'snapshots'))).toBe(false);
      rmSync(repository(), { recursive: true });
    }
    damaged = '';
    await model();
  });

  it.each([
    ['../../../etc/evil.json', 'f'.repeat(40)],
    ['config.json', '../../../evil'],
  ])('whose list of files leads out of the cache is refused (%s)', async (path, oid) => {
    publishModel();
    change = (entries) => [
      ...entries.filter((entry) => (entry as { path: string }).path !== path),
      { type: 'file', path, size: 3, oid },
    ];
    const error = await errorOf(model());
    if (path.startsWith('..')) expect(error).not.toBeInstanceOf(Error);
    else
      expect(error.message).toMatch(
        /^org\/name: the hub names a file "config\.json" \("\.\.\/\.\.\/\.\.\/evil"\)/,
      );
    expect(readdirSync(cache)).toEqual(path.startsWith('..') ? ['hub'] : []);
  });

  it('whose index in the cache is none is a sentence', async () => {
    publishModel();
    const folder = await model();
    rmSync(join(folder, 'model.safetensors'));
    writeFileSync(join(folder, 'model.safetensors.index.json'), '{"weight_map": null}');
    expect((await errorOf(model())).message).toMatch(/model\.safetensors\.index\.json: .*weight_map/);
  });

  it('may be pinned, and private', async () => {
    publishModel();
    expect(await model('org/name@v1')).toBe(join(repository(), 'snapshots', SHA));
    expect(readFileSync(join(repository(), 'refs', 'v1'), 'utf8')).toBe(SHA);
    expect(await model(`org/name@${SHA}`)).toBe(join(repository(), 'snapshots', SHA));
    expect((await errorOf(model('org/name@v2'))).message).toMatch(
      /^org\/name@v2: could not be fetched from http.*status 404.*no such name or revision/,
    );
    rmSync(repository(), { recursive: true });
    token = 'hf_secret';
    expect((await errorOf(model())).message).toMatch(
      /status 401\)\. There is no such name, or it is private or gated: set HF_TOKEN/,
    );
    vi.stubEnv('HF_TOKEN', 'hf_secret');
    expect(await model()).toBe(join(repository(), 'snapshots', SHA));
  });

  it('that the hub has only in another format is refused', async () => {
    publishModel();
    files.delete('model.safetensors');
    expect((await errorOf(model())).message).toMatch(
      /has no model\.safetensors on the hub\. The engine reads safetensors/,
    );
  });

  it('that is not there is said, with where it was looked for', async () => {
    const gone = createServer();
    await new Promise<void>((resolve) => gone.listen(0, '127.0.0.1', resolve));
    const { port } = gone.address() as AddressInfo;
    await new Promise((resolve) => gone.close(resolve));
    vi.stubEnv('HF_ENDPOINT', `http://127.0.0.1:${port}`);
    expect((await errorOf(model())).message).toMatch(
      /could not be fetched from http:\/\/127\.0\.0\.1:\d+ \(ECONNREFUSED\)\. Looked in .*models--org--name before/,
    );
  });
});

describe('a model that processes of their own fetch', () => {
  const child = fileURLToPath(new URL('fetch-child.mjs', import.meta.url));
  const fetching = (host?: string) =>
    spawn(process.execPath, [child, 'org/name'], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, ...(host !== undefined && { TEST_HOST: host }) },
    });
  /** Gives half of the weights, and the rest when the function is called that it leaves. */
  let rest: (() => void)[] = [];
  const halves = (onHalf: () => void) => (response: ServerResponse, body: Buffer) => {
    const half = body.length / 2;
    sent += half;
    response.write(body.subarray(0, half), onHalf);
    rest.push(() => {
      sent += half;
      response.end(body.subarray(half));
    });
  };
  const weights = () => readFileSync(join(repository(), 'snapshots', SHA, 'model.safetensors'));
  beforeEach(() => {
    rest = [];
    publishModel();
  });

  it('comes once, where they are of one host', async () => {
    // The one that has the lock gets the rest when the other has said that it waits.
    let waits = false;
    const go = () => {
      if (waits) for (const give of rest.splice(0)) give();
    };
    hold = halves(go);
    const children = [fetching(), fetching()];
    for (const { stderr } of children) {
      stderr.on('data', (text: Buffer) => {
        waits ||= String(text).includes('waiting for it');
        go();
      });
    }
    await Promise.all(children.map((process) => once(process, 'close')));
    expect(children.map(({ exitCode }) => exitCode)).toEqual([0, 0]);
    expect(sent).toBe(bytesOfModel());
    expect(weights()).toEqual(files.get('model.safetensors'));
  });

  it('is whole for both, where they are of two hosts that share the cache', async () => {
    hold = halves(() => {
      if (rest.length === 2) for (const give of rest) give();
    });
    const children = [fetching('one'), fetching('two')];
    await Promise.all(children.map((process) => once(process, 'exit')));
    expect(children.map(({ exitCode }) => exitCode)).toEqual([0, 0]);
    expect(weights()).toEqual(files.get('model.safetensors'));
    const left = readdirSync(join(cache, 'hub'), { recursive: true, encoding: 'utf8' });
    expect(left.filter((name) => /incomplete|partial/.test(name))).toEqual([]);
  });

  it('is not there where one was killed, and the next goes on from what it left', async () => {
    hold = halves(() => {});
    const killed = fetching();
    const blobs = join(repository(), 'blobs');
    const isHalf = () =>
      existsSync(blobs) &&
      readdirSync(blobs).some(
        (name) => name.endsWith('.incomplete') && statSync(join(blobs, name)).size === 30_000,
      );
    while (!isHalf()) await new Promise((resolve) => setTimeout(resolve, 10));
    killed.kill('SIGKILL');
    await once(killed, 'exit');
    expect(existsSync(join(repository(), 'snapshots'))).toBe(false);
    hold = undefined;
    await model();
    expect(weights()).toEqual(files.get('model.safetensors'));
    expect(sent).toBe(bytesOfModel());
  });
});

describe('offline', () => {
  beforeEach(() => vi.stubEnv('HF_HUB_OFFLINE', '1'));

  it('what is missing is said, and where it was looked for', async () => {
    expect((await errorOf(model())).message).toBe(
      `org/name: HF_HUB_OFFLINE is set, and the cache lacks the revision main (${join(repository(), 'refs', 'main')}); looked in ${repository()}. Unset it to download, or set HF_HOME or HF_HUB_CACHE to a cache that has it.`,
    );
    // As Python leaves it, half of it.
    const snapshot = join(repository(), 'snapshots', SHA);
    mkdirSync(join(repository(), 'refs'), { recursive: true });
    mkdirSync(snapshot, { recursive: true });
    writeFileSync(join(repository(), 'refs', 'main'), SHA);
    writeFileSync(join(snapshot, 'config.json'), '{}');
    expect((await errorOf(model())).message).toContain(
      'the cache lacks tokenizer.json, model.safetensors; looked in',
    );
    expect(asked).toEqual([]);
  });

  it("a model of Python's cache is read", async () => {
    const snapshot = join(repository(), 'snapshots', SHA);
    mkdirSync(join(repository(), 'refs'), { recursive: true });
    mkdirSync(join(repository(), 'snapshots'));
    writeFileSync(join(repository(), 'refs', 'main'), SHA);
    symlinkSync(join(packageRoot(), 'models', 'troupe-0.3m'), snapshot);
    expect(await resolveModel('org/name')).toBe(snapshot);
    vi.stubEnv('HF_HUB_CACHE', join(cache, 'elsewhere'));
    expect(localModel('org/name')).toBeUndefined();
  });
});

describe('a data set', () => {
  const row = (i: number) => `${JSON.stringify({ question: `What is ${i}?`, answer: `#### ${i}` })}\n`;
  const publish = () => {
    files.set('README.md', Buffer.from('# About'));
    for (const part of ['main', 'socratic']) {
      files.set(`${part}/train.jsonl`, Buffer.from([1, 2, 3, 4].map(row).join('')));
      files.set(`${part}/test.jsonl`, Buffer.from(row(9)));
    }
  };
  const data = (text: string) => dataFilesFromHub(dataSetOnHub(text), say);
  const names = (paths: string[]) => paths.map((path) => path.slice(path.indexOf(SHA) + SHA.length + 1));

  it('gives the files that its name means, and only those are fetched', async () => {
    publish();
    expect(names(await data('hf:org/name/main'))).toEqual(['main/train.jsonl']);
    // The cache holds nothing but training rows now: the held-out ones are fetched, not taken from them.
    expect(names(await data('hf:org/name/main/test'))).toEqual(['main/test.jsonl']);
    asked = [];
    expect(names(await data('hf:org/name/main'))).toEqual(['main/train.jsonl']);
    expect(asked).toEqual([]);
    expect((await errorOf(data('hf:org/name'))).message).toMatch(
      /^hf:org\/name: has data files in main, socratic\. Name one: hf:org\/name\/main\.$/,
    );
    expect((await errorOf(data('hf:org/name/other'))).message).toMatch(
      /has no data file "other"\. Its data files are main\/train\.jsonl/,
    );
    vi.stubEnv('HF_HUB_OFFLINE', '1');
    expect((await errorOf(data('hf:org/name/socratic'))).message).toMatch(
      /has no data file "socratic"|lacks/,
    );
  });

  it('is the file of a task', async () => {
    publish();
    const error = vi.spyOn(console, 'error').mockImplementation(() => {});
    const task = await createTask({
      name: 'math',
      files: 'hf:org/name/main/train',
      evaluationFiles: 'hf:org/name/main/test',
    });
    // What a run records of it, so that it has to be readable files by then.
    expect(await task.split?.()).toMatchObject({
      rows: 4,
      files: [
        {
          file: expect.stringMatching(/main\/train\.jsonl$/),
          sha256: expect.stringMatching(/^[0-9a-f]{64}$/),
        },
      ],
    });
    error.mockRestore();
    expect(task.evaluation(10).map(({ answer }) => answer)).toEqual(['9']);
  });

  it('of several shards is whole or missing', () => {
    const wanted = dataSetOnHub('hf:org/name');
    const shards = ['data/train-00000-of-00002.parquet', 'data/train-00001-of-00002.parquet'];
    expect(
      chosenDataFiles(wanted, [...shards, 'data/test-00000-of-00001.parquet', 'dataset_info.json']),
    ).toEqual(shards);
  });

  it.each(['hf:name', 'hf:org/../x', 'hf:org/name@../x', 'hf:'])('%s is no name', (text) => {
    expect(() => dataSetOnHub(text)).toThrow(/is no name on the hub\. It takes hf:OWNER\/NAME/);
  });

  it.each(['./org/name', 'org/name/more', 'org', '/org/name', 'org/name@../x', '../name'])(
    '%s is no model on the hub',
    (text) => {
      expect(modelOnHub(text)).toBeUndefined();
    },
  );
});
