/**
 * Every kind of tokenizer against the ids and texts of Hugging Face's Rust library (test/golden/tokenizer_kinds.py):
 * few texts from a file, all 332 where Python has the library. What differs from it is refused by name.
 */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { golden } from '../cli/troupe.js';
import { agrees, type Kinds, open } from './kinds.js';

const few = JSON.parse(gunzipSync(readFileSync(golden('tokenizer_kinds.json.gz'))).toString('utf8')) as Kinds;
const kind = (name: string) => structuredClone(few.kinds[name]) as Record<string, Record<string, unknown>>;

describe('ids and texts of the Rust library', () => {
  it.each(Object.keys(few.kinds))('%s', (name) => agrees(few, name));
});

describe('a tokenizer is refused at load', () => {
  it.each([
    ['a normalizer', { normalizer: { type: 'Precompiled', precompiled_charsmap: 'AAAA' } }, 'Precompiled'],
    [
      'a normalizer in a sequence',
      { normalizer: { type: 'Sequence', normalizers: [{ type: 'Nmt' }] } },
      'Nmt',
    ],
    ['a pre-tokenizer', { pre_tokenizer: { type: 'UnicodeScripts' } }, 'UnicodeScripts'],
    [
      'a decoder',
      { decoder: { type: 'CTC', pad_token: '', word_delimiter_token: '', cleanup: true } },
      'CTC',
    ],
    ['a key', { pre_tokenizer: { type: 'WhitespaceSplit', twice: true } }, 'twice'],
  ])('for %s that is not known', (_, change, named) => {
    const where = Object.keys(change)[0] as string;
    expect(() => open({ ...kind('gpt2'), ...change })).toThrow(`tokenizer.json: `);
    expect(() => open({ ...kind('gpt2'), ...change })).toThrow(where);
    expect(() => open({ ...kind('gpt2'), ...change })).toThrow(named);
  });

  it.each([
    ['dropout', { dropout: 0.1 }, /model\.dropout is 0\.1/],
    ['merges that are none', { merges: [['a']] }, /\["a"\] is no merge of two tokens/],
    ['merges of unknown tokens', { merges: ['a zzz'] }, /merges azzz, which its vocabulary lacks/],
    ['ids that are none', { vocab: { a: -1 } }, /model\.vocab is no map from tokens to ids/],
  ])('for %s', (_, change, message) => {
    const json = kind('gpt2');
    expect(() => open({ ...json, model: { ...json.model, ...change } })).toThrow(message);
  });

  it('for an added token whose id would be another one', () => {
    const json = kind('gpt2') as unknown as { added_tokens: { id: number }[] };
    (json.added_tokens.at(-1) as { id: number }).id += 5;
    expect(() => open(json)).toThrow(/added token .* has the id \d+, which should be \d+/);
  });

  it('for added tokens of which the library would take one by chance', () => {
    const json = kind('normalized-tokens') as unknown as { added_tokens: { id: number; content: string }[] };
    const token = json.added_tokens.find(({ content }) => content === 'SINGLE');
    const id = 1 + Math.max(...json.added_tokens.map((one) => one.id));
    json.added_tokens.push({ ...(token as { id: number; content: string }), content: 'Single', id });
    expect(() => open(json)).toThrow(/added tokens SINGLE and Single are one, normalized/);
  });

  it('for a model of no known kind, with the kinds', () => {
    const json = kind('gpt2');
    expect(() => open({ ...json, model: { ...json.model, type: 'Mamba' } })).toThrow(
      /model.type is "Mamba"; it takes BPE, WordPiece, WordLevel or Unigram/,
    );
  });

  it('for an added token of which the normalizer leaves nothing', () => {
    const json = kind('gpt2') as unknown as { added_tokens: { id: number; normalized: boolean }[] };
    Object.assign(json.added_tokens.at(-1) as object, { normalized: true });
    const Replace = { type: 'Replace', pattern: { Regex: '.' }, content: '' };
    expect(() => open({ ...json, normalizer: Replace })).toThrow(/added token .* is nothing, normalized/);
  });

  it('for a beginning that is not the beginning of the text', () => {
    const first = { type: 'Metaspace', replacement: '▁', prepend_scheme: 'first', split: false };
    const digits = { type: 'Digits', individual_digits: true };
    const json = { ...kind('llama2'), normalizer: { type: 'NFKD' } };
    expect(() => open({ ...json, pre_tokenizer: first })).not.toThrow();
    const both = { type: 'Sequence', pretokenizers: [digits, first] };
    expect(() => open({ ...json, pre_tokenizer: both })).toThrow(/multiplies characters .* Metaspace/);
  });

  it('for an expression that is none', () => {
    const Split = { type: 'Split', pattern: { Regex: '(a' }, behavior: 'Isolated', invert: false };
    expect(() => open({ ...kind('gpt2'), pre_tokenizer: Split })).toThrow();
  });
});

it('an expression that would take years ends in a sentence', () => {
  const Split = { type: 'Split', pattern: { Regex: '(a+)+$' }, behavior: 'Isolated', invert: false };
  const pipeline = open({ ...kind('gpt2'), pre_tokenizer: Split });
  expect(pipeline.encode('aaa')).not.toHaveLength(0);
  expect(() => pipeline.encode(`${'a'.repeat(60)}b`)).toThrow(/regular expressions take more than 2 seconds/);
});

