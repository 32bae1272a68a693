/** Digests of a model's folder: of all that the engine reads there and of nothing else, read once while it stays as it is. */
import fs, { mkdirSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { dirname, join } from 'node:path';
import { afterAll, beforeEach, expect, it, vi } from 'vitest';
import { TroupeError } from '../../src/config/errors.js';
import { fileDigest, modelDigests } from '../../src/engine/model-digests.js';
import { temporaryFolder } from '../runs/temporary.js';

/** Counts the files that are read, by whatever imports it from node:fs. */
const opened = vi.spyOn(fs, 'createReadStream');
syncBuiltinESMExports();
afterAll(() => {
  opened.mockRestore();
  syncBuiltinESMExports();
});

let folder = '';
beforeEach(() => {
  folder = temporaryFolder();
  opened.mockClear();
});

function write(...names: string[]): void {
  for (const name of names) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), name);
  }
}

const names = async () => Object.keys(await modelDigests(folder));
const index = 'model.safetensors.index.json';
const writeIndex = () =>
  writeFileSync(
    join(folder, index),
    JSON.stringify({ weight_map: { a: 'one.safetensors', b: 'two.safetensors' } }),
  );

it('has what the engine reads, and neither what else lies there nor what is no file', async () => {
  const read = [
    'additional_chat_templates/tool_use.jinja',
    'chat_template.jinja',
    'config.json',
    'generation_config.json',
    'model.safetensors',
    'special_tokens_map.json',
    'tokenizer.json',
    'tokenizer_config.json',
  ];
  write(...read);
  write('eval_results.json', 'trainer_state.json', 'vocab.json', 'optimizer.safetensors', 'x.json/file');
  write('additional_chat_templates/notes.txt');
  writeIndex();
  symlinkSync(join(folder, 'nowhere'), join(folder, 'link.json'));
  expect(await names()).toEqual(read);
});

it('has the index and its shards where there is no single file', async () => {
  write('config.json', 'one.safetensors', 'two.safetensors', 'three.safetensors');
  writeIndex();
  expect(await names()).toEqual(['config.json', index, 'one.safetensors', 'two.safetensors']);
  unlinkSync(join(folder, 'two.safetensors'));
  const missing = names();
  await expect(missing).rejects.toThrow(TroupeError);
  await expect(missing).rejects.toThrow(`${folder}/two.safetensors: no such file`);
});

it("has an adapter's two files", async () => {
  write('adapter_config.json', 'adapter_model.safetensors', 'config.json', 'tokenizer.json');
  expect(await names()).toEqual(['adapter_config.json', 'adapter_model.safetensors']);
});

it('says of a folder in the place of a file that it is one', async () => {
  write('config.json/file');
  await expect(modelDigests(folder)).rejects.toThrow(TroupeError);
});

it('reads a file again only when it has changed', async () => {
  const file = join(folder, 'weights');
  writeFileSync(file, 'a');
  const before = await fileDigest(file);
  expect(before).toMatch(/^ca978112ca1bbdca/);
  expect(await fileDigest(file)).toBe(before);
  expect(opened).toHaveBeenCalledTimes(1);
  writeFileSync(file, 'bc');
  expect(await fileDigest(file)).not.toBe(before);
  expect(opened).toHaveBeenCalledTimes(2);
});
