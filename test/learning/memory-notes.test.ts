/** What a run says of memory: how much its cache holds, where that becomes less, and passes that memory ran out in. */
import { expect, it } from 'vitest';
import { memoryNotes } from '../../src/learning/notices.js';

it('tells the tokens of the cache once, and again where they have become a tenth fewer than those told of', () => {
  const told: string[] = [];
  let tokens = 0;
  for (const [step, cacheTokens] of [0, 12_000, 11_500, 10_900, 10_700, 12_000, 5000].entries()) {
    const none = { memoryRestarts: 0 };
    const { notes, toldTokens } = memoryNotes(step, tokens, none, { ...none, cacheTokens });
    tokens = toldTokens;
    told.push(...notes);
  }
  expect(told).toEqual([
    'the KV cache holds 12,000 tokens',
    'step 4: the KV cache holds 10,700 tokens now, and held 12,000: less memory was free',
    'step 6: the KV cache holds 5,000 tokens now, and held 10,700: less memory was free',
  ]);
});

it('counts passes that memory ran out in since the step before', () => {
  const now = { memoryRestarts: 5, cacheTokens: 0 };
  expect(memoryNotes(3, 0, { memoryRestarts: 3 }, now).notes).toEqual([
    'step 3: memory ran out 2 times in rollouts or passes without gradients, which went on with less at a time, or without recorded steps',
  ]);
  expect(memoryNotes(3, 0, now, now).notes).toEqual([]);
});
