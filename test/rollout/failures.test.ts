/** A request that can't be served fails alone, with words; nothing else is disturbed. */
import { beforeEach, describe, expect, test } from 'vitest';
import { type NativeRolloutEngine, native, type RolloutRequest } from '../../src/engine/native.js';
import type { NativePolicy } from '../../src/engine/native-model.js';
import { request, run, text, tinyConfig } from './tiny.js';
import { useWorkshop } from './use-workshop.js';

const config = tinyConfig({ maxPositions: 200 });

const workshop = useWorkshop();
let policy: NativePolicy;
let engine: NativeRolloutEngine;
beforeEach(() => {
  policy = workshop.policy(config, 'float32');
  engine = workshop.engine(config, { cacheBytes: 12 * 2 * 2 * 16 * 32 * 4 });
});

describe('refused with a reason, while the others run', () => {
  const cases: [string, Partial<RolloutRequest>, RegExp][] = [
    ['an empty prompt', { prompt: new Int32Array() }, /prompt is empty/],
    [
      'a token beyond the vocabulary',
      { prompt: Int32Array.of(1, 40) },
      /token 40 is not in the vocabulary of 40/,
    ],
    ['a negative token', { prompt: Int32Array.of(-1) }, /token -1/],
    [
      'more than the model’s positions',
      { maxTokens: 199 },
      /prompt \(5\) and maxTokens \(199\).*200 positions/,
    ],
    ['more than the cache', { maxTokens: 190 }, /need \d+ bytes of KV cache; cacheBytes is/],
    ['no tokens wanted', { maxTokens: 0 }, /maxTokens is 0/],
    ['a negative temperature', { temperature: -1 }, /temperature/],
    ['a temperature that is no number', { temperature: Number.NaN }, /temperature/],
    ['topP 0', { topP: 0 }, /topP/],
    ['minP above 1', { minP: 1.5 }, /minP/],
    ['a negative topK', { topK: -1 }, /topK/],
    ['stop strings without the tokens’ bytes', { stopStrings: ['x'] }, /tokenBytes/],
    ['an empty stop string', { stopStrings: [''] }, /stop string is empty/],
  ];
  test.each(cases)('%s', (_, wrong, message) => {
    const [bad, good] = run(engine, [request(policy, text(1, 5), wrong), request(policy, text(1, 5))]);
    expect(bad).toMatchObject({ finish: 'error', version: policy.version });
    expect(bad?.error).toMatch(message);
    expect(bad?.ids.length).toBe(0);
    expect(good?.finish).toBe('length');
    expect(good?.ids.length).toBe(12);
  });

  test('another model, another dtype', () => {
    const other = workshop.policy(tinyConfig({ layers: 1 }), 'float32');
    const half = workshop.policy(config, 'bfloat16');
    const results = run(engine, [request(policy, [1]), request(other, [1]), request(half, [1])]);
    expect(results.map((result) => result.finish)).toEqual(['length', 'error', 'error']);
    expect(results[1]?.error).toMatch(/model is not this engine/);
    expect(results[2]?.error).toMatch(/dtype/);
  });

  test.each([{ topK: -1 }, { maxTokens: 190 }])('a first request with %j decides of no dtype', (wrong) => {
    const half = workshop.policy(config, 'bfloat16');
    const results = run(engine, [
      request(policy, text(1, 5), wrong),
      request(half, [1]),
      request(policy, [1]),
    ]);
    expect(results.map((result) => result.finish)).toEqual(['error', 'length', 'error']);
    expect(results[2]?.error).toMatch(/dtype/);
  });
});

test('weights that are not finite end the request, not the engine', () => {
  const broken = workshop.base(config, 'float32', 2);
  const weights = workshop.keep(broken.view('model.norm.weight'));
  const ruined = workshop.keep(
    native().call('aten::fill_', 'Scalar', [weights, Number.NaN]) as typeof weights,
  );
  expect(ruined.shape).toEqual(weights.shape);
  broken.commit();
  const [bad, good] = run(engine, [
    request(workshop.keep(native().createPolicy(config, broken)), [1, 2]),
    request(policy, [1, 2]),
  ]);
  expect(bad).toMatchObject({ finish: 'error', error: expect.stringMatching(/not finite/) });
  expect(good?.finish).toBe('length');
});

test('a cancelled request returns what it has; the others go on as if it had never been', () => {
  const [alone] = run(engine, [request(policy, text(1, 30), { counter: [1, 0, 0, 0, 0] })]);
  engine.clearCache(true);
  const one = request(policy, text(1, 30), { counter: [1, 0, 0, 0, 0] });
  const two = request(policy, text(1, 30), { maxTokens: 50 });
  engine.submit(one);
  engine.submit(two);
  for (let i = 0; i < 4; i++) expect(engine.step()).toEqual([]);
  engine.cancel(two.id);
  engine.cancel(two.id);
  engine.cancel(123456);
  const [cancelled] = engine.step();
  expect(cancelled).toMatchObject({ id: two.id, finish: 'cancelled' });
  expect(cancelled?.ids.length).toBe(4);
  expect(cancelled?.logprobs.length).toBe(4);
  const rest = [];
  while (!engine.idle) rest.push(...engine.step());
  expect(rest).toMatchObject([{ id: one.id, ids: alone?.ids }]);
  const waiting = request(policy, [1]);
  engine.submit(waiting);
  engine.cancel(waiting.id);
  expect(engine.step()).toMatchObject([{ id: waiting.id, finish: 'cancelled' }]);
  expect(engine.idle).toBe(true);
});

test('an update under a running request ends it with an error; a waiting one takes the new version', () => {
  const base = workshop.base(config, 'float32', 3);
  const changing = workshop.keep(native().createPolicy(config, base));
  const single = workshop.engine(config, { maxBatch: 1 });
  const running = request(changing, [1, 2, 3]);
  const waiting = request(changing, [1, 2, 3]);
  single.submit(running);
  single.submit(waiting);
  single.step();
  const old = changing.version;
  base.commit();
  expect(changing.version).not.toBe(old);
  const results = single.step();
  expect(results).toMatchObject([
    { id: running.id, finish: 'error', version: old, error: expect.stringMatching(/updated/) },
  ]);
  while (!single.idle) results.push(...single.step());
  expect(results[1]).toMatchObject({ id: waiting.id, finish: 'length', version: changing.version });
});

test('mistakes of the caller throw', () => {
  const one = request(policy, [1]);
  engine.submit(one);
  expect(() => engine.submit(one)).toThrow(/in use/);
  expect(() => engine.submit({ ...request(policy, [1]), prompt: [1] as unknown as Int32Array })).toThrow(
    /prompt/,
  );
  expect(() => engine.submit({ ...request(policy, [1]), policy: {} as NativePolicy })).toThrow(/policy/);
  expect(() => engine.submit({ ...request(policy, [1]), counter: [1, 2] as never })).toThrow(/counter/);
  expect(() => workshop.engine(config, { maxBatch: 0 })).toThrow(/maxBatch/);
  expect(() => workshop.engine(config, { cacheBytes: Number.NaN })).toThrow(/cacheBytes/);
  expect(() =>
    workshop.engine(config, { tokenBytes: new Uint8Array(3), tokenOffsets: Int32Array.of(0, 3) }),
  ).toThrow(/tokenOffsets/);
  const closed = native().createRolloutEngine(config, {
    cacheBytes: 1 << 20,
    maxBatch: 1,
    prefillTokens: 1,
    seed: 0,
    deterministic: false,
  });
  closed.dispose();
  closed.dispose();
  expect(() => closed.step()).toThrow(/disposed/);
});
