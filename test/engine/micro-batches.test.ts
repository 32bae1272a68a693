/**
 * Calls in micro-batches: which are together and where they are cut, held against packing and against every other way to cut
 * the same order; and an update, whose results do not depend on it.
 */
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { native } from '../../src/engine/native.js';
import type { NativeMicroBatch, PackCall } from '../../src/engine/native-model.js';
import { train } from '../../src/engine/training.js';
import type { TrainCall } from '../../src/engine/types.js';
import { generator } from '../kernels/kernels.js';
import { text, Workshop } from '../rollout/tiny.js';
import { loss, policyState, trainCalls, trainRequest, turn } from './tiny-training.js';

const call = (prompt: readonly number[], response: readonly number[], group = 0): PackCall => ({
  prompt: Int32Array.from(prompt),
  response: Int32Array.from(response),
  group,
});

const cut = (calls: PackCall[], maxRows: number, levels = 0) => native().microBatches(calls, maxRows, levels);
const sizes = (batches: readonly NativeMicroBatch[]) => batches.map((batch) => batch.calls.length);
const total = (batches: readonly { rows: number }[]) => batches.reduce((sum, { rows }) => sum + rows, 0);
const pick = <Item>(items: readonly Item[], { calls }: Pick<NativeMicroBatch, 'calls'>) =>
  calls.map((index) => items[index] as Item);

function packedRows(calls: readonly PackCall[], levels: number): number {
  const groups = 1 + Math.max(0, ...calls.map(({ group }) => group));
  const batch = native().pack([...calls], groups, true, levels);
  const { rows } = batch;
  batch.dispose();
  return rows;
}

/** Runs of tokens by their numbers, from which texts that begin alike are made. */
const runs = (length: number, numbers: readonly number[]) =>
  numbers.flatMap((number) => new Array<number>(length).fill(number));

/** Of so many tokens a run: prompts that go on where others end, and responses that begin alike, in three groups. */
const someCalls = (length: number) =>
  fc
    .array(
      fc.record({
        prompt: fc.array(fc.integer({ min: 1, max: 2 }), { minLength: 1, maxLength: 4 }),
        response: fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 3 }),
        group: fc.integer({ min: 0, max: 2 }),
      }),
      { maxLength: 9 },
    )
    .map((made) =>
      made.map(({ prompt, response, group }) =>
        // The last token of a response is no row.
        call(runs(length, prompt), response.length === 0 ? [] : [...runs(length, response), 99], group),
      ),
    );

const levels = fc.constantFrom(0, 2);

