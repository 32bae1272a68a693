/** Steps that are launched before the tokens of the one before are read, on the CUDA kernels' emulation: the same results. */
import { afterEach, describe, expect, it, test } from 'vitest';
import {
  type NativeRolloutEngine,
  native,
  type RolloutOptions,
  type RolloutRequest,
  type RolloutResult,
} from '../../src/engine/native.js';
import type { NativePolicy } from '../../src/engine/native-model.js';
import { counts, useEmulation } from '../kernels/counting.js';
import { maxDifference, request, run, text, tinyConfig, Workshop } from './tiny.js';

useEmulation();
const workshop = new Workshop();
afterEach(() => workshop.dispose());

const config = tinyConfig();
/** A fifth of the vocabulary: responses end anywhere. */
const stopTokens = Int32Array.of(3, 7, 11, 15, 19, 23, 27, 31);

/** Samples of shared prompts with every kind of end. */
const requests = (policies: NativePolicy[], counter = 0): RolloutRequest[] =>
  Array.from({ length: 24 }, (_, i) =>
    request(policies[i % policies.length] as NativePolicy, text(i % 6, 5 + (i % 6) * 7), {
      maxTokens: 1 + ((i * 5) % 17),
      counter: [counter, i, 0, 0, 0],
      ...(i % 3 !== 0 && { stopTokens }),
      ...(i % 4 === 1 && { topK: 5 }),
      ...(i % 4 === 2 && { temperature: 0 }),
    }),
  );

function expectSame(ours: readonly RolloutResult[], theirs: readonly RolloutResult[]): void {
  for (const [i, { ids, logprobs, finish, error }] of ours.entries()) {
    expect([ids, finish, error]).toEqual([theirs[i]?.ids, theirs[i]?.finish, theirs[i]?.error]);
    // A padded step's products may add up in another order.
    expect(maxDifference(logprobs, theirs[i]?.logprobs ?? [])).toBeLessThan(1e-4);
  }
}

const both = (options: Partial<RolloutOptions> = {}) =>
  [workshop.engine(config, options), workshop.engine(config, { ...options, runAhead: false })] as const;

describe.each([
  ['recorded', {}],
  ['launched plainly', { recordSteps: false }],
  ['of few sequences at a time', { maxBatch: 5, prefillTokens: 16 }],
])('steps %s', (_name, options) => {
  it.each([1, 2])('draw the same tokens for policies on %i bases', (bases) => {
    const policies = Array.from({ length: bases }, (_, i) => workshop.policy(config, 'float32', 3 + i));
    const [ahead, behind] = both(options);
    for (const round of [0, 1]) {
      const ours = run(ahead, requests(policies, round));
      expectSame(ours, run(behind, requests(policies, round)));
      expect(new Set(ours.map(({ finish }) => finish))).toEqual(new Set(['stop', 'length']));
    }
    // A row that was computed for nothing is not counted, and nothing stays in use.
    const { replayedSteps: _ours, ...statistics } = ahead.statistics();
    const { replayedSteps: _theirs, ...others } = behind.statistics();
    expect(statistics).toEqual({ ...others, cacheBytes: statistics.cacheBytes });
  });
});

test('a step is under way when the one before it has been read', async () => {
  const policy = workshop.policy(config, 'float32');
  const uploads = async (engine: NativeRolloutEngine) => {
    run(engine, [request(policy, text(1, 16), { maxTokens: 4 })]); // tables and packed weights are made
    engine.submit(request(policy, text(2, 16), { maxTokens: 4 }));
    const each: number[] = [];
    while (!engine.idle) each.push((await counts(() => engine.step())).uploads);
    return each;
  };
  const [ahead, behind] = both();
  // A plan for the prompt and for each of three tokens that are fed back; the last is not.
  expect(await uploads(behind)).toEqual([1, 1, 1, 1]);
  expect(await uploads(ahead)).toEqual([2, 1, 1, 0]);
});

