/**
 * A run on a device whose memory is handed out as a GPU's is (native/kernels/cuda/emulation/device_memory.h). There the second
 * rollout once had no room for its cache: what training allocated was cut out of the first one's.
 */
import { describe, expect, it } from 'vitest';
import { Generation } from '../../src/engine/generation.js';
import { native } from '../../src/engine/native.js';
import type { DType } from '../../src/engine/native-model.js';
import { measureAll, train } from '../../src/engine/training.js';
import type { TrainCall } from '../../src/engine/types.js';
import { request, run, text, tinyConfig } from '../rollout/tiny.js';
import { useDeviceMemory } from '../rollout/use-workshop.js';
import { loss, policyState as tinyPolicy, trainCalls, trainRequest, turn } from './tiny-training.js';

const addon = native();
const MiB = 2 ** 20;
/** 595,000 parameters: 2.3 MiB in fp32. */
const config = tinyConfig({
  hiddenSize: 128,
  heads: 4,
  headDim: 64,
  intermediateSize: 512,
  maxPositions: 1024,
});
/** Two layers, keys and values, two heads, 16 tokens, 64 numbers, fp32. */
const pageBytes = 2 * 2 * 2 * 16 * 64 * 4;

const { workshop, deviceMemory } = useDeviceMemory();

const policyState = (dtype: DType = 'float32', shape = config) =>
  tinyPolicy(workshop, { config: shape, dtype });

const calls = trainCalls(8, (i) => 10 + i, 30);
const update = trainRequest(calls);

/** A tensor of so many bytes. */
const block = (bytes: number) => addon.tensor(new Uint8Array(bytes), [bytes], 'uint8', 'cpu');
const now = () => addon.deviceMemory('cpu');

describe('a run', () => {
  /** Rollout, cache dropped, update; tokens that the cache held in each round. */
  async function rounds(cacheBytes: number, count: number, policy = policyState(), trained = update) {
    const engine = workshop.engine(config, { cacheBytes });
    const tokens: number[] = [];
    for (let round = 0; round < count; round++) {
      engine.reserve(policy.bytesToCome);
      const results = run(
        engine,
        [1, 2, 3].map((seed) => request(policy.native, text(seed, 40))),
      );
      expect(results.map(({ finish }) => finish)).toEqual(['length', 'length', 'length']);
      tokens.push(engine.statistics().cacheTokens);
      engine.clearCache(true);
      // Whole segments went back: nothing that stays lies in one of what went, the moments in one of the last cache least of all.
      expect(now().cached).toBeLessThan(0.1 * MiB);
      expect((await train(policy, trained, loss, turn)).memoryRestarts).toBe(0);
    }
    expect(engine.statistics().memoryRestarts).toBe(0);
    return tokens;
  }

  it('has the same cache in every rollout, the moments counted before they are there', async () => {
    deviceMemory(20 * MiB);
    const [first = 0, ...others] = await rounds(0, 3);
    for (const tokens of others) expect(Math.abs(tokens / first - 1)).toBeLessThan(0.03);
    // Half of what 20 MiB leave beside parameters and moments.
    expect((first * pageBytes) / 16 / MiB).toBeCloseTo((20 - 3 * 2.27) / 2, 0);
  });

  it('has it where a KL term compares with an average, and damping keeps averages of both roles', async () => {
    deviceMemory(48 * MiB);
    const parts = { config, keeps: { reference: true, averages: 2 } };
    const source = {
      make: () => tinyPolicy(workshop, { config, trainable: false, restored: true }),
      bytes: () => policy.computeBytes,
    };
    const policy = tinyPolicy(workshop, { ...parts, source, reference: { kind: 'average', decay: 0.9 } });
    const damped = { slotFactor: 1, damping: 0.5, averageDecay: 0.9, rate: 1 };
    const roles = ['a', 'b'].map((role, k) => ({ role, groups: [k], ...damped }));
    const request = trainRequest(
      calls.map((call) => ({ ...call, kl: 0.1 })),
      {
        reference: true,
        regularisation: { kl: 'k3', entropy: 0 },
        intervention: { roles, balance: 'none', order: [0, 1] },
      },
    );
    // Moments, the roles' averages, the reference and its average.
    const one = policy.trained.size * 4;
    expect(policy.bytesToCome).toBe(6 * one);
    const [first = 0, ...others] = await rounds(0, 3, policy, request);
    expect(policy.bytesToCome).toBe(0);
    for (const tokens of others) expect(Math.abs(tokens / first - 1)).toBeLessThan(0.03);
    expect((first * pageBytes) / 16).toBeCloseTo((48 * MiB - 7 * one) / 2, -6);
  });

  it('keeps a cache of more than half of what is free', async () => {
    deviceMemory(20 * MiB);
    const tokens = Math.floor((10 * MiB) / pageBytes) * 16;
    expect(await rounds(10 * MiB, 3)).toEqual([tokens, tokens, tokens]);
  });
});

