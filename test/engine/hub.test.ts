/**
 * Models by their names on the hub, against a server here that answers as the hub does: fails if a file is fetched twice or not
 * checked, if a cut connection loses what came, if the cache of Python's libraries is not read, or if the network is used
 * offline. Not tried here: the real hub, and its xet protocol for large files.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { packageRoot } from '../../src/config/package.js';
import { modelOnHub } from '../../src/engine/hub.js';
import { modelFromHub } from '../../src/engine/hub-download.js';
import { localModel, resolveModel } from '../../src/engine/model-catalogue.js';
import { errorOf, SHA, sha, useHub } from './played-hub.js';

const hub = useHub();
const say = (line: string) => void hub.lines.push(line);

/** What the hub has of a model, beside files that nobody needs here. */
function publishModel(): void {
  const bytes = (count: number) => Buffer.from(Array.from({ length: count }, (_, i) => (i * 37) % 251));
  hub.files.set('config.json', Buffer.from('{}'));
  hub.files.set('tokenizer.json', bytes(20_000));
  hub.files.set('model.safetensors', bytes(60_000));
  hub.files.set('additional_chat_templates/tool_use.jinja', bytes(100));
  hub.files.set('pytorch_model.bin', bytes(1000));
  hub.files.set('onnx/model.onnx', bytes(1000));
}
const model = (text = 'org/name') => modelFromHub(modelOnHub(text) as never, say);
/** Of what is fetched of it. */
const bytesOfModel = () =>
  [...hub.files].reduce((sum, [name, content]) => sum + (/bin|onnx/.test(name) ? 0 : content.length), 0);

describe('a model', () => {
  it('is downloaded into the layout of the cache, once', async () => {
    publishModel();
    const folder = await model();
    expect(folder).toBe(join(hub.repository(), 'snapshots', SHA));
    expect(readFileSync(join(hub.repository(), 'refs', 'main'), 'utf8')).toBe(SHA);
    const weights = join(folder, 'model.safetensors');
    expect(lstatSync(weights).isSymbolicLink()).toBe(true);
    expect(readFileSync(weights)).toEqual(hub.files.get('model.safetensors'));
    expect(
      existsSync(
        join(hub.repository(), 'blobs', sha('sha256', hub.files.get('model.safetensors') as Buffer)),
      ),
    ).toBe(true);
    expect(existsSync(join(folder, 'additional_chat_templates', 'tool_use.jinja'))).toBe(true);
    expect(readdirSync(folder)).not.toContain('pytorch_model.bin');
    expect(readdirSync(folder)).not.toContain('onnx');
    expect(hub.lines).toContainEqual(
      expect.stringMatching(/^org\/name: file \d of \d, model\.safetensors \(0\.06 MB\)$/),
    );
    hub.asked = [];
    expect(await model()).toBe(folder);
    expect(await resolveModel('org/name')).toBe(folder);
    expect(await resolveModel('hf:org/name')).toBe(folder);
    expect(localModel('org/name')).toBe(folder);
    expect(hub.asked).toEqual([]);
  });

  it('that a cut connection leaves is gone on with', async () => {
    publishModel();
    hub.cutAfter = 25_000;
    const folder = await model();
    expect(readFileSync(join(folder, 'model.safetensors'))).toEqual(hub.files.get('model.safetensors'));
    // No byte came twice.
    expect(hub.sent).toBe(bytesOfModel());
  });

  it('that two want at the same time comes once', async () => {
    publishModel();
    const [one, other] = await Promise.all([model(), model()]);
    expect(other).toBe(one);
    expect(readFileSync(join(one, 'model.safetensors'))).toEqual(hub.files.get('model.safetensors'));
    expect(hub.sent).toBe(bytesOfModel());
    expect(hub.lines.filter((line) => line.includes('waiting for it'))).toHaveLength(1);
  });

  it('of which nothing comes any more says what is kept, and the next try goes on from there', async () => {
    publishModel();
    hub.budget = 40_000;
    const message = /^org\/name: [\w.]+ broke off: .*; [\d.]+ MB of [\d.]+ MB are kept for the next try\.$/;
    expect((await errorOf(model())).message).toMatch(message);
    hub.budget = Number.POSITIVE_INFINITY;
    expect(readFileSync(join(await model(), 'model.safetensors'))).toEqual(
      hub.files.get('model.safetensors'),
    );
    expect(hub.sent).toBe(bytesOfModel());
  });

  it('whose bytes are not those of its checksum is refused', async () => {
    publishModel();
    for (const name of ['model.safetensors', 'config.json']) {
      hub.damaged = name;
      expect((await errorOf(model())).message).toBe(
        `org/name: ${name} does not have its checksum; it was thrown away.`,
      );
      expect(existsSync(join(hub.repository(), 'snapshots'))).toBe(false);
      rmSync(hub.repository(), { recursive: true });
    }
    hub.damaged = '';
    await model();
  });

  it.each([
    ['../../../etc/evil.json', 'f'.repeat(40)],
    ['config.json', '../../../evil'],
  ])('whose list of files leads out of the cache is refused (%s)', async (path, oid) => {
    publishModel();
    hub.change = (entries) => [
      ...entries.filter((entry) => (entry as { path: string }).path !== path),
      { type: 'file', path, size: 3, oid },
    ];
    const error = await errorOf(model());
    if (path.startsWith('..')) expect(error).not.toBeInstanceOf(Error);
    else
      expect(error.message).toMatch(
        /^org\/name: the hub names a file "config\.json" \("\.\.\/\.\.\/\.\.\/evil"\)/,
      );
    expect(readdirSync(hub.cache)).toEqual(path.startsWith('..') ? ['hub'] : []);
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
    expect(await model('org/name@v1')).toBe(join(hub.repository(), 'snapshots', SHA));
    expect(readFileSync(join(hub.repository(), 'refs', 'v1'), 'utf8')).toBe(SHA);
    expect(await model(`org/name@${SHA}`)).toBe(join(hub.repository(), 'snapshots', SHA));
    expect((await errorOf(model('org/name@v2'))).message).toMatch(
      /^org\/name@v2: could not be fetched from http.*status 404.*no such name or revision/,
    );
    rmSync(hub.repository(), { recursive: true });
    hub.token = 'hf_secret';
    expect((await errorOf(model())).message).toMatch(
      /status 401\)\. There is no such name, or it is private or gated: set HF_TOKEN/,
    );
    vi.stubEnv('HF_TOKEN', 'hf_secret');
    expect(await model()).toBe(join(hub.repository(), 'snapshots', SHA));
  });

  it('that the hub has only in another format is refused', async () => {
    publishModel();
    hub.files.delete('model.safetensors');
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
    hub.sent += half;
    response.write(body.subarray(0, half), onHalf);
    rest.push(() => {
      hub.sent += half;
      response.end(body.subarray(half));
    });
  };
  const weights = () => readFileSync(join(hub.repository(), 'snapshots', SHA, 'model.safetensors'));
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
    hub.hold = halves(go);
    const children = [fetching(), fetching()];
    for (const { stderr } of children) {
      stderr.on('data', (text: Buffer) => {
        waits ||= String(text).includes('waiting for it');
        go();
      });
    }
    await Promise.all(children.map((process) => once(process, 'close')));
    expect(children.map(({ exitCode }) => exitCode)).toEqual([0, 0]);
    expect(hub.sent).toBe(bytesOfModel());
    expect(weights()).toEqual(hub.files.get('model.safetensors'));
  });

  it('is whole for both, where they are of two hosts that share the cache', async () => {
    hub.hold = halves(() => {
      if (rest.length === 2) for (const give of rest) give();
    });
    const children = [fetching('one'), fetching('two')];
    await Promise.all(children.map((process) => once(process, 'exit')));
    expect(children.map(({ exitCode }) => exitCode)).toEqual([0, 0]);
    expect(weights()).toEqual(hub.files.get('model.safetensors'));
    const left = readdirSync(join(hub.cache, 'hub'), { recursive: true, encoding: 'utf8' });
    expect(left.filter((name) => /incomplete|partial/.test(name))).toEqual([]);
  });

  it('is not there where one was killed, and the next goes on from what it left', async () => {
    hub.hold = halves(() => {});
    const killed = fetching();
    const blobs = join(hub.repository(), 'blobs');
    const isHalf = () =>
      existsSync(blobs) &&
      readdirSync(blobs).some(
        (name) => name.endsWith('.incomplete') && statSync(join(blobs, name)).size === 30_000,
      );
    while (!isHalf()) await new Promise((resolve) => setTimeout(resolve, 10));
    killed.kill('SIGKILL');
    await once(killed, 'exit');
    expect(existsSync(join(hub.repository(), 'snapshots'))).toBe(false);
    hub.hold = undefined;
    await model();
    expect(weights()).toEqual(hub.files.get('model.safetensors'));
    expect(hub.sent).toBe(bytesOfModel());
  });
});

