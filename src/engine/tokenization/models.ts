/** Models of tokenizer.json: the ids of one piece. Byte-pair encoding and Unigram have files of their own. */
import { Bpe } from './bpe.js';
import type { ModelJson, WordLevelJson, WordPieceJson } from './schema.js';
import { Unigram } from './unigram.js';

export interface Model {
  /** Ids of tokens by text. */
  readonly vocabulary: ReadonlyMap<string, number>;
  ids(piece: string): readonly number[];
}

export function createModel(json: ModelJson): Model {
  switch (json.type) {
    case 'BPE':
      return new Bpe(json);
    case 'Unigram':
      return new Unigram(json);
    case 'WordPiece':
      return wordPiece(json);
    case 'WordLevel':
      return wordLevel(json);
  }
}

/** The longest token first, then the longest that goes on from there. */
function wordPiece(json: WordPieceJson): Model {
  const vocabulary = new Map(Object.entries(json.vocab));
  const { continuing_subword_prefix: prefix, max_input_chars_per_word: most } = json;
  const longest = longestOf(vocabulary.keys());
  const ids = (piece: string) => {
    const characters = [...piece];
    if (characters.length > most) return [unknown(vocabulary, json.unk_token)];
    const found: number[] = [];
    for (let start = 0; start < characters.length; ) {
      let end = Math.min(characters.length, start + longest);
      let id: number | undefined;
      for (; end > start; end--) {
        const text = characters.slice(start, end).join('');
        id = vocabulary.get(start > 0 ? prefix + text : text);
        if (id !== undefined) break;
      }
      if (id === undefined) return [unknown(vocabulary, json.unk_token)];
      found.push(id);
      start = end;
    }
    return found;
  };
  return { vocabulary, ids };
}

function wordLevel(json: WordLevelJson): Model {
  const vocabulary = new Map(Object.entries(json.vocab));
  return { vocabulary, ids: (piece) => [vocabulary.get(piece) ?? unknown(vocabulary, json.unk_token)] };
}

function unknown(vocabulary: ReadonlyMap<string, number>, token: string): number {
  const id = vocabulary.get(token);
  if (id !== undefined) return id;
  throw new Error(`its vocabulary lacks its unknown token ${token}, which a text needs`);
}

/** Characters of the longest text. */
function longestOf(texts: Iterable<string>): number {
  let longest = 0;
  for (const text of texts) longest = Math.max(longest, text.length);
  return longest;
}
