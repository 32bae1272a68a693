/** Tokenizers with the ids and texts that the Rust library makes (test/golden/tokenizer_kinds.py). */
import { expect } from 'vitest';
import { checkSection } from '../../src/config/check.js';
import { Pipeline } from '../../src/engine/tokenization/pipeline.js';
import { prepared, tokenizerSchema } from '../../src/engine/tokenization/schema.js';

export interface Kinds {
  kinds: Record<string, Record<string, unknown>>;
  texts: string[];
  ids: Record<string, (number[] | null)[]>;
  decoded: Record<string, (string | null)[]>;
  skipped: Record<string, (string | null)[]>;
}

export const open = (json: unknown) =>
  new Pipeline(
    checkSection(tokenizerSchema, prepared(json), { whole: 'it', locate: () => 'tokenizer.json' }),
  );

/** null where the library refuses a text. */
function attempt<T>(use: () => T): T | null {
  try {
    return use();
  } catch {
    return null;
  }
}

export function agrees(found: Kinds, name: string): void {
  const pipeline = open(found.kinds[name]);
  const differences = found.texts.flatMap((text, i): object[] => {
    const ids = found.ids[name]?.[i] ?? null;
    const ours = attempt(() => pipeline.encode(text));
    if (JSON.stringify(ours) !== JSON.stringify(ids)) return [{ text, ours, ids }];
    if (ids === null) return [];
    const texts = [pipeline.decode(ids, false), pipeline.decode(ids, true)];
    const wanted = [found.decoded[name]?.[i], found.skipped[name]?.[i]];
    return texts.every((one, j) => one === wanted[j]) ? [] : [{ text, texts, wanted }];
  });
  expect(differences).toEqual([]);
}