describe('the cache', () => {
  it('leaves alone what was reserved', () => {
    deviceMemory(20 * MiB);
    const policy = policyState().native;
    const tokens = (reserved: number) => {
      const engine = workshop.engine(config, { cacheBytes: 0 });
      engine.reserve(reserved);
      run(engine, [request(policy, [1, 2, 3])]);
      const { cacheTokens } = engine.statistics();
      engine.clearCache(true);
      return cacheTokens;
    };
    expect(tokens(0) - tokens(4 * MiB)).toBeCloseTo(((4 * MiB) / 2 / pageBytes) * 16, -2);
    // One page is left to it whatever is reserved: it says what does not fit.
    const engine = workshop.engine(config, { cacheBytes: 0 });
    engine.reserve(100 * MiB);
    const [refused] = run(engine, [request(policy, text(1, 40))]);
    expect(refused?.error).toMatch(/cacheBytes is auto, and 32768 is what the device has room for/);
  });

  it('is smaller where less is free, and refuses what it has no room for any more', () => {
    deviceMemory(20 * MiB);
    const policy = policyState().native;
    const engine = workshop.engine(config, { cacheBytes: 0 });
    run(engine, [request(policy, [1, 2, 3])]);
    const before = engine.statistics().cacheTokens;
    engine.clearCache(true);
    const long = request(policy, text(1, 900), { maxTokens: 20 });
    const short = request(policy, text(1, 30));
    engine.submit(long);
    engine.submit(short);
    const held = workshop.keep(block(16 * MiB));
    const results = engine.step();
    expect(results).toMatchObject([
      { id: long.id, finish: 'error', error: expect.stringMatching(/900.*what the device has room for/) },
    ]);
    while (!engine.idle) results.push(...engine.step());
    expect(results[1]).toMatchObject({ id: short.id, finish: 'length' });
    expect(engine.statistics().cacheTokens).toBeLessThan(before / 4);
    engine.clearCache(true);
    held.dispose();
    run(engine, [request(policy, [1, 2, 3])]);
    expect(engine.statistics().cacheTokens).toBeGreaterThan(0.98 * before);
  });

  it('is smaller where what is free is not in one piece, and counts it', () => {
    deviceMemory(20 * MiB);
    const policy = policyState().native;
    for (const whole of [block(6 * MiB), block(6 * MiB)]) whole.dispose();
    // A piece of each of the two stays: 16 MiB are free, and no 6 of them together.
    workshop.keep(block(MiB / 2));
    const rest = block(5.5 * MiB);
    workshop.keep(block(MiB / 2));
    rest.dispose();
    const engine = workshop.engine(config, { cacheBytes: 0 });
    const [result] = run(engine, [request(policy, text(1, 40))]);
    expect(result?.finish).toBe('length');
    expect(engine.statistics().memoryRestarts).toBe(1);
  });

  it('that leaves no room for a step of one sequence is an error that says what to set', () => {
    // Of 16 rows, gate and up alone take a MiB.
    const policy = policyState('float64', { ...config, intermediateSize: 4096 });
    const engine = workshop.engine({ ...config, intermediateSize: 4096 }, { cacheBytes: MiB });
    deviceMemory(1.5 * MiB);
    const generation = new Generation(engine, []);
    const asked = {
      policy: 'p',
      prompt: Int32Array.from(text(1, 40)),
      sampling: { temperature: 1, topK: 0, topP: 1, minP: 0, maxTokens: 4, stop: [] },
      counter: [0, 0, 0, 0, 0] as const,
    };
    generation.submit(1, policy, asked);
    const [told] = generation.step();
    expect(told?.error?.message).toMatch(/^memory ran out .* Set rollout\.cacheBytes lower/);
    expect(generation.busy).toBe(false);
  });
});

