import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { microBatches, orderByGroup } from '../../src/engine/micro-batches.js';
import type { TrainCall } from '../../src/engine/types.js';

const call = (prompt: number[], length: number, group = 0): TrainCall => ({
  prompt: Int32Array.from(prompt),
  response: new Int32Array(length),
  rolloutLogprobs: new Float32Array(length),
  temperature: 1,
  advantage: 1,
  weight: 1,
  group,
});

/** Rows of a micro-batch: each prompt of a group once. */
function rows(batch: readonly TrainCall[]): number {
  const prompts = new Map(batch.map(({ group, prompt }) => [`${group}:${prompt}`, prompt.length]));
  return [...prompts.values(), ...batch.map(({ response }) => response.length)].reduce((a, b) => a + b, 0);
}

describe('micro-batches', () => {
  it('are of nearly equal size', () => {
    const calls = Array.from({ length: 12 }, (_, i) => call([i, i], 8));
    expect(microBatches(calls, 100).map((batch) => batch.length)).toEqual([6, 6]);
    expect(microBatches(calls, 120).map((batch) => batch.length)).toEqual([12]);
  });

  it('count a prompt once for each group that shares it', () => {
    const prompt = [1, 2, 3, 4, 5];
    const calls = [call(prompt, 1), call(prompt, 1), call(prompt, 1, 1), call(prompt, 1, 1)];
    expect(microBatches(calls, 14)).toHaveLength(1);
    expect(microBatches(calls, 13).map((batch) => batch.length)).toEqual([2, 2]);
  });

  it('add to few groups each, in order of the groups', () => {
    const calls = fc.array(fc.tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 0, max: 4 })));
    fc.assert(
      fc.property(calls, fc.integer({ min: 10, max: 60 }), (made, most) => {
        const all = made.map(([length, group], i) => call([i], length, group));
        const order = orderByGroup(all);
        expect([...order].sort((a, b) => a - b)).toEqual([...all.keys()]);
        const batches = microBatches(
          order.map((index) => all[index] as TrainCall),
          most,
        );
        const added = batches.map((batch) => new Set(batch.map(({ group }) => group)).size);
        const groups = new Set(made.map(([, group]) => group)).size;
        const bound = groups + Math.max(0, batches.length - 1);
        expect(added.reduce((sum, count) => sum + count, 0)).toBeLessThanOrEqual(bound);
      }),
    );
  });

  it('hold every call in its order, in as few parts as when each takes what fits', () => {
    const calls = fc.array(
      fc.tuple(
        fc.integer({ min: 0, max: 3 }),
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 0, max: 1 }),
      ),
    );
    fc.assert(
      fc.property(calls, fc.integer({ min: 10, max: 60 }), (made, most) => {
        const all = made.map(([prompt, length, group]) => call([prompt, 0, 0], length, group));
        const batches = microBatches(all, most);
        expect(batches.flat()).toEqual(all);
        let parts = 0;
        let filled: TrainCall[] = [];
        for (const one of all) {
          if (parts === 0 || rows([...filled, one]) > most) {
            parts += 1;
            filled = [];
          }
          filled.push(one);
        }
        expect(batches).toHaveLength(parts);
        for (const batch of batches) expect(batch.length === 1 || rows(batch) <= most).toBe(true);
      }),
    );
  });
});
