/**
 * A tokenizer for small models: every byte is a token, digits stand alone, and a given list of whole words are one
 * token each, so that prompts of a few words are a few tokens long. Chat template as Qwen's. It reads any text.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { byteCharacters } from './token-bytes.js';

/** Ids 0, 1, 2. The last one ends a turn. */
const SPECIAL = ['<|endoftext|>', '<|im_start|>', '<|im_end|>'];
export const END_OF_TEXT = 0;
export const END_OF_TURN = 2;

/** Words of the chat template, of the prompts in configs/prompts/small and of mini-programs. */
export const SMALL_WORDS = [
  ...['system', 'user', 'assistant', 'plan', 'by', 'so', 'pick', 'ok', 'yes', 'no', 'a', 'b', 'c', 'd'],
  ...['=', '?', ';', 'add', 'subtract', 'times', 'to', 'each', 'reverse', 'sort', 'keep', 'above', 'below'],
  ...['sum', 'count', 'largest', 'smallest', 'first', 'last', 'def', 'return', 'sorted', 'len', 'max', 'min'],
  ...['for', 'in', 'if', 'x', 'v'],
];

const CHAT_TEMPLATE = `{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
`;

/** Tokens by id: special ones, the 256 bytes, then the words with and without a space before them. */
export function smallVocabulary(words: readonly string[]): string[] {
  const bytes = byteCharacters();
  const spell = (word: string) => Array.from(new TextEncoder().encode(word), (byte) => bytes[byte]).join('');
  const spelled = words.flatMap((word) => [spell(word), spell(` ${word}`)]);
  return [...new Set([...SPECIAL, ...bytes, ...spelled])];
}

/**
 * tokenizer.json: byte-level BPE without merges, in which a word of the vocabulary is taken whole
 * (`ignore_merges`) and everything else falls apart into bytes.
 */
function tokenizerJson(words: readonly string[]): unknown {
  const vocabulary = smallVocabulary(words);
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true };
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: SPECIAL.map((content, id) => ({ id, content, ...flags })),
    normalizer: null,
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [{ type: 'Digits', individual_digits: true }, byteLevel],
    },
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: true,
      vocab: Object.fromEntries(vocabulary.map((token, id) => [token, id])),
      merges: [],
    },
  };
}

/** Writes tokenizer.json, tokenizer_config.json and chat_template.jinja. */
export function writeSmallTokenizer(folder: string, words: readonly string[]): void {
  const write = (name: string, value: unknown) =>
    writeFileSync(join(folder, name), `${JSON.stringify(value, null, 2)}\n`);
  write('tokenizer.json', tokenizerJson(words));
  write('tokenizer_config.json', {
    tokenizer_class: 'PreTrainedTokenizerFast',
    clean_up_tokenization_spaces: false,
    eos_token: SPECIAL[END_OF_TURN],
    pad_token: SPECIAL[END_OF_TEXT],
  });
  writeFileSync(join(folder, 'chat_template.jinja'), CHAT_TEMPLATE);
}
