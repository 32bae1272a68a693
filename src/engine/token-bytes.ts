/** The bytes that every token id stands for, for stop strings; GPT-2's spelling of bytes as printable characters. */

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
export function tokenBytes(bytesOf: (id: number) => Uint8Array, size: number): TokenBytes {
  const parts = Array.from({ length: size }, (_, id) => bytesOf(id));
  const offsets = new Int32Array(size + 1);
  for (const [id, part] of parts.entries()) offsets[id + 1] = (offsets[id] ?? 0) + part.length;
  const bytes = new Uint8Array(offsets[size] ?? 0);
  for (const [id, part] of parts.entries()) bytes.set(part, offsets[id]);
  return { bytes, offsets };
}
