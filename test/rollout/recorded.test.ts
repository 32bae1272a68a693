/** Decode steps that are recorded and replayed, on the CUDA kernels' emulation: they draw what steps one by one do. */
import { afterEach, expect, test } from 'vitest';
import {
  native,
  type RolloutOptions,
  type RolloutRequest,
  type RolloutResult,
} from '../../src/engine/native.js';
import type { AdapterConfig, NativeParameterSet, NativePolicy } from '../../src/engine/native-model.js';
import { useEmulation } from '../kernels/counting.js';
import type { Kernels, RowPlan } from '../kernels/kernels.js';
import { maxDifference, request, run, text, tinyConfig, trainingLogprobs, Workshop } from './tiny.js';

const addon = native() as unknown as ReturnType<typeof native> & {
  kernels(name: string): Pick<Kernels, 'repeatable' | 'dispose'>;
};
useEmulation();

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

/** Engines that replay and that launch every step by itself. */
function engines(options: Partial<RolloutOptions> = {}) {
  return {
    replaying: workshop.engine(config, options),
    single: workshop.engine(config, { ...options, recordSteps: false }),
  };
}

/** Of log-probabilities: products of a padded step, of more rows, may add up in another order, as libtorch sees fit for the processor. */
const ROUNDING = 1e-4;

function expectSame(ours: readonly RolloutResult[], theirs: readonly RolloutResult[]): void {
  for (const [i, { ids, logprobs, finish }] of ours.entries()) {
    expect(finish).toBe('length');
    expect(ids).toEqual(theirs[i]?.ids);
    expect(maxDifference(logprobs, theirs[i]?.logprobs ?? [])).toBeLessThan(ROUNDING);
  }
}

function adapted(base: NativeParameterSet, seed: number, owner = workshop): NativePolicy {
  return owner.keep(addon.createPolicy(config, base, owner.adapter(config, lora, 'float32', seed), lora));
}

test('replays draw the tokens of single steps, for two adapters of one base', () => {
  const base = workshop.frozenBase(config, 'float32', 1);
  const policies = [3, 4].map((seed) => adapted(base, seed));
  const { replaying, single } = engines();
  for (const round of [0, 1])
    expectSame(run(replaying, requests(policies, round)), run(single, requests(policies, round)));
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
    expect(maxDifference(logprobs, theirs[i]?.logprobs ?? [])).toBeLessThan(0.02); // bf16
  }
  // Before, between and after: three sizes, of each of which the first step is not replayed.
  expect(replaying.statistics().replayedSteps).toBeGreaterThanOrEqual(5);
});

test('a step whose draws filter is no replay of one whose draws do not, nor the other way round', () => {
  const policy = workshop.policy(config, 'float32', 3);
  const { replaying, single } = engines();
  for (const [round, topP] of [1, 0.6, 1, 0.6].entries()) {
    const calls = Array.from({ length: 3 }, (_, i) =>
      request(policy, text(i, 12), { maxTokens: 6, topP, counter: [round, i, 0, 0, 0] }),
    );
    expectSame(run(replaying, calls), run(single, calls));
  }
  // Five steps at least decode in a round; of a size and kind the first is not replayed.
  expect(replaying.statistics().replayedSteps).toBeGreaterThan(15);
});

test('a replay of one base leaves the samples of another alone, whatever their sizes', () => {
  const policies = [3, 4].map((seed) => workshop.policy(config, 'float32', seed));
  const { replaying, single } = engines();
  for (const round of [0, 1])
    expectSame(run(replaying, requests(policies, round)), run(single, requests(policies, round)));
  // Both bases' passes of most steps.
  expect(replaying.statistics().replayedSteps).toBeGreaterThan(20);
});

test('after the cache was dropped, and its memory is another tensor, nothing of before is replayed', () => {
  const base = workshop.frozenBase(config, 'float32', 1);
  const policies = [3, 4].map((seed) => adapted(base, seed));
  const cacheBytes = 1 << 20;
  const { replaying, single } = engines({ cacheBytes });
  const expected = run(single, requests(policies, 0));
  expectSame(run(replaying, requests(policies, 0)), expected);
  const replayed = replaying.statistics().replayedSteps;
  expect(replayed).toBeGreaterThan(4);
  for (const round of [1, 2]) {
    replaying.clearCache(true);
    // The allocator gives a block that was just freed to the next tensor of its size.
    const there = workshop.keep(
      addon.tensor(new Float32Array(cacheBytes / 4).fill(round), [cacheBytes / 4], 'float32', 'cpu'),
    );
    expectSame(run(replaying, requests(policies, 0)), expected);
    expect(replaying.statistics().replayedSteps).toBe((round + 1) * replayed);
    expect(new Set(addon.read(there) as Float32Array)).toEqual(new Set([round]));
  }
});

test('adapters that take the place of others are not mistaken for them', () => {
  const base = workshop.frozenBase(config, 'float32', 1);
  const { replaying, single } = engines();
  for (const seed of [3, 4, 5]) {
    const own = new Workshop();
    const policies = [adapted(base, seed, own), adapted(base, seed + 10, own)];
    expectSame(run(replaying, requests(policies, seed)), run(single, requests(policies, seed)));
    own.dispose();
  }
  expect(replaying.statistics().replayedSteps).toBeGreaterThan(10);
});

test('weights and adapters that a checkpoint is written into are read as they are then', () => {
  const base = workshop.base(config, 'float32');
  const adapter = workshop.adapter(config, lora, 'float32', 3);
  const frozen = workshop.frozenBase(config, 'float32', 2);
  const policies = [
    workshop.keep(addon.createPolicy(config, base)),
    workshop.keep(addon.createPolicy(config, frozen, adapter, lora)),
  ];
  const { replaying, single } = engines();
  let before: RolloutResult[] = [];
  for (const round of [0, 1]) {
    for (const [i, set] of [base, adapter].entries()) {
      for (const { name, shape, size } of set.parameters) {
        const values = Float32Array.from(text(round + i + size, size, 1000), (value) => (value - 500) / 1500);
        const from = addon.tensor(values, shape, 'float32', 'cpu');
        set.write(name, from);
        from.dispose();
      }
      set.commit();
    }
    const ours = run(replaying, requests(policies, 0));
    expectSame(ours, run(single, requests(policies, 0)));
    for (const [i, { logprobs }] of before.entries())
      expect(maxDifference(logprobs, ours[i]?.logprobs ?? [])).toBeGreaterThan(100 * ROUNDING);
    before = ours;
  }
  expect(replaying.statistics().replayedSteps).toBeGreaterThan(20);
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

test('a step whose attention takes several pieces, which end where its rows do, is not recorded', () => {
  const kernels = addon.kernels('emulated');
  const rows = 1024;
  // Each row reads a page table of 16 or 17 pieces of 256 positions: 16,384 partial results exist at a time.
  const planOf = (splits: number): RowPlan => ({
    positions: new Int32Array(rows).fill(256 * splits - 1),
    slots: new Int32Array(rows).fill(-1),
    tables: new Int32Array(rows),
    pages: Int32Array.from({ length: 16 * splits }, (_, i) => i),
    tableWidth: 16 * splits,
    outputs: Int32Array.from({ length: rows }, (_, i) => i),
    draws: new Int32Array(),
    uniforms: new Float64Array(),
    sampling: new Float64Array(),
    repeatable: true,
  });
  expect(kernels.repeatable(planOf(16))).toBe(true);
  expect(kernels.repeatable(planOf(17))).toBe(false);
  kernels.dispose();
});
