/** `troupe init`'s writer: the same seed the same bytes, shards with an index, and that the engine reads them. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { writeRandomModel } from '../../src/engine/random-model.js';
import { fails, json } from '../cli/troupe.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-init-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const SHAPE = 'troupe-0.3m';

function write(name: string, seed: number, shardBytes?: number): string {
  const path = join(folder, name);
  writeRandomModel(SHAPE, path, { seed, dtype: 'float32', ...(shardBytes ? { shardBytes } : {}) });
  return path;
}
const weights = (path: string) => readFileSync(join(path, 'model.safetensors'));

it('writes the same bytes for the same seed, and others for another', () => {
  const first = weights(write('a', 7));
  expect(weights(write('b', 7)).equals(first)).toBe(true);
  expect(weights(write('c', 8)).equals(first)).toBe(false);
});

it('writes shards that hold the same model', async () => {
  const whole = write('whole', 7);
  const shards = write('shards', 7, 200_000);
  const names = readdirSync(shards).filter((name) => name.endsWith('.safetensors'));
  expect(names.length).toBeGreaterThan(2);
  const index = JSON.parse(readFileSync(join(shards, 'model.safetensors.index.json'), 'utf8')) as {
    weight_map: Record<string, string>;
  };
  expect([...new Set(Object.values(index.weight_map))].sort()).toEqual(names.sort());
  const ids = join(folder, 'ids.json');
  writeFileSync(ids, '[[5, 6, 7, 8]]');
  expect(await json(['score', shards, '--ids', ids])).toEqual(await json(['score', whole, '--ids', ids]));
});

it('refuses a seed that is none', async () => {
  const init = ['init', join(folder, 'e'), '--shape', SHAPE, '--seed'];
  await fails([...init, 'x'], ['--seed is "x"; it takes a number.'], 2);
  await fails([...init, '1.5'], ['--seed', 'whole number']);
});

it('replaces a model, but nothing else', async () => {
  const other = mkdtempSync(join(folder, 'other-'));
  writeFileSync(join(other, 'thesis.tex'), 'precious');
  await fails(['init', other, '--shape', SHAPE], ['thesis.tex', other]);
  expect(readFileSync(join(other, 'thesis.tex'), 'utf8')).toBe('precious');
  await fails(['init', join(folder, 'd'), '--shape', SHAPE, '--tokenizer', other], ['tokenizer.json', other]);
});
