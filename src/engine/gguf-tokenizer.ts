/** The tokenizer that a GGUF file carries, as tokenizer.json: byte-level BPE with the pre-tokenizers in use. */
import { TroupeError } from '../config/errors.js';
import type { GgufFile, GgufValue } from './gguf.js';

export interface GgufTokenizer {
  /** tokenizer.json */
  json: Record<string, unknown>;
  /** tokenizer_config.json */
  config: Record<string, unknown>;
  chatTemplate: string | undefined;
}

/** ggml's token types. */
const CONTROL = 3;
const USER_DEFINED = 4;

const byteLevel = (useRegex: boolean) => ({
  type: 'ByteLevel',
  add_prefix_space: false,
  trim_offsets: true,
  use_regex: useRegex,
});

/** Splits words, digits (one to `digits` at a time), punctuation and white space, as GPT-4's and Qwen's do. */
const split = (digits: string) => ({
  type: 'Split',
  pattern: {
    Regex: `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`,
  },
  behavior: 'Isolated',
  invert: false,
});

const sequence = (...pretokenizers: unknown[]) => ({ type: 'Sequence', pretokenizers });

interface PreTokenizer {
  preTokenizer: unknown;
  normalizer: unknown;
  ignoreMerges: boolean;
}

/** By llama.cpp's name (tokenizer.ggml.pre). */
const PRE_TOKENIZERS: Record<string, PreTokenizer> = {
  smollm: {
    preTokenizer: sequence({ type: 'Digits', individual_digits: true }, byteLevel(true)),
    normalizer: null,
    ignoreMerges: false,
  },
  qwen2: {
    preTokenizer: sequence(split(''), byteLevel(false)),
    normalizer: { type: 'NFC' },
    ignoreMerges: false,
  },
  'llama-bpe': {
    preTokenizer: sequence(split('{1,3}'), byteLevel(false)),
    normalizer: null,
    ignoreMerges: true,
  },
};

export function ggufTokenizer(file: GgufFile): GgufTokenizer {
  const { metadata, path } = file;
  const fail = (message: string) => new TroupeError(message, { where: path });
  const model = metadata.get('tokenizer.ggml.model');
  if (model !== 'gpt2')
    throw fail(`has a tokenizer of kind ${String(model)}; byte-level BPE (gpt2) can be imported.`);
  const pre = String(metadata.get('tokenizer.ggml.pre'));
  const found = PRE_TOKENIZERS[pre];
  if (found === undefined) {
    throw fail(`has the pre-tokenizer ${pre}; ${Object.keys(PRE_TOKENIZERS).join(', ')} can be imported.`);
  }
  const tokens = texts(metadata.get('tokenizer.ggml.tokens'), fail);
  const merges = texts(metadata.get('tokenizer.ggml.merges'), fail);
  const types = metadata.get('tokenizer.ggml.token_type');
  const typeOf = (id: number) => (Array.isArray(types) ? types[id] : undefined);
  const added = tokens.flatMap((content, id) => {
    const special = typeOf(id) === CONTROL;
    if (!special && typeOf(id) !== USER_DEFINED) return [];
    return [{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special }];
  });
  const named = (key: string) => {
    const id = metadata.get(`tokenizer.ggml.${key}_token_id`);
    return id === undefined ? undefined : tokens[Number(id)];
  };
  const json = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: added,
    normalizer: found.normalizer,
    pre_tokenizer: found.preTokenizer,
    post_processor: null,
    decoder: byteLevel(true),
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: found.ignoreMerges,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: merges.map((merge) => merge.split(' ')),
    },
  };
  const template = metadata.get('tokenizer.chat_template');
  return {
    json,
    config: tokenizerConfig(named),
    chatTemplate: typeof template === 'string' ? template : undefined,
  };
}

function tokenizerConfig(named: (key: string) => string | undefined): Record<string, unknown> {
  const entries = [
    ['bos_token', named('bos')],
    ['eos_token', named('eos')],
    ['unk_token', named('unknown')],
    ['pad_token', named('padding')],
  ].filter(([, token]) => token !== undefined);
  return {
    tokenizer_class: 'PreTrainedTokenizerFast',
    clean_up_tokenization_spaces: false,
    add_prefix_space: false,
    ...Object.fromEntries(entries),
  };
}

function texts(value: GgufValue | undefined, fail: (message: string) => TroupeError): string[] {
  if (!Array.isArray(value) || value.some((item) => typeof item !== 'string')) {
    throw fail('has no list of tokens and merges in its metadata.');
  }
  return value as string[];
}
