/** What the prefix tree shares, forgets and computes again: never a different answer, only fewer tokens. */
import { expect, test } from 'vitest';
import { native, type RolloutRequest } from '../../src/engine/native.js';
import { maxDifference, request, run, text, tinyConfig, trainingLogprobs } from './tiny.js';
import { useWorkshop } from './use-workshop.js';

const config = tinyConfig();
// Two layers, two KV heads, 16 tokens, keys and values of 16, fp32.
const pageBytes = 2 * 2 * 16 * 32 * 4;

const workshop = useWorkshop();

test('a prompt is prefilled once for all its samples', () => {
  const policy = workshop.policy(config, 'float32');
  const engine = workshop.engine(config);
  const prompt = text(1, 50);
  const results = run(
    engine,
    Array.from({ length: 8 }, () => request(policy, prompt, { maxTokens: 10 })),
  );
  expect(results.map((result) => result.cachedTokens)).toEqual([0, 50, 50, 50, 50, 50, 50, 50]);
  expect(engine.statistics()).toMatchObject({
    prefillTokens: 50,
    decodeTokens: 8 * 9,
    cachedTokens: 350,
    running: 0,
    waiting: 0,
  });
});

test('a request joins a prefill that is under way, and takes it over if the first one is cancelled', () => {
  const policy = workshop.policy(config, 'float32');
  const engine = workshop.engine(config, { prefillTokens: 16 });
  const prompt = text(2, 100);
  const first = request(policy, prompt);
  engine.submit(first);
  engine.step();
  engine.step();
  const second = request(policy, [...prompt.slice(0, 90), 5, 6]);
  engine.submit(second);
  engine.step();
  engine.cancel(first.id);
  const results = engine.step();
  expect(results).toMatchObject([{ id: first.id, finish: 'cancelled' }]);
  while (!engine.idle) results.push(...engine.step());
  const result = results.find((one) => one.id === second.id);
  expect(result?.cachedTokens).toBe(90);
  expect(engine.statistics().prefillTokens).toBe(92);
  const [expected] = trainingLogprobs(policy, [{ prompt: second.prompt, response: result?.ids ?? [] }], 1);
  expect(maxDifference(result?.logprobs ?? [], expected ?? [])).toBeLessThan(1e-4);
});

test('a prompt that is wholly in the cache costs one token', () => {
  const policy = workshop.policy(config, 'float32');
  const engine = workshop.engine(config);
  const prompt = text(3, 64);
  const counter = [1, 2, 3, 4, 5] as const;
  const [fresh] = run(engine, [request(policy, prompt, { counter })]);
  const [again] = run(engine, [request(policy, prompt, { counter })]);
  expect(engine.statistics().prefillTokens).toBe(65);
  expect(again?.cachedTokens).toBe(64);
  expect(again?.ids).toEqual(fresh?.ids);
});

test('a last token that lies in the cache behind a page that another node begins keeps its key', () => {
  const policy = workshop.policy(config, 'float32');
  const engine = workshop.engine(config);
  const prompt = text(3, 21);
  // A node of 20 tokens, and one of the last token, on a page of its own that begins with the other's.
  run(engine, [request(policy, prompt.slice(0, 20), { maxTokens: 1 })]);
  const ask = () => run(engine, [request(policy, prompt, { maxTokens: 1, temperature: 0 })]);
  const [fresh] = ask();
  // Its hidden state is computed again, and nothing of the page is copied or written.
  const [again] = ask();
  expect([fresh, again].map((result) => result?.cachedTokens)).toEqual([20, 21]);
  expect(again?.ids).toEqual(fresh?.ids);
  expect(maxDifference(again?.logprobs ?? [], fresh?.logprobs ?? [])).toBeLessThan(1e-5);
});

test('parts of prompts are found wherever they end', () => {
  const policy = workshop.policy(config, 'float32');
  const engine = workshop.engine(config);
  const prompt = text(4, 60);
  run(engine, [request(policy, prompt, { maxTokens: 1 })]);
  for (const cut of [59, 48, 17, 16, 15, 1]) {
    const branch = [...prompt.slice(0, cut), (prompt[cut] as number) === 7 ? 8 : 7, ...text(cut, 20)];
    const [result] = run(engine, [request(policy, branch, { maxTokens: 3 })]);
    expect(result?.cachedTokens).toBe(cut);
    const [expected] = trainingLogprobs(policy, [{ prompt: branch, response: result?.ids ?? [] }], 1);
    expect(maxDifference(result?.logprobs ?? [], expected ?? [])).toBeLessThan(1e-4);
  }
});

test('under a small budget the same tokens come out: eviction, waiting, preemption', () => {
  const policy = workshop.policy(config, 'float64');
  const requests = () =>
    Array.from(
      { length: 24 },
      (_, i): RolloutRequest =>
        request(policy, text(100 + (i % 6), 20 + (i % 6) * 5), {
          maxTokens: 30 + 2 * i,
          counter: [0, i, 0, 0, 0],
        }),
    );
  const plenty = run(workshop.engine(config), requests());
  for (const pages of [9, 14, 30]) {
    const engine = workshop.engine(config, { cacheBytes: pages * 2 * pageBytes, prefillTokens: 24 });
    const scarce = run(engine, requests());
    for (const [i, result] of scarce.entries()) {
      expect(result.finish).toBe('length');
      expect(result.ids).toEqual(plenty[i]?.ids);
      expect(maxDifference(result.logprobs, plenty[i]?.logprobs ?? [])).toBeLessThan(1e-6);
    }
    // Or the test would not see what it is about.
    if (pages < 30) expect(engine.statistics().preemptions).toBeGreaterThan(0);
    expect(engine.statistics().cacheBytes).toBeLessThanOrEqual(pages * 2 * pageBytes);
  }
});

test('an update of the policy empties what it made; clearCache returns the memory', () => {
  const base = workshop.base(config, 'float32');
  const policy = workshop.keep(native().createPolicy(config, base));
  const engine = workshop.engine(config);
  const prompt = text(5, 40);
  run(engine, [request(policy, prompt)]);
  expect(engine.statistics().cacheBytes).toBeGreaterThan(0);
  engine.clearCache(false);
  expect(engine.statistics().cacheBytes).toBeGreaterThan(0);
  native().initialize(base, 77, 0.3);
  const [result] = run(engine, [request(policy, prompt)]);
  expect(result?.cachedTokens).toBe(0);
  expect(result?.version).toBe(policy.version);
  const [expected] = trainingLogprobs(policy, [{ prompt, response: result?.ids ?? [] }], 1);
  expect(maxDifference(result?.logprobs ?? [], expected ?? [])).toBeLessThan(1e-4);
  const both = engine.statistics().cacheBytes;
  engine.clearCache(false);
  expect(engine.statistics().cacheBytes).toBeLessThan(both);
  expect(engine.statistics().cacheBytes).toBeGreaterThan(0);
  engine.clearCache(true);
  expect(engine.statistics().cacheBytes).toBe(0);
});

test('more requests than maxBatch take their turns', () => {
  const policy = workshop.policy(config, 'float32');
  const engine = workshop.engine(config, { maxBatch: 3 });
  for (let i = 0; i < 10; i++) engine.submit(request(policy, text(i, 10), { maxTokens: 5 }));
  let most = 0;
  const finished: number[] = [];
  while (!engine.idle) {
    for (const result of engine.step()) finished.push(result.ids.length);
    most = Math.max(most, engine.statistics().running);
  }
  expect(most).toBe(3);
  expect(finished).toEqual(Array(10).fill(5));
});
