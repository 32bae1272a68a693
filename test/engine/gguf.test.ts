/**
 * GGUF: values against gguf's own dequantisation, imported models against transformers on the same weights (the way
 * back from llama.cpp's order of q and k rows included), what a damaged file is told, and the tokenizer. The files
 * come from test/golden/gguf_models.py.
 */
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { GgufFile, halfToNumber } from '../../src/engine/gguf.js';
import { importGguf, toBfloat16 } from '../../src/engine/gguf-model.js';
import { Tokenizer } from '../../src/engine/tokenizer.js';
import { golden, json } from '../cli/troupe.js';
import { readSafetensors } from '../model/support.js';

const temporary = mkdtempSync(join(tmpdir(), 'troupe-gguf-'));
afterAll(() => rmSync(temporary, { recursive: true, force: true }));

const expected = JSON.parse(readFileSync(golden('gguf/expected.json'), 'utf8')) as {
  ids: number[][];
  llama: number[][];
  qwen3: number[][];
};

describe('values', () => {
  it.each(['F32', 'F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_1'])("of %s are gguf's to the bit", (type) => {
    const file = new GgufFile(golden('gguf/blocks.gguf'));
    try {
      const tensor = file.tensors.find(({ name }) => name === type);
      expect(tensor).toMatchObject({ type, shape: [3, 64] });
      const wanted = readSafetensors(golden('gguf/blocks.safetensors')).get(type)?.data;
      // Negative zero is zero: gguf multiplies whole arrays.
      const values = tensor === undefined ? [] : file.read(tensor);
      expect(Array.from(values, (value) => value + 0)).toEqual(
        Array.from(wanted ?? [], (value) => value + 0),
      );
    } finally {
      file.close();
    }
  });

  it('in half precision: ordinary, subnormal, infinite and no number', () => {
    const numbers = [0x3c00, 0xc000, 0x0001, 0x7bff, 0x7c00, 0xfc00].map(halfToNumber);
    expect(numbers).toEqual([1, -2, 2 ** -24, 65504, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]);
    expect(halfToNumber(0x7e00)).toBeNaN();
  });

  it('round to bfloat16 to the nearest, ties to even, and keep what is no number', () => {
    const bits = [0x3f800000, 0x3f808000, 0x3f818000, 0x3f808001, 0x7fc00001, 0x7fffffff, 0xff800000];
    const values = new Float32Array(Uint32Array.from(bits).buffer);
    expect(Array.from(toBfloat16(values))).toEqual([0x3f80, 0x3f80, 0x3f82, 0x3f81, 0x7fc0, 0x7fc0, 0xff80]);
  });
});

describe('an imported model', () => {
  it.each(['llama', 'qwen3'] as const)("gives transformers' log-probabilities (%s)", async (family) => {
    const folder = join(temporary, family);
    importGguf(golden(`gguf/${family}.gguf`), folder, { dtype: 'float32' });
    const ids = join(temporary, 'ids.json');
    writeFileSync(ids, JSON.stringify(expected.ids));
    const { logprobs } = await json<{ logprobs: number[][] }>([
      'score',
      folder,
      '--ids',
      ids,
      '--dtype',
      'float32',
    ]);
    for (const [i, values] of expected[family].entries()) {
      expect(logprobs[i]).toHaveLength(values.length);
      for (const [k, value] of values.entries()) {
        expect(Math.abs((logprobs[i]?.[k] ?? Number.NaN) - value)).toBeLessThan(1e-4);
      }
    }
  });

  it('is a whole Hugging Face folder with its tokenizer', () => {
    const folder = join(temporary, 'whole');
    importGguf(golden('gguf/llama.gguf'), folder, { dtype: 'bfloat16' });
    expect(readdirSync(folder).sort()).toEqual([
      'chat_template.jinja',
      'config.json',
      'generation_config.json',
      'model.safetensors',
      'tokenizer.json',
      'tokenizer_config.json',
    ]);
    const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')) as Record<string, unknown>;
    expect(config).toMatchObject({
      model_type: 'llama',
      rope_theta: 50_000,
      rms_norm_eps: 1e-5,
      tie_word_embeddings: true,
      torch_dtype: 'bfloat16',
      eos_token_id: 2,
    });
    const tokenizer = Tokenizer.load(folder);
    const ids = tokenizer.encode('ABCD<|im_end|>A');
    expect(ids).toEqual([63, 2, 35]);
    expect(tokenizer.decode(ids, { skipSpecialTokens: false })).toBe('ABCD<|im_end|>A');
    expect([...tokenizer.endTokens]).toContain(2);
  });
});

