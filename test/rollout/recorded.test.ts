/** Decode steps that are recorded and replayed, on the CUDA kernels' emulation: they draw what steps one by one do. */
import { afterAll, afterEach, expect, test } from 'vitest';
import { native, type RolloutRequest } from '../../src/engine/native.js';
import type { AdapterConfig, NativePolicy } from '../../src/engine/native-model.js';
import { maxDifference, request, run, text, tinyConfig, trainingLogprobs, Workshop } from './tiny.js';

const addon = native() as unknown as ReturnType<typeof native> & { useKernels(name: string): void };
addon.useKernels('emulated');
afterAll(() => addon.useKernels(process.env.TROUPE_KERNELS ?? ''));

const workshop = new Workshop();
afterEach(() => workshop.dispose());

const config = tinyConfig();
const lora: AdapterConfig = { rank: 4, alpha: 8, targets: ['q', 'v', 'down'] };

/** Prompts of different lengths, responses that end at different steps: the sizes of the steps change. */
const requests = (policies: NativePolicy[], counter: number) =>
  Array.from(
    { length: 5 },
    (_, i): RolloutRequest =>
      request(policies[i % policies.length] as NativePolicy, text(100 + (i % 5), 12 + (i % 5) * 9), {
        maxTokens: 4 + 2 * i,
        counter: [counter, i, 0, 0, 0],
        ...(i % 4 === 1 ? { topK: 5 } : {}),
        ...(i % 4 === 2 ? { temperature: 0 } : {}),
      }),
  );

test('replays draw the tokens of single steps, for two adapters of one base', () => {
  const base = workshop.base(config, 'float32', 1, false);
  const policies = [3, 4].map((seed) =>
    workshop.keep(addon.createPolicy(config, base, workshop.adapter(config, lora, 'float32', seed), lora)),
  );
  const [replaying, single] = [true, false].map((recordSteps) => workshop.engine(config, { recordSteps }));
  if (replaying === undefined || single === undefined) throw new Error('no engines');
  for (const round of [0, 1]) {
    const ours = run(replaying, requests(policies, round));
    const theirs = run(single, requests(policies, round));
    for (const [i, { ids, logprobs, finish }] of ours.entries()) {
      expect(finish).toBe('length');
      expect(ids).toEqual(theirs[i]?.ids);
      expect(maxDifference(logprobs, theirs[i]?.logprobs ?? [])).toBe(0);
    }
  }
  expect(single.statistics().replayedSteps).toBe(0);
  // Eleven steps decode in a round; of each size the first is not replayed.
  expect(replaying.statistics().replayedSteps).toBeGreaterThan(10);
});

test('replays draw the tokens of single steps where sequences come to have a second part of attention', () => {
  // Heads that the tensor cores take. Three samples read one prompt, and grow beyond 384 tokens after another.
  const wide = tinyConfig({ layers: 1, headDim: 64, hiddenSize: 64, heads: 4 });
  const policy = workshop.policy(wide, 'bfloat16');
  const [replaying, single] = [true, false].map((recordSteps) => workshop.engine(wide, { recordSteps }));
  if (replaying === undefined || single === undefined) throw new Error('no engines');
  const prompts = [text(7, 376), text(7, 376), text(7, 376), text(8, 379), text(9, 30)];
  const calls = prompts.map((prompt, i) =>
    request(policy, prompt, { maxTokens: 12, counter: [0, i, 0, 0, 0] }),
  );
  const [ours, theirs] = [run(replaying, calls), run(single, calls)];
  for (const [i, { ids, logprobs }] of ours.entries()) {
    expect(ids).toEqual(theirs[i]?.ids);
    expect(maxDifference(logprobs, theirs[i]?.logprobs ?? [])).toBe(0);
  }
  // Before, between and after: three sizes, of each of which the first step is not replayed.
  expect(replaying.statistics().replayedSteps).toBeGreaterThanOrEqual(5);
});

test('a recorded step reads the parameters as they are now', () => {
  const base = workshop.base(config, 'float32');
  const policy = workshop.keep(addon.createPolicy(config, base));
  const engine = workshop.engine(config);
  const prompt = text(5, 20);
  for (const seed of [77, 78]) {
    addon.initialize(base, seed, 0.3);
    const [result] = run(engine, [request(policy, prompt, { maxTokens: 9 })]);
    const [expected] = trainingLogprobs(policy, [{ prompt, response: result?.ids ?? [] }], 1);
    expect(maxDifference(result?.logprobs ?? [], expected ?? [])).toBeLessThan(1e-4);
  }
  expect(engine.statistics().replayedSteps).toBeGreaterThan(12);
});

test('recordings of parameters that are gone are never replayed', () => {
  const engine = workshop.engine(config);
  const prompt = text(6, 20);
  for (let i = 0; i < 3; i++) {
    const own = new Workshop();
    const policy = own.policy(config, 'float32', 10 + i);
    const [result] = run(engine, [request(policy, prompt, { maxTokens: 5 })]);
    const [expected] = trainingLogprobs(policy, [{ prompt, response: result?.ids ?? [] }], 1);
    expect(maxDifference(result?.logprobs ?? [], expected ?? [])).toBeLessThan(1e-4);
    own.dispose();
  }
});
