/** Pre-tokenizers of tokenizer.json: a text in pieces, none of which a token crosses. */
import { NUMERIC, PUNCTUATION, spellBytes, WHITE_SPACE, WORD } from './characters.js';
import { characterStretches, GPT2, inverted, Pattern, type Stretch, split } from './pattern.js';
import type { Behavior, MetaspaceJson, PreTokenizerJson } from './schema.js';

export interface Piece {
  text: string;
  /** It begins where the whole text begins. */
  first: boolean;
}

export interface PreTokenizer {
  split(piece: Piece): Piece[];
  /** Whether an expression in it may take time without end. */
  unbounded: boolean;
  /** Whether the beginning of a text matters to it. */
  asksForFirst: boolean;
  /** Whether it does so of pieces that another one split. */
  asksBehindSplit: boolean;
}

/** The pieces that stretches of a text are; empty ones are dropped. */
function pieces({ text, first }: Piece, stretches: readonly Stretch[]): Piece[] {
  return stretches
    .filter(({ start, end }) => end > start)
    .map(({ start, end }) => ({ text: text.slice(start, end), first: first && start === 0 }));
}

type Splitting = (piece: Piece) => Piece[];
const plain = (splitting: Splitting): PreTokenizer => ({
  split: splitting,
  unbounded: false,
  asksForFirst: false,
  asksBehindSplit: false,
});
const atCharacters = (characters: RegExp, behavior: Behavior): Splitting => {
  return (piece) => pieces(piece, split(characterStretches(piece.text, characters), behavior));
};

/** Each splits what the one before it made. */
export function createPreTokenizer(json: readonly PreTokenizerJson[]): PreTokenizer {
  const parts = json.map(create);
  return {
    split: (piece) => parts.reduce((found, part) => found.flatMap(part.split), [piece]),
    unbounded: parts.some((part) => part.unbounded),
    asksForFirst: parts.some((part) => part.asksForFirst),
    asksBehindSplit: parts.slice(1).some((part) => part.asksForFirst),
  };
}

function create(json: PreTokenizerJson): PreTokenizer {
  switch (json.type) {
    case 'ByteLevel':
      return plain(byteLevel(json.add_prefix_space, json.use_regex));
    case 'Metaspace':
      return { ...plain(metaspace(json)), asksForFirst: prependScheme(json) === 'first' };
    case 'Whitespace': {
      const words = new RegExp(`[${WORD}]+|[^${WORD}\\p{White_Space}]+`, 'gu');
      return plain((piece) =>
        pieces(piece, split(inverted(characterStretches(piece.text, words)), 'Removed')),
      );
    }
    case 'WhitespaceSplit':
      return plain(atCharacters(WHITE_SPACE, 'Removed'));
    case 'BertPreTokenizer': {
      const words = atCharacters(WHITE_SPACE, 'Removed');
      const marks = atCharacters(PUNCTUATION, 'Isolated');
      return plain((piece) => words(piece).flatMap(marks));
    }
    case 'Digits':
      return plain(atCharacters(NUMERIC, json.individual_digits ? 'Isolated' : 'Contiguous'));
    case 'Punctuation':
      return plain(atCharacters(PUNCTUATION, json.behavior));
    case 'CharDelimiterSplit': {
      const delimiter = new Pattern({ String: json.delimiter });
      return plain((piece) => pieces(piece, split(delimiter.stretches(piece.text), 'Removed')));
    }
    case 'Split': {
      const pattern = new Pattern(json.pattern);
      const splitting: Splitting = (piece) => {
        const found = pattern.stretches(piece.text);
        return pieces(piece, split(json.invert ? inverted(found) : found, json.behavior));
      };
      return { ...plain(splitting), unbounded: pattern.unbounded };
    }
  }
}

function byteLevel(prefixSpace: boolean, useRegex: boolean): Splitting {
  const words = new Pattern({ Regex: GPT2 });
  return (piece) => {
    const prefixed = prefixSpace && !piece.text.startsWith(' ');
    const text = prefixed ? ` ${piece.text}` : piece.text;
    const found = useRegex ? pieces({ ...piece, text }, words.stretches(text)) : [{ ...piece, text }];
    return found.map(({ text: word, first }) => ({ text: spellBytes(word), first }));
  };
}

/** Files from before prepend_scheme have add_prefix_space; where both are, they agree (the library refuses others). */
export function prependScheme(json: MetaspaceJson): 'always' | 'first' | 'never' {
  return json.prepend_scheme ?? (json.add_prefix_space === false ? 'never' : 'always');
}

function metaspace(json: MetaspaceJson): Splitting {
  const { replacement } = json;
  const scheme = prependScheme(json);
  const mark = new Pattern({ String: replacement });
  return (piece) => {
    let text = piece.text.replaceAll(' ', () => replacement);
    const prepend = scheme === 'always' || (scheme === 'first' && piece.first);
    if (prepend && !text.startsWith(replacement)) text = replacement + text;
    const whole = { ...piece, text };
    return json.split ? pieces(whole, split(mark.stretches(text), 'MergedWithNext')) : [whole];
  };
}
