/**
 * The bytes that every token id stands for. Byte-level BPE spells bytes as printable characters (GPT-2's table);
 * special and added tokens are their own text.
 */

/** GPT-2's table, by byte: printable Latin-1 characters are themselves, the other bytes follow from U+0100 on. */
export function byteCharacters(): string[] {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    return String.fromCharCode(printable ? byte : next++);
  });
}

export interface TokenBytes {
  /** All tokens' bytes, one after another. */
  bytes: Uint8Array;
  /** [vocabulary + 1] */
  offsets: Int32Array;
}

/** `size`: ids that the model has, of which the tokenizer may name fewer. */
export function tokenBytes(
  vocabulary: ReadonlyMap<number, string>,
  added: ReadonlyMap<number, string>,
  size: number,
): TokenBytes {
  const table = new Map(byteCharacters().map((character, byte) => [character, byte]));
  const encoder = new TextEncoder();
  const parts: Uint8Array[] = [];
  const offsets = new Int32Array(size + 1);
  for (let id = 0; id < size; id++) {
    const text = added.get(id);
    const token = vocabulary.get(id) ?? '';
    const bytes = text === undefined ? spelled(token, table) : encoder.encode(text);
    parts.push(bytes);
    offsets[id + 1] = (offsets[id] ?? 0) + bytes.length;
  }
  const bytes = new Uint8Array(offsets[size] ?? 0);
  for (const [id, part] of parts.entries()) bytes.set(part, offsets[id]);
  return { bytes, offsets };
}

function spelled(token: string, table: ReadonlyMap<string, number>): Uint8Array {
  const bytes = [...token].map((character) => table.get(character));
  // A token outside the table is not byte-level: its text is what it stands for.
  if (bytes.includes(undefined)) return new TextEncoder().encode(token);
  return Uint8Array.from(bytes as number[]);
}