describe('micro-batches', () => {
  it('hold every call once, have the rows that packing makes of them, and no more than they may', () => {
    fc.assert(
      fc.property(someCalls(3), fc.integer({ min: 1, max: 60 }), levels, (calls, most, depth) => {
        const batches = cut(calls, most, depth);
        expect(batches.flatMap((batch) => batch.calls).sort((a, b) => a - b)).toEqual([...calls.keys()]);
        for (const batch of batches) {
          expect(batch.rows).toBe(packedRows(pick(calls, batch), depth));
          const withRows = pick(calls, batch).filter(({ response }) => response.length > 0);
          expect(withRows.length === 1 || batch.rows <= most).toBe(true);
        }
      }),
      { numRuns: 300 },
    );
  });

  it('cost as little as any way to cut their order: rows, 512 for each beside its own, 64 for each group that is cut', () => {
    const cost = (parts: readonly { rows: number; groups: number }[]) =>
      parts.reduce((sum, { rows, groups }) => sum + rows + 512 + 64 * groups, 0);
    const groupsOf = (part: readonly PackCall[]) => new Set(part.map(({ group }) => group)).size;
    let parts = 0;
    fc.assert(
      fc.property(someCalls(256), fc.integer({ min: 1, max: 14 }), (some, most) => {
        const calls = some.filter(({ response }) => response.length > 0);
        const maxRows = 256 * most;
        const batches = cut(calls, maxRows);
        const order = batches.flatMap((batch) => pick(calls, batch));
        const ways = Array.from({ length: 2 ** Math.max(0, order.length - 1) }, (_, choice) => {
          const starts = [0, ...order.keys()].filter((i) => i === 0 || (choice >> (i - 1)) & 1);
          const each = [...new Set(starts)].map((start, i, all) => order.slice(start, all[i + 1]));
          return each.map((part) => ({
            rows: packedRows(part, 0),
            groups: groupsOf(part),
            alone: part.length === 1,
          }));
        });
        const allowed = ways.filter((way) => way.every(({ rows, alone }) => alone || rows <= maxRows));
        const found = batches.map((batch) => ({ ...batch, groups: groupsOf(pick(calls, batch)) }));
        if (order.length > 0) expect(cost(found)).toBe(Math.min(...allowed.map(cost)));
        parts = Math.max(parts, batches.length);
      }),
      { numRuns: 60 },
    );
    expect(parts).toBeGreaterThan(2);
  });

  it('are of nearly equal size where nothing is shared', () => {
    const calls = Array.from({ length: 12 }, (_, i) => call([i, i], text(i, 9)));
    expect(sizes(cut(calls, 100))).toEqual([6, 6]);
    expect(sizes(cut(calls, 120))).toEqual([12]);
  });

  it('are cut between prompts rather than between the samples of one', () => {
    const calls = [1, 2, 3, 4].flatMap((prompt) =>
      [5, 6, 7, 8].map((token) => call(runs(128, [prompt]), runs(33, [token]))),
    );
    // Four prompts of 256 rows with their samples; three and a half would fit.
    const batches = cut(calls, 900);
    expect(batches.map(({ rows }) => rows)).toEqual([512, 512]);
  });

  it('have more parts than they must where that computes less again', () => {
    const calls = [1, 2, 3].flatMap((prompt) =>
      Array.from({ length: 6 }, (_, i) => call(runs(1024, [prompt]), runs(129, [10 + i]))),
    );
    // 1,792 rows each. Two parts would be enough, but the middle one's prompt would be in both: 1,024 rows more, and a part costs 512.
    expect(cut(calls, 3200).map(({ rows }) => rows)).toEqual([1792, 1792, 1792]);
  });

  it('count the turns of a conversation as the one run of rows that they are', () => {
    const turns = (sample: number) => {
      const said = [1, 2, 3].map((part) => runs(8, [10 * sample + part]));
      return said.map((response, i) => call([7, 7, ...said.slice(0, i).flat()], response));
    };
    const calls = [...turns(1), ...turns(2)].reverse();
    const rows = 2 + 2 * 23;
    expect(cut(calls, rows)).toMatchObject([{ rows }]);
    const two = cut(calls, rows - 1).map((batch) => ({ ...batch, calls: batch.calls.toSorted() }));
    expect(two.map(({ rows }) => rows)).toEqual([25, 25]);
    expect(two.map((batch) => batch.calls).sort()).toEqual([
      [0, 1, 2],
      [3, 4, 5],
    ]);
  });

  it('of one group compute no more rows than of several that share nothing', () => {
    // Three voters whose prompts differ from the first token on, and who reads them, episode after episode.
    const calls = Array.from({ length: 12 }, (_, episode) =>
      [0, 1, 2, 3].map((slot) => {
        const prompt = [3 * slot + (episode >> 2), ...text(episode >> 2, slot === 3 ? 60 : 30)];
        return call(prompt, text(100 + 4 * episode + slot, 9), slot);
      }),
    ).flat();
    const one = calls.map((each) => ({ ...each, group: 0 }));
    for (const most of [100, 200, 400]) {
      for (const depth of [0, 2]) {
        const [together, apart] = [cut(one, most, depth), cut(calls, most, depth)];
        expect([total(together), together.length]).toEqual([total(apart), apart.length]);
      }
    }
  });

  it('do not depend on the order of the calls', () => {
    const next = generator(5);
    const calls = Array.from({ length: 20 }, (_, i) => call([i & 3, ...text(i >> 2, 6)], text(i, 8), i & 1));
    const numbered = calls.map((each, number) => ({ ...each, number }));
    const parts = (of: typeof numbered) =>
      cut(of, 60).map((batch) => pick(of, batch).map(({ number }) => number));
    const shuffled = numbered.toSorted(() => next() - 0.5);
    expect(shuffled).not.toEqual(numbered);
    expect(parts(shuffled)).toEqual(parts(numbered));
  });

  it('add to few groups each, in order of the groups', () => {
    fc.assert(
      fc.property(someCalls(2), fc.integer({ min: 10, max: 60 }), (some, most) => {
        const calls = some.filter(({ response }) => response.length > 0);
        const batches = cut(calls, most);
        const touched = batches.map((batch) => new Set(pick(calls, batch).map(({ group }) => group)).size);
        const groups = new Set(calls.map(({ group }) => group)).size;
        const bound = groups + Math.max(0, batches.length - 1);
        expect(touched.reduce((sum, count) => sum + count, 0)).toBeLessThanOrEqual(bound);
        const order = batches.flatMap((batch) => pick(calls, batch).map(({ group }) => group));
        expect(order).toEqual(order.toSorted());
      }),
    );
  });

  it('of no calls are none; an empty response is in one; what cannot be packed is refused', () => {
    expect(cut([], 10)).toEqual([]);
    expect(cut([call([1], []), call([2], [])], 10)).toEqual([{ calls: [0, 1], rows: 0 }]);
    expect(() => cut([call([], [3])], 10)).toThrow('call 0 has an empty prompt');
    expect(() => cut([call([1], [3], -1)], 10)).toThrow('call 0 is of group -1');
    expect(() => cut([call([1], [3])], 0)).toThrow('at least one row, not 0');
  });
});