test('where memory is short, sequences give their places up and come back', () => {
  const policy = workshop.policy(config, 'float32');
  const calls = () =>
    Array.from({ length: 6 }, (_, i) =>
      request(policy, text(i, 20), { maxTokens: 60, counter: [0, i, 0, 0, 0], stopTokens: Int32Array.of(3) }),
    );
  const pageBytes = 2 * 2 * 2 * 16 * 16 * 4;
  const [ahead, behind] = both({ cacheBytes: 14 * pageBytes });
  expectSame(run(ahead, calls()), run(behind, calls()));
  expect(ahead.statistics().preemptions).toBeGreaterThan(0);
});

test.each([
  ['before', [0, 1]],
  ['after', [1, 0]],
])(
  'a sequence that ends with the token that is being drawn leaves its pages to one that came %s it',
  (_, order) => {
    const policy = workshop.policy(config, 'float32');
    // After 17 steps the first has drawn its last token and holds two pages, and the second, which has three, needs a fourth.
    const lengths = [
      [16, 17],
      [32, 20],
    ] as const;
    const calls = () =>
      order.map((i) => {
        const [prompt, maxTokens] = lengths[i] as (typeof lengths)[number];
        return request(policy, text(i, prompt), { maxTokens, counter: [0, i, 0, 0, 0] });
      });
    const pageBytes = 2 * 2 * 2 * 16 * 16 * 4;
    const [ahead, behind] = both({ cacheBytes: 5 * pageBytes });
    expectSame(run(ahead, calls()), run(behind, calls()));
    expect([ahead, behind].map((engine) => engine.statistics().preemptions)).toEqual([0, 0]);
  },
);

/** Steps until the engine is idle; `between` is called after each with their number. */
function stepwise(engine: NativeRolloutEngine, between: (step: number) => void): Map<number, RolloutResult> {
  const results = new Map<number, RolloutResult>();
  for (let step = 0; !engine.idle; step++) {
    for (const result of engine.step()) results.set(result.id, result);
    between(step);
  }
  return results;
}

test('requests that come, are cancelled and are overtaken by an update while a step runs', () => {
  const still = workshop.policy(config, 'float32', 3);
  const base = workshop.base(config, 'float32', 4);
  const changing = workshop.keep(native().createPolicy(config, base));
  const all = requests([still, changing]).map((one) => ({
    ...one,
    maxTokens: 17,
    stopTokens: new Int32Array(),
  }));
  const [first, later] = [all.slice(0, 12), all.slice(12)];
  const outcomes = both().map((engine) => {
    for (const one of first) engine.submit(one);
    const results = stepwise(engine, (step) => {
      if (step === 2) for (const one of later) engine.submit(one);
      if (step === 4) engine.cancel(first[0]?.id ?? 0);
      if (step === 7) base.commit(); // a new version
      if (step === 8) engine.clearCache(false);
    });
    const ended = all.map(({ id }) => results.get(id) as RolloutResult);
    // All tokens but the last are fed back; a row that runs for one that is broken off is not counted.
    const fedBack = ended.reduce((sum, { ids }) => sum + Math.max(0, ids.length - 1), 0);
    expect(engine.statistics()).toMatchObject({ decodeTokens: fedBack, preemptions: 0 });
    return ended;
  });
  const [ours = [], theirs = []] = outcomes;
  const finishes = ours.map(({ finish }) => finish);
  expect(finishes).toEqual(theirs.map(({ finish }) => finish));
  expect(finishes.filter((finish) => finish === 'cancelled').length).toBe(1);
  expect(finishes.filter((finish) => finish === 'error').length).toBe(12);
  for (const [i, { finish, ids, logprobs }] of ours.entries()) {
    const other = theirs[i] as RolloutResult;
    // What came while a step ran begins a step later, and so has a token less when it is broken off.
    const late = i >= first.length && finish !== 'length' ? 1 : 0;
    expect(ids).toEqual(other.ids.slice(0, other.ids.length - late));
    expect(maxDifference(logprobs, other.logprobs.slice(0, ids.length))).toBeLessThan(1e-4);
  }
  expect(ours[0]?.ids.length).toBeGreaterThan(0);
});
