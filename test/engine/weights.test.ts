/** Model folders that are not whole or not right: one sentence that names file and tensor, no stack, exit code 1. */
import {
  cpSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { readModelConfig } from '../../src/engine/configuration.js';
import { fails, golden, json } from '../cli/troupe.js';

const temporary = mkdtempSync(join(tmpdir(), 'troupe-weights-'));
afterAll(() => rmSync(temporary, { recursive: true, force: true }));
const folder = join(temporary, 'model');
const weights = join(folder, 'model.safetensors');
const config = join(folder, 'config.json');
const ids = join(temporary, 'ids.json');
const TENSOR = 'model.layers.1.mlp.up_proj.weight';

beforeEach(() => {
  rmSync(folder, { recursive: true, force: true });
  cpSync(golden('models/qwen3-tied'), folder, { recursive: true });
  writeFileSync(ids, '[[1, 2, 3]]');
});

const refused = async (...parts: string[]) => {
  const message = await fails(['score', folder, '--ids', ids], parts);
  expect(message.trim().split('\n')).toHaveLength(1);
};

type Header = Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;

/** Writes the weights anew with another header, or with other bytes of a tensor. */
function rewrite(change: (header: Header, data: Buffer) => void): void {
  const file = readFileSync(weights);
  const length = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString('utf8', 8, 8 + length)) as Header;
  const data = Buffer.from(file.subarray(8 + length));
  change(header, data);
  const text = Buffer.from(JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(text.length));
  writeFileSync(weights, Buffer.concat([size, text, data]));
}

function rename(header: Header, from: string, to: string): void {
  header[to] = header[from] as Header[string];
  delete header[from];
}

function configure(change: Record<string, unknown>): void {
  const before = JSON.parse(readFileSync(config, 'utf8')) as Record<string, unknown>;
  writeFileSync(config, JSON.stringify({ ...before, ...change }));
}

describe('weights', () => {
  it('that are not there', async () => {
    unlinkSync(weights);
    await refused(weights, 'no such file');
  });

  it.each([5000, 100, 4, 0])('cut after %i bytes', async (bytes) => {
    truncateSync(weights, bytes);
    await refused(weights);
  });

  it('of another shape', async () => {
    configure({ intermediate_size: 24 });
    await refused(weights, 'model.layers.0.mlp.gate_proj.weight has shape [20,24]', '[24,24]');
  });

  it('of another dtype', async () => {
    rewrite((header) => {
      (header[TENSOR] as Header[string]).dtype = 'I16';
    });
    await refused(weights, TENSOR, 'I16', 'float32');
  });

  it.each([
    ['not a number', 0x7fc0],
    ['infinite', 0x7f80],
  ])('of which one is %s', async (_what, bits) => {
    rewrite((header, data) => data.writeUInt16LE(bits, (header[TENSOR]?.data_offsets[0] ?? 0) + 64));
    await refused(weights, TENSOR, 'not finite');
  });

  it('of which one is missing, or has another name', async () => {
    rewrite((header) => rename(header, TENSOR, 'model.layers.1.mlp.up.weight'));
    await refused(folder, `missing ${TENSOR}`, 'unknown model.layers.1.mlp.up.weight');
  });

  it('in shards of which one is missing or lacks a tensor', async () => {
    const names = Object.keys(JSON.parse(JSON.stringify(headerOf(weights)))).filter(
      (n) => n !== '__metadata__',
    );
    const map = Object.fromEntries(names.map((name) => [name, 'model-00001-of-00002.safetensors']));
    const shard = (number: number) => join(folder, `model-0000${number}-of-00002.safetensors`);
    renameSync(weights, shard(1));
    const index = (changed: Record<string, string>) =>
      writeFileSync(
        join(folder, 'model.safetensors.index.json'),
        JSON.stringify({ weight_map: { ...map, ...changed } }),
      );
    index({});
    expect((await json<{ logprobs: number[][] }>(['score', folder, '--ids', ids])).logprobs[0]).toHaveLength(
      2,
    );
    index({ [TENSOR]: 'model-00002-of-00002.safetensors' });
    await refused('model-00002-of-00002.safetensors', 'no such file');
    cpSync(shard(1), weights);
    rewrite((header) => rename(header, TENSOR, 'another'));
    renameSync(weights, shard(2));
    await refused('model-00002-of-00002.safetensors', TENSOR);
  });
});