it('a step that memory runs out in is computed with fewer rows, counted, with the same tokens', () => {
  const policy = policyState('float64').native;
  const requests = () =>
    Array.from({ length: 6 }, (_, i) =>
      request(policy, text(i, 150), { temperature: 0, counter: [0, i, 0, 0, 0] }),
    );
  const cacheBytes = 6 * 12 * 2 * pageBytes;
  const plenty = run(workshop.engine(config, { cacheBytes }), requests());
  deviceMemory(cacheBytes + 2 * MiB);
  const engine = workshop.engine(config, { cacheBytes });
  const scarce = run(engine, requests());
  expect(scarce.map(({ ids }) => ids)).toEqual(plenty.map(({ ids }) => ids));
  expect(engine.statistics().memoryRestarts).toBeGreaterThan(0);
});

it('a pass without gradients goes on with fewer rows, counted, with the same numbers', async () => {
  const policy = policyState();
  const limits = { limit: policy.rowLimit, maxRows: 10_000 };
  const plenty = await measureAll(policy.native, calls, limits, turn);
  expect(policy.rowLimit.restarts).toBe(0);
  deviceMemory(MiB);
  const scarce = await measureAll(policy.native, calls, limits, turn);
  expect(policy.rowLimit.restarts).toBeGreaterThan(0);
  expect(scarce.length).toBe(calls.length);
  for (const [i, { logprobs }] of scarce.entries()) {
    for (const [t, value] of logprobs.entries()) expect(value).toBeCloseTo(plenty[i]?.logprobs[t] ?? 0, 4);
  }
  const long = { ...(calls[0] as TrainCall), prompt: Int32Array.from(text(1, 300)) };
  deviceMemory(MiB / 4);
  await expect(measureAll(policy.native, [long], limits, turn)).rejects.toThrow(
    /^memory ran out in the pass of one call, of \d+ rows .* Set rollout\.promptTokens/,
  );
});

describe('what no number of rows makes room for is said at once', () => {
  it('moments', async () => {
    const policy = policyState();
    deviceMemory(4 * MiB);
    await expect(train(policy, update, loss, turn)).rejects.toThrow(
      /^memory ran out for the optimizer's moments of p .* Train an adapter .* more ranks/,
    );
    expect(policy.rowLimit.rows).toBe(Number.POSITIVE_INFINITY);
  });

  it('accumulators', async () => {
    const policy = policyState();
    deviceMemory(4 * MiB);
    await expect(train(policy, { ...update, update: false }, loss, turn)).rejects.toThrow(
      /^memory ran out for 2 gradients of p, one for each group .*gradients\.method: sketch/,
    );
    expect(policy.rowLimit.rows).toBe(Number.POSITIVE_INFINITY);
  });
});

it('auto sketches the groups by the memory of the device that holds the policy, not the host’s', async () => {
  const policy = policyState();
  const statistics = { method: 'auto', sketch: { replicates: 2, size: 4, seed: 1 } } as const;
  const method = async (bytes: number) => {
    deviceMemory(bytes);
    const result = await train(policy, { ...update, update: false, statistics }, loss, turn);
    return result.gradients.method;
  };
  // Two accumulators take 4.5 MiB.
  expect(await method(24 * MiB)).toBe('exact');
  expect(await method(16 * MiB)).toBe('sketch');
});
