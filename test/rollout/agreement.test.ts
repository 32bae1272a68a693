/** The rollout engine and the training forward pass are two programs for one model: they must agree. */
import { describe, expect, test } from 'vitest';
import { native } from '../../src/engine/native.js';
import type { ModuleKind, NativePolicy } from '../../src/engine/native-model.js';
import { maxDifference, nextLogprobs, request, run, text, tinyConfig, trainingLogprobs } from './tiny.js';
import { useWorkshop } from './use-workshop.js';

const workshop = useWorkshop();

function expectAgreement(
  policy: NativePolicy,
  prompt: ArrayLike<number>,
  result: { ids: Int32Array; logprobs: Float32Array },
  temperature: number,
  tolerance = 1e-4,
): void {
  expect(result.ids.length).toBeGreaterThan(0);
  const [expected] = trainingLogprobs(policy, [{ prompt, response: result.ids }], temperature);
  expect(maxDifference(result.logprobs, expected as number[])).toBeLessThan(tolerance);
}

const families = {
  'Qwen3: norms on q and k': tinyConfig(),
  'Qwen2: biases on q, k, v': tinyConfig({ qkNorm: false, qkvBias: true, tiedEmbeddings: false }),
  'Llama: as many KV heads as heads, a head of 8': tinyConfig({ qkNorm: false, kvHeads: 6, headDim: 8 }),
  'a head of 24, seven queries a KV head': tinyConfig({ heads: 7, kvHeads: 1, headDim: 24 }),
};

describe.each(Object.entries(families))('%s', (_, config) => {
  test.each(['float64', 'float32'] as const)(
    'greedy tokens are the argmax of the whole forward, %s',
    (dtype) => {
      const policy = workshop.policy(config, dtype);
      const engine = workshop.engine(config);
      const prompt = text(3, 21);
      const [result] = run(engine, [request(policy, prompt, { temperature: 0, maxTokens: 24 })]);
      const tokens = [...prompt];
      for (const id of result?.ids ?? []) {
        const logprobs = nextLogprobs(policy, tokens, config.vocabularySize, 1);
        expect(id).toBe(logprobs.indexOf(Math.max(...logprobs)));
        tokens.push(id);
      }
      expect(tokens.length).toBe(prompt.length + 24);
      expect(result?.finish).toBe('length');
    },
  );

  test('log-probabilities of samples of shared and overlapping prompts, at their temperatures', () => {
    const policy = workshop.policy(config, 'float32');
    const engine = workshop.engine(config, { prefillTokens: 40 });
    const long = text(5, 70);
    const prompts = [
      long,
      long,
      long.slice(0, 33),
      [...long.slice(0, 33), 1, 2, 3],
      text(6, 1),
      text(7, 16),
      [...long, 4],
    ];
    const requests = prompts.flatMap((prompt) =>
      [0.7, 1, 1.5].map((temperature) => request(policy, prompt, { temperature, maxTokens: 20 })),
    );
    const results = run(engine, requests);
    for (const [i, one] of requests.entries()) {
      const result = results[i];
      if (!result) throw new Error('missing');
      expect(result.ids.length).toBe(20);
      expectAgreement(policy, one.prompt, result, one.temperature);
    }
  });
});

test('a later turn finds its history, sampled tokens included', () => {
  const config = tinyConfig();
  const policy = workshop.policy(config, 'float32');
  const engine = workshop.engine(config);
  let prompt = text(11, 37);
  for (let turn = 0; turn < 4; turn++) {
    const [result] = run(engine, [request(policy, prompt, { temperature: 0.8, maxTokens: 9 })]);
    if (!result) throw new Error('missing');
    expectAgreement(policy, prompt, result, 0.8);
    // The last sample was never fed to the model, so its keys are not there.
    expect(result.cachedTokens).toBe(turn === 0 ? 0 : prompt.length - 1 - 5);
    prompt = [...prompt, ...result.ids, ...text(20 + turn, 5)];
  }
});

