/**
 * `troupe score` and `troupe generate`: the values against transformers (test/golden/models.py) and against each
 * other, the JSON that programs read, and what bad input is told.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { readSafetensors } from '../model/support.js';
import { fails, golden, json, troupe } from './troupe.js';

interface Samples {
  samples: { ids: number[]; text: string; logprobs: number[]; finish: string }[];
}

const model = golden('models/qwen3-tied');
const small = 'troupe-0.3m';
const folder = mkdtempSync(join(tmpdir(), 'troupe-models-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function file(content: unknown): string {
  const path = join(folder, 'ids.json');
  writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content));
  return path;
}

describe('score', () => {
  it.each(['qwen3-tied', 'llama-untied-bias-llama3'])(
    "gives transformers' log-probabilities of %s",
    async (name) => {
      const folder = golden(`models/${name}`);
      const { sequences, prompt } = JSON.parse(readFileSync(join(folder, 'expected.json'), 'utf8')) as {
        sequences: number[][];
        prompt: number;
      };
      const expected = readSafetensors(join(folder, 'expected.safetensors')).get('logprobs')?.data;
      const result = await json<{ logprobs: number[][] }>([
        'score',
        folder,
        '--ids',
        file(sequences),
        '--dtype',
        'float32',
      ]);
      expect(Object.keys(result)).toEqual(['logprobs']);
      expect(result.logprobs.map(({ length }) => length)).toEqual(sequences.map(({ length }) => length - 1));
      const scored = result.logprobs.flatMap((values) => values.slice(prompt - 1));
      expect(scored).toHaveLength(expected?.length ?? -1);
      scored.forEach((value, i) => {
        expect(Math.abs(value - (expected?.[i] ?? Number.NaN))).toBeLessThan(1e-4);
      });
    },
  );

  it('of a list of one token is empty, and of one list alone a list', async () => {
    expect(await json(['score', model, '--ids', file([[1], [2, 3]])])).toMatchObject({
      logprobs: [[], [expect.any(Number)]],
    });
    expect(
      (await json<{ logprobs: number[][] }>(['score', model, '--ids', file([1, 2, 3])])).logprobs,
    ).toHaveLength(1);
  });

  it('takes a sequence as long as the model', async () => {
    const result = await json<{ logprobs: number[][] }>([
      'score',
      model,
      '--ids',
      file([new Array(64).fill(5)]),
    ]);
    expect(result.logprobs[0]).toHaveLength(63);
  });

  it('of text gives its ids too', async () => {
    const result = await json<{ logprobs: number[][]; ids: number[][] }>(['score', small, '--text', '2+3=5']);
    expect(result.ids[0]?.length).toBe((result.logprobs[0]?.length ?? 0) + 1);
  });

  it.each([
    ['no JSON', 'xx', ['no JSON']],
    ['nothing', '', ['no JSON']],
    ['an empty list', '[]', ['the file is []', 'a list of lists of token ids']],
    ['an empty inner list', '[[1, 2], []]', ['[1] is []']],
    ['words', '[["a"]]', ['[0][0] is "a"']],
    ['fractions', '[[1.5]]', ['[0][0] is 1.5']],
    ['negative ids', '[[-1]]', ['[0][0] is -1']],
    ['ids beyond the vocabulary', '[[1], [2, 61]]', ['[1][1] is 61', '0 to 60']],
    [
      'a sequence that is too long',
      JSON.stringify([new Array(65).fill(1)]),
      ['[0]', '65 tokens', '64 at most'],
    ],
  ])('refuses %s', async (_what, text, parts) => {
    await fails(['score', model, '--ids', file(text)], ['ids.json', ...parts]);
  });

  it('refuses a file that is not there, a folder, and a model that is not there', async () => {
    await fails(['score', model, '--ids', join(folder, 'none.json')], ['none.json', 'no such file']);
    await fails(['score', model, '--ids', folder], [folder, 'is a folder. Name a file.']);
    await fails(['score', 'no-such-model', '--ids', file([[1]])], ['no-such-model', 'smollm2-135m']);
    await fails(['score', folder, '--ids', file([[1]])], [join(folder, 'config.json'), 'no such file']);
    await fails(['score', model, '--ids', file([[1]]), '--device', 'xpu'], ['xpu', 'cuda:N']);
  });
});

describe('generate', () => {
  it('gives samples whose log-probabilities are those that score gives', async () => {
    const prompt = [55, 46, 56];
    const args = ['--ids', file([prompt]), '--samples', '3', '--max-tokens', '6', '--seed', '4'];
    const { samples } = await json<Samples>([
      'generate',
      small,
      ...args,
      '--temperature',
      '1',
      '--dtype',
      'float32',
    ]);
    expect(samples).toHaveLength(3);
    for (const sample of samples) {
      expect(Object.keys(sample)).toEqual(['ids', 'text', 'logprobs', 'finish']);
      expect(['stop', 'length']).toContain(sample.finish);
      expect(sample.ids.length).toBeLessThanOrEqual(6);
    }
    const { logprobs } = await json<{ logprobs: number[][] }>([
      'score',
      small,
      '--ids',
      file(samples.map(({ ids }) => [...prompt, ...ids])),
    ]);
    for (const [i, sample] of samples.entries()) {
      const scored = logprobs[i]?.slice(prompt.length - 1) ?? [];
      expect(scored).toHaveLength(sample.logprobs.length);
      for (const [k, value] of scored.entries()) expect(sample.logprobs[k]).toBeCloseTo(value, 3);
    }
  });

  it('repeats itself with a seed and differs with another', async () => {
    const sample = async (seed: string) => {
      const args = ['--prompt', '2+3', '--temperature', '5', '--max-tokens', '8', '--seed', seed];
      return (await json<Samples>(['generate', small, ...args])).samples[0]?.ids;
    };
    expect(await sample('1')).toEqual(await sample('1'));
    expect(await sample('1')).not.toEqual(await sample('2'));
  });

  it('prints text alone for people', () => {
    const { status, stdout } = troupe(['generate', small, '--prompt', '2+3', '--temperature', '0']);
    expect(status).toBe(0);
    expect(stdout).not.toContain('{');
  });

  it.each([
    ['--samples', '0', 'whole number'],
    ['--max-tokens', '1.5', 'whole number'],
    ['--max-tokens', '100000', '2048 together'],
    ['--temperature', '-1', 'from 0'],
    ['--top-p', '0', 'above 0'],
    ['--top-k', '-1', 'from 0'],
    ['--min-p', '2', '0 to 1'],
    ['--seed', '-1', 'from 0'],
  ])('refuses %s %s', async (option, value, takes) => {
    await fails(['generate', small, '--prompt', 'a', `${option}=${value}`], [option, takes]);
  });

  it('refuses prompts that do not fit, ids beyond the vocabulary, and a model without a tokenizer', async () => {
    await fails(['generate', small, '--prompt', 'x'.repeat(3000)], ['prompt', 'tokens', '2048 at most']);
    await fails(['generate', small, '--ids', file([[9999]])], ['[0][0] is 9999']);
    await fails(['generate', small, '--prompt', '', '--raw'], ['--prompt', 'empty']);
    await fails(
      ['generate', model, '--ids', file([[1]]), '--max-tokens', '3'],
      ['tokenizer.json', 'no such file'],
    );
  });
});

describe('a wrong command line ends with exit code 2 and one sentence', () => {
  it.each([
    [['score'], ['missing', 'troupe score --help']],
    [['score', 'x'], ['--ids FILE or --text TEXT']],
    [['score', 'x', '--ids', 'a', '--text', 'b'], ['mutually exclusive']],
    [
      ['score', 'x', '--ids', 'a', '--dtype', 'int8'],
      ['dtype', 'float32'],
    ],
    [['score', 'x', '--idz', 'a'], ['idz']],
    [['generate', 'x'], ['--prompt TEXT or --ids FILE']],
    [['generate', 'x', '--ids', 'a', '--raw'], ['--raw']],
    [['gradients', 'x'], ['calls']],
    [
      ['init', 'x', '--shape', 'gpt-2'],
      ['shape', 'qwen3-0.6b'],
    ],
    [['grade', 'x'], ['task']],
    [['trian'], ['train']],
    [[], ['Which command']],
  ])('%j', async (args, parts) => {
    await fails(args, parts, 2);
  });
});