describe('offline', () => {
  beforeEach(() => vi.stubEnv('HF_HUB_OFFLINE', '1'));

  it('what is missing is said, and where it was looked for', async () => {
    expect((await errorOf(model())).message).toBe(
      `org/name: HF_HUB_OFFLINE is set, and the cache lacks the revision main (${join(hub.repository(), 'refs', 'main')}); looked in ${hub.repository()}. Unset it to download, or set HF_HOME or HF_HUB_CACHE to a cache that has it.`,
    );
    // As Python leaves it, half of it.
    const snapshot = join(hub.repository(), 'snapshots', SHA);
    mkdirSync(join(hub.repository(), 'refs'), { recursive: true });
    mkdirSync(snapshot, { recursive: true });
    writeFileSync(join(hub.repository(), 'refs', 'main'), SHA);
    writeFileSync(join(snapshot, 'config.json'), '{}');
    expect((await errorOf(model())).message).toContain(
      'the cache lacks tokenizer.json, model.safetensors; looked in',
    );
    expect(hub.asked).toEqual([]);
  });

  it("a model of Python's cache is read", async () => {
    const snapshot = join(hub.repository(), 'snapshots', SHA);
    mkdirSync(join(hub.repository(), 'refs'), { recursive: true });
    mkdirSync(join(hub.repository(), 'snapshots'));
    writeFileSync(join(hub.repository(), 'refs', 'main'), SHA);
    symlinkSync(join(packageRoot(), 'models', 'troupe-0.3m'), snapshot);
    expect(await resolveModel('org/name')).toBe(snapshot);
    vi.stubEnv('HF_HUB_CACHE', join(hub.cache, 'elsewhere'));
    expect(localModel('org/name')).toBeUndefined();
  });
});

it.each(['./org/name', 'org/name/more', 'org', '/org/name', 'org/name@../x', '../name'])(
  '%s is no model on the hub',
  (text) => {
    expect(modelOnHub(text)).toBeUndefined();
  },
);
