/**
 * tokenizer.json as Hugging Face's tokenizers 0.23 writes it. Objects are strict: a kind or a key that is not listed
 * here would change ids without being noticed, so it is refused by name. The post-processor is not read: special tokens
 * come from the chat template alone; nor are truncation and padding, which transformers sets itself.
 */
import { z } from 'zod';

const text = z.string();
const flag = z.boolean();
const character = z
  .string()
  .refine((value) => [...value].length === 1)
  .meta({ takes: 'one character' });
const id = z
  .int()
  .min(0)
  .max(2 ** 31 - 1);

const pattern = z.union([z.strictObject({ String: text }), z.strictObject({ Regex: text })]);
export type PatternJson = z.output<typeof pattern>;

const simple = <T extends string>(type: T) => z.strictObject({ type: z.literal(type) });
const replace = z.strictObject({ type: z.literal('Replace'), pattern, content: text });

const byteLevel = z.strictObject({
  type: z.literal('ByteLevel'),
  add_prefix_space: flag.default(true),
  trim_offsets: flag.default(true),
  use_regex: flag.default(true),
});

const metaspace = z.strictObject({
  type: z.literal('Metaspace'),
  replacement: character,
  str_rep: text.optional(),
  add_prefix_space: flag.optional(),
  prepend_scheme: z.enum(['always', 'first', 'never']).optional(),
  split: flag.default(true),
});
export type MetaspaceJson = z.output<typeof metaspace>;

const normalizer = z.discriminatedUnion('type', [
  simple('NFC'),
  simple('NFD'),
  simple('NFKC'),
  simple('NFKD'),
  simple('Lowercase'),
  simple('StripAccents'),
  simple('ByteLevel'),
  z.strictObject({ type: z.literal('Strip'), strip_left: flag, strip_right: flag }),
  z.strictObject({ type: z.literal('Prepend'), prepend: text }),
  replace,
  z.strictObject({
    type: z.literal('BertNormalizer'),
    clean_text: flag,
    handle_chinese_chars: flag,
    strip_accents: flag.nullish(),
    lowercase: flag,
  }),
]);
export type NormalizerJson = z.output<typeof normalizer>;

const behavior = z.enum(['Removed', 'Isolated', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous']);
export type Behavior = z.output<typeof behavior>;

const preTokenizer = z.discriminatedUnion('type', [
  byteLevel,
  metaspace,
  simple('Whitespace'),
  simple('WhitespaceSplit'),
  simple('BertPreTokenizer'),
  z.strictObject({ type: z.literal('Digits'), individual_digits: flag }),
  z.strictObject({ type: z.literal('Punctuation'), behavior: behavior.default('Isolated') }),
  z.strictObject({ type: z.literal('CharDelimiterSplit'), delimiter: character }),
  z.strictObject({ type: z.literal('Split'), pattern, behavior, invert: flag }),
]);
export type PreTokenizerJson = z.output<typeof preTokenizer>;

const decoder = z.discriminatedUnion('type', [
  byteLevel,
  metaspace,
  replace,
  simple('ByteFallback'),
  simple('Fuse'),
  z.strictObject({ type: z.literal('Strip'), content: character, start: id, stop: id }),
  z.strictObject({ type: z.literal('WordPiece'), prefix: text, cleanup: flag }),
  z.strictObject({ type: z.literal('BPEDecoder'), suffix: text }),
]);
export type DecoderJson = z.output<typeof decoder>;

/** By hand: there are hundreds of thousands of tokens. */
const vocabulary = z.custom<Record<string, number>>(isVocabulary, {
  error: 'is no map from tokens to ids, whole numbers.',
});
/** Checked one by one by the model. */
const merges = z.array(z.unknown());

const bpe = z.strictObject({
  type: z.literal('BPE'),
  dropout: z.literal(0).nullish(),
  unk_token: text.nullish(),
  continuing_subword_prefix: text.nullish(),
  end_of_word_suffix: text.nullish(),
  fuse_unk: flag.default(false),
  byte_fallback: flag.default(false),
  ignore_merges: flag.default(false),
  vocab: vocabulary,
  merges,
});
export type BpeJson = z.output<typeof bpe>;

const wordPiece = z.strictObject({
  type: z.literal('WordPiece'),
  unk_token: text,
  continuing_subword_prefix: text,
  max_input_chars_per_word: z.int().min(0),
  vocab: vocabulary,
});
export type WordPieceJson = z.output<typeof wordPiece>;

const wordLevel = z.strictObject({ type: z.literal('WordLevel'), unk_token: text, vocab: vocabulary });
export type WordLevelJson = z.output<typeof wordLevel>;

const unigram = z.strictObject({
  type: z.literal('Unigram'),
  unk_id: id.nullish(),
  byte_fallback: flag.default(false),
  vocab: z.array(z.tuple([text, z.number()])),
});
export type UnigramJson = z.output<typeof unigram>;

const model = z.discriminatedUnion('type', [bpe, wordPiece, wordLevel, unigram]);
export type ModelJson = z.output<typeof model>;

const addedToken = z.looseObject({
  id,
  content: text,
  single_word: flag,
  lstrip: flag,
  rstrip: flag,
  normalized: flag,
  special: flag,
});
export type AddedTokenJson = z.output<typeof addedToken>;

export const tokenizerSchema = z.looseObject({
  added_tokens: z.array(addedToken).default([]),
  normalizer: z.array(normalizer),
  pre_tokenizer: z.array(preTokenizer),
  decoder: z.array(decoder).nullable(),
  model,
});
export type TokenizerJson = z.output<typeof tokenizerSchema>;

function isVocabulary(value: unknown): boolean {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
  return Object.values(value).every((one) => Number.isInteger(one) && one >= 0 && one < 2 ** 31);
}

/** The file as the schema takes it: a sequence, of sequences too, is a list, and a model has a type. */
export function prepared(json: unknown): unknown {
  if (typeof json !== 'object' || json === null) return json;
  const { normalizer, pre_tokenizer, decoder, model, ...rest } = json as Record<string, unknown>;
  return {
    ...rest,
    normalizer: listed(normalizer, 'normalizers'),
    pre_tokenizer: listed(pre_tokenizer, 'pretokenizers'),
    // Without a decoder tokens are joined by spaces, with an empty sequence by nothing.
    decoder: decoder == null ? null : listed(decoder, 'decoders'),
    model: withType(model),
  };
}

function listed(part: unknown, key: string): unknown[] {
  if (part == null) return [];
  const { type, [key]: parts } = part as Record<string, unknown>;
  return type === 'Sequence' && Array.isArray(parts) ? parts.flatMap((one) => listed(one, key)) : [part];
}

/** Files from before models had a type, by what they hold. */
function withType(model: unknown): unknown {
  if (typeof model !== 'object' || model === null || 'type' in model) return model;
  if (Array.isArray((model as { vocab?: unknown }).vocab)) return { type: 'Unigram', ...model };
  if ('merges' in model) return { type: 'BPE', ...model };
  return { type: 'max_input_chars_per_word' in model ? 'WordPiece' : 'WordLevel', ...model };
}