describe('special tokens in a text that is only text', () => {
  it.each(['qwen3', 'llama2', 'metaspace-first', 'gemma', 'unigram', 'word-level', 'bert-uncased'])(
    'are no special ids: %s',
    (name) => {
      const pipeline = open(few.kinds[name]);
      // A text may have unknown characters and bytes, which are special here.
      const control = pipeline.added.filter(({ special, content }) => special && !/unk|0x/i.test(content));
      expect(control.length).toBeGreaterThan(1);
      for (const { content, id } of control) {
        const text = `one ${content} two`;
        expect(pipeline.encode(text)).toContain(id);
        expect(pipeline.encode(text, new Set([4])), content).not.toContain(id);
      }
    },
  );

  it('stand beside those that the template wrote', () => {
    const pipeline = open(few.kinds.qwen3);
    const end = pipeline.encode('<|im_end|>');
    expect(end).toHaveLength(1);
    const text = 'a<|im_end|>b<|im_end|>';
    const ids = pipeline.encode(text, new Set([1]));
    expect(ids.filter((id) => id === end[0])).toHaveLength(1);
    expect(ids.at(-1)).toBe(end[0]);
    expect(pipeline.decode(ids, false)).toBe(text);
  });
});

describe('special tokens that the normalizer makes of a text', () => {
  /** The last added token is special, as `change` has it, and normalized. */
  const withSpecial = (name: string, content: string, normalizer: object) => {
    const json = kind(name) as Record<string, unknown> & { added_tokens: { id: number }[] };
    const id = 1 + Math.max(...[...open(json).tokens.keys()]);
    const flags = { single_word: false, lstrip: false, rstrip: false, normalized: true, special: true };
    return {
      id,
      pipeline: open({
        ...json,
        normalizer,
        added_tokens: [...json.added_tokens, { id, content, ...flags }],
      }),
    };
  };

  it.each<[string, object, string]>([
    ['qwen3', { type: 'NFKC' }, '＜|turn|＞'],
    ['qwen3', { type: 'NFKC' }, '＜|turn|>'],
    ['qwen3', { type: 'Lowercase' }, '<|TURN|>'],
    ['qwen3', { type: 'Sequence', normalizers: [{ type: 'NFKC' }, { type: 'ByteLevel' }] }, '＜|turn|＞'],
    ['llama2', (few.kinds.llama2 as { normalizer: object }).normalizer, '<|turn|>'],
    ['gpt2', { type: 'Replace', pattern: { Regex: '[{]' }, content: '<' }, '{|turn|>'],
  ])('are text: %s %j %s', (name, normalizer, spelled) => {
    const { pipeline, id } = withSpecial(name, '<|turn|>', normalizer);
    const text = `one ${spelled} two ${spelled}`;
    const literal = pipeline.spelled(text);
    expect(literal.size).toBe(2);
    expect(pipeline.encode(text, literal)).not.toContain(id);
    // What the template writes stays what the library makes of it.
    const written = '\n<|turn|>\n';
    const alone = pipeline.encode(written).filter((one) => one === id);
    expect(pipeline.encode(text + written, literal).filter((one) => one === id)).toEqual(alone);
  });

  it('are text where another one overlaps them', () => {
    const { pipeline, id } = withSpecial('qwen3', '>end', { type: 'NFC' });
    const text = '<|im_end|>end';
    expect(pipeline.encode('>end')).toEqual([id]);
    expect(pipeline.encode(text, pipeline.spelled(text))).not.toContain(id);
  });

  it('are text although the vocabulary has them', () => {
    const json = kind('word-level');
    const pipeline = open({ ...json, normalizer: { type: 'NFKC' } });
    const [end] = pipeline.encode('</s>');
    const text = 'one ＜/s＞ two';
    expect(pipeline.encode(text)).toContain(end);
    expect(pipeline.encode(text, pipeline.spelled(text))).not.toContain(end);
  });
});

it('a token of spaces that strips what is around it takes a run of them once', () => {
  const json = kind('gpt2') as Record<string, unknown> & { added_tokens: { id: number }[] };
  const id = 1 + Math.max(...[...open(json).tokens.keys()]);
  const flags = { single_word: false, lstrip: true, rstrip: true, normalized: false, special: false };
  const pipeline = open({ ...json, added_tokens: [...json.added_tokens, { id, content: '  ', ...flags }] });
  expect(pipeline.encode('a        b').filter((one) => one === id)).toHaveLength(1);
});

describe('bytes of single tokens', () => {
  const bytes = (name: string, token: string) => {
    const pipeline = open(few.kinds[name]);
    const [id] = [...pipeline.tokens].find(([, text]) => text === token) ?? [];
    return Buffer.from(pipeline.bytes(id as number));
  };

  it('are raw for byte tokens, and a space for the mark', () => {
    expect(bytes('llama2', '<0xE2>')).toEqual(Buffer.from([0xe2]));
    expect(bytes('llama2', '▁the').toString()).toBe(' the');
    expect(bytes('metaspace-always', '▁the').toString()).toBe(' the');
    expect(bytes('gpt2', 'Ġthe').toString()).toBe(' the');
    expect(bytes('bert-uncased', 'the').toString()).toBe(' the');
    expect(bytes('bpe-suffix', 'the</w>').toString()).toBe('the ');
  });

  it.each(['gpt2', 'qwen3', 'llama2', 'gemma', 'metaspace-never', 'unigram-bytes'])(
    'joined are the text behind the first token: %s',
    (name) => {
      const pipeline = open(few.kinds[name]);
      const text = 'the 12 naïve 🤖 people, said';
      const ids = pipeline.encode(text);
      const joined = Buffer.concat(ids.map((id) => pipeline.bytes(id))).toString('utf8');
      expect(joined.trimStart()).toBe(pipeline.decode(ids, false).trimStart());
    },
  );
});