describe('an update', () => {
  const workshop = new Workshop();
  afterAll(() => workshop.dispose());
  const update = async (calls: TrainCall[], microBatchRows: number) => {
    const request = trainRequest(calls, { learningRate: 0, update: false, microBatchRows });
    return await train(policyState(workshop, { dtype: 'float64' }), request, loss, turn);
  };
  const close = (a: ArrayLike<number>, b: ArrayLike<number>) => {
    const scale = Array.from(b).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    expect(a.length).toBe(b.length);
    for (let i = 0; i < b.length; i++)
      expect(Math.abs((a[i] as number) - (b[i] as number))).toBeLessThan(1e-10 * scale);
  };

  /** Samples of a prompt, and turns that go on from them, by turns in two groups. */
  const conversations = () =>
    trainCalls(6, (i) => 4 + (i >> 1), 5).flatMap((first) => {
      const prompt = Int32Array.of(...first.prompt, ...first.response, 3, 4);
      const later = { ...first, prompt, response: first.response.map((id) => (id + 1) % 40) };
      const sample = { ...first, response: first.response.map((id) => (id + 2) % 40) };
      return [first, later, sample].map((each, i) => ({ ...each, advantage: each.advantage * (i + 1) }));
    });

  it.each([1, 20, 45])('cut at %i rows gives what one micro-batch gives, call for call', async (rows) => {
    const calls = conversations();
    const whole = await update(calls, 10_000);
    const order = [...calls.keys()].sort((a, b) => ((a * 7) % 18) - ((b * 7) % 18));
    const parts = await update(
      order.map((i) => calls[i] as TrainCall),
      rows,
    );
    expect(Math.abs(parts.loss - whole.loss)).toBeLessThan(1e-12);
    close(parts.gradients.gram, whole.gradients.gram);
    expect(parts.gradients.tokens).toEqual(whole.gradients.tokens);
    for (const [place, i] of order.entries()) {
      close(parts.calls[place]?.logprobs ?? [], whole.calls[i]?.logprobs ?? [1]);
      close(parts.calls[place]?.entropy ?? [], whole.calls[i]?.entropy ?? [1]);
    }
    expect(parts.tokensSeen).toBe(whole.tokensSeen);
    expect(parts.tokensComputed).toBe(total(cut(calls, rows)));
  });

  it('says how many of its rows one group of all calls would have shared, whatever its micro-batches', async () => {
    const calls = trainCalls(4, () => 8, 5).map((each) => ({ ...each, prompt: Int32Array.from(text(1, 8)) }));
    for (const rows of [10_000, 24]) {
      const { tokensComputed, extraRows } = await update(calls, rows);
      const one = calls.map((each) => ({ ...each, group: 0 }));
      expect(extraRows).toBe(tokensComputed - total(cut(one, rows)));
    }
    expect((await update(calls, 10_000)).extraRows).toBe(8);
  });
});
