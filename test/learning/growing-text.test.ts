/** Fails if a text that is streamed token by token is another one than the text of all its tokens. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { GrowingText } from '../../src/learning/serving/growing-text.js';
import { golden } from '../cli/troupe.js';
import { type Kinds, open } from '../engine/kinds.js';

const { kinds, texts, ids } = JSON.parse(
  gunzipSync(readFileSync(golden('tokenizer_kinds.json.gz'))).toString('utf8'),
) as Kinds;

describe('tokens that come one after another', () => {
  it.each(Object.keys(kinds))('of %s', (name) => {
    const pipeline = open(kinds[name]);
    const decode = (some: Int32Array) => pipeline.decode(some, true);
    for (const [i, text] of texts.entries()) {
      const growing = new GrowingText(decode);
      let soFar = '';
      for (const id of ids[name]?.[i] ?? []) {
        const next = growing.add([id]);
        expect(next.startsWith(soFar), JSON.stringify({ text, soFar, next })).toBe(true);
        soFar = next;
      }
      const whole = decode(Int32Array.from(ids[name]?.[i] ?? []));
      expect(growing.whole()).toBe(whole);
      expect(whole.startsWith(soFar), JSON.stringify({ text, soFar, whole })).toBe(true);
    }
  });

  it('wait for the rest of a character, and no longer', () => {
    const bytes = [0x61, 0xf0, 0x9f, 0x98, 0x80, 0x62];
    const growing = new GrowingText((some) => Buffer.from(Uint8Array.from(some)).toString());
    expect(bytes.map((byte) => growing.add([byte]))).toEqual(['a', 'a', 'a', 'a', 'a😀', 'a😀b']);
  });
});
