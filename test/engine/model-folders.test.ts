/**
 * Model folders in unusual layouts against the log-probabilities that transformers 5 reads out of them
 * (test/golden/model_folders.py), and those that are refused because the engine would compute something else.
 */
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readModelConfig } from '../../src/engine/configuration.js';
import { Engine } from '../../src/engine/engine.js';
import { golden } from '../cli/troupe.js';

const FOLDERS = golden('folders');
const { ids, cases } = JSON.parse(readFileSync(join(FOLDERS, 'expected.json'), 'utf8')) as {
  ids: number[];
  cases: Record<string, { logprobs: number[]; unread: string[] }>;
};
const temporary = mkdtempSync(join(tmpdir(), 'troupe-folders-'));
let engine: Engine;
beforeAll(() => {
  engine = new Engine();
});
afterAll(async () => {
  await engine.close();
  rmSync(temporary, { recursive: true, force: true });
});

async function read(folder: string): Promise<{ logprobs: number[]; notices: string[] }> {
  const rollout = { cacheBytes: 1 << 20, maxBatch: 1, prefillTokens: 1, seed: 0, deterministic: false };
  await engine.send('loadModel', { name: 'model', folder, dtype: 'float32', device: 'cpu', rollout });
  const { notices } = await engine.send('createPolicy', {
    name: 'policy',
    model: 'model',
    parameters: { kind: 'full' },
    trainable: false,
    optimizer: { betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0 },
    seed: 0,
  });
  const [scores = new Float32Array()] = await engine.send('score', {
    policy: 'policy',
    sequences: [Int32Array.from(ids)],
    temperature: 1,
  });
  return { logprobs: [...scores], notices };
}

/** transformers keeps a head that differs from the embeddings apart, which the engine does not. */
const REFUSED = 'tied-with-another-head';

describe('a model folder', () => {
  it('has every case that transformers was asked about', () => {
    expect(Object.keys(cases)).toEqual(
      readdirSync(FOLDERS)
        .filter((name) => name !== 'expected.json')
        .sort(),
    );
  });

  it.each(Object.keys(cases).filter((name) => name !== REFUSED))('%s', async (name) => {
    const { logprobs, unread } = cases[name] as { logprobs: number[]; unread: string[] };
    const found = await read(join(FOLDERS, name));
    expect(found.logprobs).toHaveLength(logprobs.length);
    logprobs.forEach((value, i) => {
      expect(Math.abs((found.logprobs[i] ?? Number.NaN) - value)).toBeLessThan(2e-5);
    });
    for (const tensor of unread) expect(found.notices.join()).toContain(tensor);
    expect(found.notices).toHaveLength(unread.length === 0 ? 0 : 1);
  });

  it('that ties its embeddings to a head of other values', async () => {
    await expect(read(join(FOLDERS, REFUSED))).rejects.toThrow(
      /config\.json: ties the embeddings, .* lm_head\.weight that differs from them\. Set tie_word_embeddings/,
    );
  });

  it("of the hub's cache, where every file is a link", async () => {
    const cached = join(temporary, 'models--org--name');
    const snapshot = join(cached, 'snapshots', 'abc');
    mkdirSync(join(cached, 'blobs'), { recursive: true });
    mkdirSync(snapshot, { recursive: true });
    for (const name of readdirSync(join(FOLDERS, 'sharded'))) {
      cpSync(join(FOLDERS, 'sharded', name), join(cached, 'blobs', `${name.length}`));
      symlinkSync(join('..', '..', 'blobs', `${name.length}`), join(snapshot, name));
    }
    const link = join(temporary, 'link');
    symlinkSync(snapshot, link);
    expect((await read(link)).logprobs).toEqual((await read(join(FOLDERS, 'sharded'))).logprobs);
  });
});

describe('a model folder is refused', () => {
  const folder = join(temporary, 'refused');
  const configured = (change: Record<string, unknown>) => {
    cpSync(join(FOLDERS, 'sharded'), folder, { recursive: true });
    const config = join(folder, 'config.json');
    const json = JSON.parse(readFileSync(config, 'utf8')) as Record<string, unknown>;
    writeFileSync(config, JSON.stringify({ ...json, ...change }));
    return () => readModelConfig(folder);
  };
  const rope = { rope_type: 'default', rope_theta: 1e4 };

  it.each([
    ['quantized weights', { quantization_config: { quant_method: 'fp8' } }, 'quantized weights (fp8)'],
    ['quantized weights', { compression_config: { format: 'int' } }, 'quantized weights (compressed)'],
    [
      'partial rotary',
      { rope_parameters: { ...rope, partial_rotary_factor: 0.5 } },
      'partial_rotary_factor 0.5',
    ],
    ['partial rotary', { partial_rotary_factor: 0.25 }, 'partial_rotary_factor 0.25'],
    [
      'rotary embeddings by layer',
      { rope_parameters: { full_attention: rope, sliding_attention: rope } },
      'rope_parameters.full_attention is for some of the layers',
    ],
    ['weights under another name', { transformers_weights: 'other.safetensors' }, 'transformers_weights'],
  ])('for %s: %j', (_, change, message) => {
    expect(configured(change)).toThrow('config.json: ');
    expect(configured(change)).toThrow(message);
  });

  it('with an adapter beside the model', async () => {
    configured({});
    const adapter = join(folder, 'adapter_config.json');
    writeFileSync(adapter, '{"base_model_name_or_path": "org/other"}');
    await expect(read(folder)).rejects.toThrow(/adapter_config\.json: transformers reads another model/);
    rmSync(adapter);
  });

  it('not for a rotary factor of 1 or an empty quantization_config', () => {
    const change = { rope_parameters: { ...rope, partial_rotary_factor: 1 }, quantization_config: null };
    expect(configured(change)).not.toThrow();
  });
});