/** One value, an array of 2²⁵ bytes: a number here takes eight. */
function manyNumbers(): Buffer {
  const numbers = (values: number[]) => Buffer.from(Uint32Array.from(values).buffer);
  const [ARRAY, UINT8] = [9, 0];
  const header = [Buffer.from('GGUF'), numbers([3, 0, 0, 1, 0, 1, 0]), Buffer.from('x')];
  return Buffer.concat([...header, numbers([ARRAY, UINT8, 2 ** 25, 0]), Buffer.alloc(2 ** 25)]);
}

describe('a damaged file is refused with its name, and leaves nothing behind', () => {
  const whole = readFileSync(golden('gguf/llama.gguf'));
  const patched = (from: string, to: string) => {
    const at = whole.indexOf(from);
    const copy = Buffer.from(whole);
    copy.write(to, at, 'latin1');
    return copy;
  };
  it.each([
    ['cut in its weights', whole.subarray(0, whole.length - 200), 'is cut'],
    ['cut in its header', whole.subarray(0, 600), 'is damaged'],
    ['empty', Buffer.alloc(0), 'header'],
    ['with an array that would fill the memory', manyNumbers(), 'holds more than 16777216 values'],
    ['no GGUF', Buffer.from('a text file, and no model'), 'no GGUF file'],
    [
      'of another version',
      Buffer.concat([whole.subarray(0, 4), Buffer.from([9, 0, 0, 0]), whole.subarray(8)]),
      'version 9',
    ],
    ['of another architecture', patched('\u0005\0\0\0\0\0\0\0llama', '\u0005\0\0\0\0\0\0\0gemma'), 'gemma'],
    ['without a key', patched('llama.block_count', 'llama.block_xxxxx'), 'llama.block_count'],
    ['with an unknown tensor', patched('blk.0.attn_q.weight', 'blk.0.attn_z.weight'), 'blk.0.attn_z.weight'],
    ['with another pre-tokenizer', patched('smollm', 'smollx'), 'smollx'],
  ])('%s', (_what, bytes, message) => {
    const file = join(temporary, 'damaged.gguf');
    writeFileSync(file, bytes);
    const folder = join(temporary, 'damaged');
    expect(() => importGguf(file, folder, { dtype: 'float32' })).toThrow(message);
    expect(() => importGguf(file, folder, { dtype: 'float32' })).toThrow('damaged.gguf');
    expect(existsSync(folder)).toBe(false);
    expect(readdirSync(temporary).filter((name) => name.includes('partial'))).toEqual([]);
  });
});

it.each([
  ['.', 'is a folder. Name a file.'],
  ['nowhere.gguf', 'no such file or folder. Check the path.'],
])('%s is a sentence', (name, message) => {
  const path = join(temporary, name);
  expect(() => new GgufFile(path)).toThrow(`${path}: ${message}`);
});

it('a file that is cut while it is open is refused', () => {
  const path = join(temporary, 'shrinks.gguf');
  copyFileSync(golden('gguf/llama.gguf'), path);
  const file = new GgufFile(path);
  try {
    truncateSync(path, statSync(path).size - 200);
    const last = [...file.tensors].reduce((a, b) => (b.offset > a.offset ? b : a));
    expect(() => file.read(last)).toThrow('was cut short');
  } finally {
    file.close();
  }
});
