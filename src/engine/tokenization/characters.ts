/** Classes of characters as the Rust library has them, and GPT-2's spelling of bytes. */
import { byteCharacters } from '../token-bytes.js';

export const WHITE_SPACE = /\p{White_Space}/gu;
export const NUMERIC = /\p{N}/gu;
export const PUNCTUATION = /[\p{P}!-/:-@[-`{-~]/gu;
/** \w of Rust's regular expressions. */
export const WORD = String.raw`\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}`;

const BYTES = byteCharacters();
export const BYTE_OF: ReadonlyMap<string, number> = new Map(
  BYTES.map((character, byte) => [character, byte]),
);

/** A text with every byte of its UTF-8 spelled as a printable character. */
export function spellBytes(text: string): string {
  let spelled = '';
  for (const byte of Buffer.from(text, 'utf8')) spelled += BYTES[byte];
  return spelled;
}
