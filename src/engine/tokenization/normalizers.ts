/** Normalizers of tokenizer.json: what is done to a text before it is split. */
import { spellBytes } from './characters.js';
import { Pattern } from './pattern.js';
import type { NormalizerJson } from './schema.js';

export interface Normalizer {
  normalize(text: string): string;
  /** Whether an expression in it may take time without end. */
  unbounded: boolean;
  /** Whether it may drop the beginning of a text. */
  drops: boolean;
  /** Whether it may make several characters of one. */
  spreads: boolean;
  /** What a mark (marks.ts) becomes. */
  mark(mark: string): string;
}

const plain = (normalize: (text: string) => string, drops = false): Normalizer => ({
  normalize,
  unbounded: false,
  drops,
  spreads: false,
  mark: (mark) => mark,
});

/** One after the other. */
export function createNormalizer(json: readonly NormalizerJson[]): Normalizer {
  const parts = json.map(create);
  return {
    normalize: (text) => parts.reduce((result, part) => part.normalize(result), text),
    unbounded: parts.some((part) => part.unbounded),
    drops: parts.some((part) => part.drops),
    spreads: parts.some((part) => part.spreads),
    mark: (mark) => parts.reduce((result, part) => part.mark(result), mark),
  };
}

function create(json: NormalizerJson): Normalizer {
  switch (json.type) {
    case 'NFC':
    case 'NFD':
    case 'NFKC':
    case 'NFKD':
      return { ...plain((text) => text.normalize(json.type)), spreads: true };
    case 'Lowercase':
      return { ...plain(lowercase), spreads: true };
    case 'StripAccents':
      return plain((text) => text.replace(/\p{M}/gu, ''), true);
    case 'ByteLevel':
      return { ...plain(spellBytes), spreads: true, mark: spellBytes };
    case 'Strip': {
      const left = json.strip_left ? /^\p{White_Space}+/u : /^(?!)/u;
      const right = json.strip_right ? /\p{White_Space}/u : undefined;
      return plain((text) => stripRight(text.replace(left, ''), right), json.strip_left);
    }
    case 'Prepend':
      return { ...plain((text) => (text === '' ? '' : json.prepend + text)), spreads: true };
    case 'Replace': {
      const pattern = new Pattern(json.pattern);
      const { unbounded } = pattern;
      return {
        ...plain((text) => pattern.replace(text, json.content), json.content === ''),
        unbounded,
        spreads: json.content.length > 1,
      };
    }
    case 'BertNormalizer':
      return plain((text) => bert(text, json), true);
  }
}

/** Character by character: a final sigma is none to tokenizers. */
const lowercase = (text: string) =>
  text.replace(/[A-Z]|[^\0-\x7f]/gu, (character) => character.toLowerCase());

/** Not by an expression, which would look again from every space. */
function stripRight(text: string, space: RegExp | undefined): string {
  let end = text.length;
  while (space !== undefined && end > 0 && space.test(text.charAt(end - 1))) end--;
  return text.slice(0, end);
}

const HAN =
  /[\u{4E00}-\u{9FFF}\u{3400}-\u{4DBF}\u{20000}-\u{2A6DF}\u{2A700}-\u{2B73F}\u{2B740}-\u{2B81F}\u{2B920}-\u{2CEAF}\u{F900}-\u{FAFF}\u{2F800}-\u{2FA1F}]/gu;

function bert(text: string, json: Extract<NormalizerJson, { type: 'BertNormalizer' }>): string {
  let result = text;
  if (json.clean_text) {
    result = result
      .replace(/[\0\uFFFD]|(?![\t\n\r])[\p{Cc}\p{Cf}\p{Co}]/gu, '')
      .replace(/\p{White_Space}/gu, ' ');
  }
  if (json.handle_chinese_chars) result = result.replace(HAN, ' $& ');
  if (json.strip_accents ?? json.lowercase) result = result.normalize('NFD').replace(/\p{Mn}/gu, '');
  return json.lowercase ? lowercase(result) : result;
}