function headerOf(file: string): Header {
  const bytes = readFileSync(file);
  return JSON.parse(bytes.toString('utf8', 8, 8 + Number(bytes.readBigUInt64LE(0)))) as Header;
}

describe('config.json', () => {
  it.each([
    ['hidden_size', 2 ** 20],
    ['num_hidden_layers', 16_000],
    ['vocab_size', 2 ** 24],
  ])('that describes more than the weights hold: %s %i', async (key, value) => {
    configure({ [key]: value });
    await refused(config, 'parameters; the weights beside it have');
  });

  it('that is not there, or no JSON', async () => {
    unlinkSync(config);
    await refused(config, 'no such file');
    writeFileSync(config, '{');
    await refused(config, 'no JSON');
  });

  it('of an unknown family', async () => {
    writeFileSync(config, '{"model_type": "gpt2"}');
    await refused(config, 'model_type is "gpt2"', 'qwen3, qwen2 or llama');
  });

  it.each(['vocab_size', 'hidden_size', 'num_hidden_layers', 'intermediate_size'])(
    'without %s',
    async (key) => {
      configure({ [key]: undefined });
      await refused(config, `${key} is missing`);
    },
  );

  it.each([
    ['hidden_size', -1, 'hidden_size'],
    ['hidden_size', 1e12, 'hidden_size is 1000000000000'],
    ['head_dim', 1e9, 'head_dim is 1000000000'],
    ['num_key_value_heads', 3, 'do not divide'],
    ['head_dim', 7, 'even'],
    ['hidden_act', 'gelu', 'hidden_act'],
    ['rope_parameters', { rope_type: 'longrope', rope_theta: 1e4 }, 'longrope'],
    ['rope_parameters', { rope_type: 'linear', rope_theta: 1e4 }, 'factor is missing'],
  ])('with %s: %j', (key, value, part) => {
    configure({ [key]: value });
    expect(() => readModelConfig(folder)).toThrow(part);
    expect(() => readModelConfig(folder)).toThrow(config);
  });

  it.each([['llama-untied-bias-llama3'], ['llama-tied-linear'], ['qwen3-untied-yarn'], ['llama-tied-9-3']])(
    "gives transformers' frequencies in the spelling of transformers 5 and 4 (%s)",
    (name) => {
      const source = golden(`models/${name}`);
      const { config: wanted } = JSON.parse(readFileSync(join(source, 'expected.json'), 'utf8')) as {
        config: { inverseFrequencies: number[]; ropeScaling: number };
      };
      cpSync(source, folder, { recursive: true });
      const check = () => {
        const read = readModelConfig(folder);
        read.inverseFrequencies.forEach((value, i) => {
          expect(Math.abs(value / (wanted.inverseFrequencies[i] ?? Number.NaN) - 1)).toBeLessThan(1e-6);
        });
        expect(read.ropeScaling).toBeCloseTo(wanted.ropeScaling, 6);
        return read;
      };
      const five = check();
      const json = JSON.parse(readFileSync(config, 'utf8')) as Record<string, unknown>;
      const { rope_theta, rope_type, ...scaling } = json.rope_parameters as Record<string, unknown>;
      const { rope_parameters: _five, dtype, ...rest } = json;
      const old = rope_type === 'default' ? null : { ...scaling, rope_type };
      writeFileSync(config, JSON.stringify({ ...rest, rope_theta, rope_scaling: old, torch_dtype: dtype }));
      expect(check()).toEqual(five);
      // Older still: `type` for `rope_type`.
      if (old !== null) {
        writeFileSync(
          config,
          JSON.stringify({ ...rest, rope_theta, rope_scaling: { ...scaling, type: rope_type } }),
        );
        expect(check()).toEqual(five);
      }
    },
  );
});
