/** Decoders of tokenizer.json: the text of tokens. Each turns a list of pieces into another. */
import { BYTE_OF } from './characters.js';
import { Pattern } from './pattern.js';
import { prependScheme } from './pre-tokenizers.js';
import type { DecoderJson } from './schema.js';

export interface Decoder {
  decode(tokens: string[]): string[];
  /** Bytes that a token inside a text stands for; a part of a character is possible. */
  bytes(token: string | Uint8Array): string | Uint8Array;
  /** Whether an expression in it may take time without end. */
  unbounded: boolean;
}

/** A decoder that treats every token by itself, whatever stands before it. */
function each(change: (token: string) => string, unbounded = false): Decoder {
  return {
    decode: (tokens) => tokens.map(change),
    bytes: (token) => (typeof token === 'string' ? change(token) : token),
    unbounded,
  };
}

/** Each takes what the one before it made. */
export function createDecoder(json: readonly DecoderJson[]): Decoder {
  const parts = json.map(create);
  return {
    decode: (tokens) => parts.reduce((found, part) => part.decode(found), tokens),
    bytes: (token) => parts.reduce((found, part) => part.bytes(found), token),
    unbounded: parts.some((part) => part.unbounded),
  };
}

function create(json: DecoderJson): Decoder {
  switch (json.type) {
    case 'ByteLevel':
      return byteLevel;
    case 'ByteFallback':
      return byteFallback;
    case 'Metaspace': {
      const space = (token: string) => token.replaceAll(json.replacement, ' ');
      if (prependScheme(json) === 'never') return each(space);
      const decode = (tokens: string[]) =>
        tokens.map((token, i) => (i === 0 ? token.replaceAll(json.replacement, '') : space(token)));
      return { ...each(space), decode };
    }
    case 'Replace': {
      const pattern = new Pattern(json.pattern);
      return each((token) => pattern.replace(token, json.content), pattern.unbounded);
    }
    case 'Fuse':
      return { ...each((token) => token), decode: (tokens) => [tokens.join('')] };
    case 'Strip':
      // Behind Fuse, as everywhere, it sees the whole text: no token by itself.
      return { ...each((token) => token), decode: (tokens) => tokens.map((token) => strip(token, json)) };
    case 'WordPiece':
      return wordPiece(json.prefix, json.cleanup);
    case 'BPEDecoder': {
      const change = (token: string, last: boolean) =>
        json.suffix === '' ? token : token.replaceAll(json.suffix, last ? '' : ' ');
      const decode = (tokens: string[]) => tokens.map((token, i) => change(token, i === tokens.length - 1));
      return { ...each((token) => change(token, false)), decode };
    }
  }
}

function asText(bytes: Uint8Array): string {
  return new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes);
}

/** A token with a character outside GPT-2's table stands for its own UTF-8. */
function spelledBytes(token: string): Uint8Array {
  const bytes: number[] = [];
  for (const character of token) {
    const byte = BYTE_OF.get(character);
    if (byte === undefined) return Buffer.from(token, 'utf8');
    bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}

const byteLevel: Decoder = {
  decode: (tokens) => [asText(Buffer.concat(tokens.map(spelledBytes)))],
  bytes: (token) => (typeof token === 'string' ? spelledBytes(token) : token),
  unbounded: false,
};

/** Rust reads a sign in a number of two digits too: <0x+5>. */
const BYTE_TOKEN = /^<0x([0-9A-Fa-f]{2}|\+[0-9A-Fa-f])>$/;

function byteOf(token: string): number | undefined {
  const digits = BYTE_TOKEN.exec(token)?.[1];
  return digits === undefined ? undefined : Number.parseInt(digits, 16);
}

const byteFallback: Decoder = {
  decode(tokens) {
    const found: string[] = [];
    let bytes: number[] = [];
    const flush = () => {
      if (bytes.length > 0) found.push(...decoded(Uint8Array.from(bytes)));
      bytes = [];
    };
    for (const token of tokens) {
      const byte = byteOf(token);
      if (byte === undefined) {
        flush();
        found.push(token);
      } else bytes.push(byte);
    }
    flush();
    return found;
  },
  bytes(token) {
    const byte = typeof token === 'string' ? byteOf(token) : undefined;
    return byte === undefined ? token : Uint8Array.of(byte);
  },
  unbounded: false,
};

/** Their text, or a replacement character for each where they are not one. */
function decoded(bytes: Uint8Array): string[] {
  try {
    return [new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)];
  } catch {
    return Array.from(bytes, () => '\uFFFD');
  }
}

function strip(token: string, json: Extract<DecoderJson, { type: 'Strip' }>): string {
  const characters = [...token];
  let start = 0;
  while (start < Math.min(json.start, characters.length) && characters[start] === json.content) start++;
  let end = characters.length;
  while (end > start && characters.length - end < json.stop && characters[end - 1] === json.content) end--;
  return characters.slice(start, end).join('');
}

const CLEANED: [string, string][] = [
  [' .', '.'],
  [' ?', '?'],
  [' !', '!'],
  [' ,', ','],
  [" ' ", "'"],
  [" n't", "n't"],
  [" 'm", "'m"],
  [' do not', " don't"],
  [" 's", "'s"],
  [" 've", "'ve"],
  [" 're", "'re"],
];

function wordPiece(prefix: string, cleanup: boolean): Decoder {
  const cleaned = (text: string) =>
    cleanup ? CLEANED.reduce((result, [from, to]) => result.replaceAll(from, to), text) : text;
  const inside = (token: string) => (token.startsWith(prefix) ? token.slice(prefix.length) : ` ${token}`);
  return {
    ...each((token) => cleaned(inside(token))),
    decode: (tokens) => tokens.map((token, i) => cleaned(i === 0 ? token : inside(token))),
  };
}