test('several adapters on one base, the base itself and an isolated policy, in one batch', () => {
  const config = tinyConfig();
  const base = workshop.frozenBase(config, 'float32', 1);
  const all: ModuleKind[] = ['q', 'k', 'v', 'o', 'gate', 'up', 'down'];
  const adapters = [all, ['q', 'v'] satisfies ModuleKind[], all].map((targets, i) => {
    const options = { rank: 4, alpha: 8, targets };
    const adapter = workshop.adapter(config, options, 'float32', 50 + i);
    return workshop.keep(native().createPolicy(config, base, adapter, options));
  });
  const policies = [
    ...adapters,
    workshop.keep(native().createPolicy(config, base)),
    workshop.policy(config, 'float32', 9),
  ];
  const engine = workshop.engine(config, { prefillTokens: 100 });
  const prompt = text(2, 90);
  const requests = [0, 1, 2].flatMap(() => policies.map((policy) => request(policy, prompt)));
  const results = run(engine, requests);
  for (const [i, one] of requests.entries()) {
    const result = results[i];
    if (!result) throw new Error('missing');
    expectAgreement(one.policy, prompt, result, 1);
  }
  // The policies differ, or the test would see nothing.
  const first = policies.map((policy) => nextLogprobs(policy, prompt, config.vocabularySize, 1));
  for (let i = 1; i < first.length; i++) {
    expect(maxDifference(first[0] as number[], first[i] as number[])).toBeGreaterThan(1e-2);
  }
  // One prefill for each policy.
  expect(engine.statistics().prefillTokens).toBe(5 * 90);
});

test("one adapter's parameters at two scales are two policies", () => {
  const config = tinyConfig();
  const base = workshop.frozenBase(config, 'float32', 1);
  const options = { rank: 4, alpha: 4, targets: ['q', 'k', 'v', 'down'] satisfies ModuleKind[] };
  const adapter = workshop.adapter(config, options, 'float32', 50);
  const policies = [4, 16].map((alpha) =>
    workshop.keep(native().createPolicy(config, base, adapter, { ...options, alpha })),
  );
  const engine = workshop.engine(config);
  const prompt = text(2, 40);
  const requests = [0, 1].flatMap(() => policies.map((policy) => request(policy, prompt)));
  const results = run(engine, requests);
  for (const [i, one] of requests.entries()) {
    const result = results[i];
    if (!result) throw new Error('missing');
    expectAgreement(one.policy, prompt, result, 1);
  }
  // Keys and values depend on the scale, too.
  expect(engine.statistics().prefillTokens).toBe(2 * 40);
});

test('bfloat16 stays within its own error of float32 on the same weights', () => {
  const config = tinyConfig({ hiddenSize: 64, intermediateSize: 96 });
  const half = workshop.policy(config, 'bfloat16', 4);
  const full = workshop.policy(config, 'float32', 4);
  const prompt = text(8, 50);
  const [result] = run(workshop.engine(config), [request(half, prompt, { maxTokens: 30 })]);
  if (!result) throw new Error('missing');
  const [exact] = trainingLogprobs(full, [{ prompt, response: result.ids }], 1);
  const [trainer] = trainingLogprobs(half, [{ prompt, response: result.ids }], 1);
  const own = maxDifference(trainer as number[], exact as number[]);
  expect(own).toBeGreaterThan(0);
  expect(maxDifference(result.logprobs, exact as number[])).toBeLessThan(3 * own + 0.02);
});

test('a base too large to repack runs from its plain weights, with the same result', () => {
  const config = tinyConfig();
  const policy = workshop.policy(config, 'float32');
  const [result] = run(workshop.engine(config, { packedBytes: 0 }), [request(policy, text(1, 30))]);
  if (!result) throw new Error('missing');
  expectAgreement(policy, text(1, 30), result, 1);
});

test.each([2 ** 30, 0])('logits are not rounded to bfloat16, packedBytes %i', (packedBytes) => {
  const config = tinyConfig({ hiddenSize: 64, vocabularySize: 1000, qkNorm: false });
  const base = workshop.base(config, 'bfloat16', 3);
  // Layers that add nothing: both programs have the same hidden states to the bit, and only their heads can differ.
  for (const { name } of base.parameters) {
    if (!/o_proj|down_proj/.test(name)) continue;
    const view = base.view(name);
    for (const one of [native().call('aten::zero_', '', [view]) as { dispose(): void }, view]) one.dispose();
  }
  base.commit();
  const policy = workshop.keep(native().createPolicy(config, base));
  const prompt = text(8, 50, 1000);
  const engine = workshop.engine(config, { packedBytes });
  const [result] = run(engine, [request(policy, prompt, { maxTokens: 100, temperature: 2 })]);
  if (!result) throw new Error('missing');
  const [trainer] = trainingLogprobs(policy, [{ prompt, response: result.ids }], 2);
  expect(Math.min(...result.logprobs)).toBeLessThan(-2);
  expect(maxDifference(result.logprobs, trainer as number[])).toBeLessThan(1e-3);
});
