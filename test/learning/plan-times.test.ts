/** What a plan makes of a step's counts: seconds by a device's rates or by measured costs, and the most memory held at once. */
import { describe, expect, it } from 'vitest';
import { nativeModelConfig } from '../../src/engine/configuration.js';
import { SHAPES } from '../../src/engine/shapes.js';
import { at, type StepCosts, withLayers } from '../../src/learning/plan/costs.js';
import { noDecoding } from '../../src/learning/plan/decode-schedule.js';
import { findDevice } from '../../src/learning/plan/devices.js';
import { headWeights, linearWeights } from '../../src/learning/plan/model-size.js';
import { phase, ratedPhases } from '../../src/learning/plan/rated-phases.js';
import { planOnCpu, planOnDevice } from '../../src/learning/plan/step-plan.js';
import type { StepWork } from '../../src/learning/plan/step-work.js';

const shape = (name: string) => nativeModelConfig(SHAPES[name], name);

describe('a phase by the rates of a device', () => {
  const device = { ...findDevice('h100'), bandwidth: 1e12, launch: 1e-6, attention: 0.5, elementwise: 0.5 };
  device.flops = { bfloat16: 1e15, float32: 1e14, float64: 1e13 };

  it.each([
    [
      { products: 2e15, bytes: 1e11 },
      { products: 2, memory: 0.1 },
    ],
    [
      { products: 1e14, elementwise: 1e12 },
      { products: 0.1, memory: 2 },
    ],
    [{ attention: 1e15 }, { attention: 2 }],
    [
      { launches: 2e6, bytes: 5e11 },
      { launches: 2, memory: 0.5 },
    ],
    // The weights take longer than the products with them.
    [{ products: 1e15, weightBytes: 3e12 }, { memory: 3 }],
    [{ products: 4e15, weightBytes: 3e12 }, { products: 4 }],
  ])('%o', (some, seconds) => {
    const none = { products: 0, attention: 0, bytes: 0, elementwise: 0, weightBytes: 0, launches: 0 };
    const zero = { products: 0, attention: 0, memory: 0, launches: 0, links: 0 };
    expect(phase({ ...none, ...some }, device, 'bfloat16')).toEqual({ ...zero, ...seconds });
  });

  it('reads the weights once an iteration, for every base', () => {
    const config = shape('qwen3-0.6b');
    const weights = 2 * (linearWeights(config) + headWeights(config));
    const one = { steps: 3, sequences: 2, context: 0, read: 0, keys: 0 };
    const seconds = (sequences: number[]) => {
      const bases = sequences.map((of) => ({ sequences: of, shared: true }));
      const decode = { ...idle.decode, phases: [{ ...one, bases }] };
      const [, decoding] = ratedPhases(config, { ...idle, decode }, { ...device, launch: 0 }, 'bfloat16');
      return decoding?.parts?.memory ?? 0;
    };
    expect(seconds([1, 1]) - seconds([2])).toBeCloseTo((3 * weights) / 1e12, 9);
  });

  it("multiplies every row of the rollout with all adapters' A, and reads them with the weights", () => {
    const config = shape('qwen3-0.6b');
    const rows = 300;
    const decode = (shared: boolean) => ({
      ...idle.decode,
      prefills: [{ rows: 5000, drawing: 0, shared }],
      prefillRows: 5000,
      phases: [{ steps: 3, sequences: 2, context: 0, read: 0, keys: 0, bases: [{ sequences: 2, shared }] }],
    });
    const parts = (adapterRows: number, rated = device, shared = true) => {
      const work = { ...idle, decode: decode(shared), adapterRows };
      const [prefill, decoding] = ratedPhases(config, work, rated, 'bfloat16');
      return { products: prefill?.parts?.products ?? 0, memory: decoding?.parts?.memory ?? 0 };
    };
    // Of q, k, v, gate and up the input is the stream; of o it is the heads', of down the intermediate.
    const { hiddenSize, heads, headDim, intermediateSize, layers } = config;
    const numbers = layers * rows * (5 * hiddenSize + heads * headDim + intermediateSize);
    const [without, with_] = [parts(0), parts(rows)];
    expect(with_.products - without.products).toBeCloseTo((2 * numbers * 5000) / device.flops.bfloat16, 9);
    expect(with_.memory - without.memory).toBeCloseTo((3 * 2 * numbers) / device.bandwidth, 9);
    const cpu = { ...device, launch: 0 };
    expect(parts(rows, cpu)).toEqual(parts(0, cpu));
    // Weights of a policy's own have no such columns.
    expect(parts(rows, device, false)).toEqual(without);
  });
});

const need = (name: string, bytes: number) => ({ name, tensors: [{ bytes, count: 1 }] });
/** A step in which nothing is computed. */
const idle: StepWork = {
  decode: noDecoding(),
  policies: [],
  adapterRows: 0,
  memory: {
    held: [need('model', 5)],
    rollout: [],
    training: [need('activations', 9)],
    cpu: {
      decoding: {
        weights: [{ dtype: 'bfloat16', outputs: 1, inputs: 1, head: false, count: 1 }],
        base: 5,
        frozen: 1,
        trained: 0,
      },
      training: [need('activations', 9), need('attention at work', 1)],
    },
    gpu: { held: [need("adapters' A beside the weights", 2)], training: [need('logits of a chunk', 3)] },
  },
  cache: { token: 1, tokens: 7, limit: 'auto', most: 1000 },
  calls: { count: 0, seconds: 0 },
  rows: { largest: 0, computed: 0, seen: 0 },
  exchanges: [],
  devices: 1,
};

describe('a step on a device', () => {
  const device = { ...findDevice('h100'), overhead: 1 };
  const plan = (over: Partial<StepWork> = {}, links = device.links, hosts = 1) =>
    planOnDevice(shape('qwen3-0.6b'), { ...idle, ...over }, { ...device, links }, 'bfloat16', hosts);

  it('peaks where most is held', () => {
    expect(plan().memory).toMatchObject({ peak: 5 + 2 + 9 + 3 + 1, during: 'training' });
    const cpu = { ...device, launch: 0 };
    const { memory } = planOnDevice(shape('qwen3-0.6b'), idle, cpu, 'bfloat16');
    expect(memory).toMatchObject({ peak: 5 + 2 + 9 + 1 + 1, during: 'training' });
  });

  it('has no more in its cache than is allowed, or half of what is free', () => {
    const cache = { token: 2, tokens: 700, limit: 'auto', most: 1000 } as const;
    expect(plan({ cache }).cacheTokens).toEqual({ planned: 1000, used: 700 });
    expect(plan({ cache: { ...cache, limit: 100 } }).memory.peak).toBe(5 + 2 + 100 + 1);
    const memory = { ...idle.memory, held: [need('all but 400 bytes', device.memory - 403)] };
    expect(plan({ cache, memory }).cacheTokens).toEqual({ planned: 100, used: 100 });
  });

  describe('of several', () => {
    const exchanges = [{ name: 'exchange p', reduceScatter: 24e9, allGather: 8e9 }];
    const links = { host: 100e9, network: 10e9, backend: 'nccl' } as const;
    const seconds = (given: typeof device.links, hosts: number) =>
      plan({ exchanges, devices: 4 }, given, hosts).seconds;

    it('passes on all parts but one, as fast as the slowest link', () => {
      // Three quarters of 32 GB.
      expect(seconds(links, 1)).toBeCloseTo(0.24, 9);
      expect(seconds(links, 2)).toBeCloseTo(2.4, 9);
      expect(seconds({ ...links, host: 1e9 }, 4)).toBeCloseTo(2.4, 9);
      expect(seconds({ ...links, backend: 'gloo' }, 1)).toBeCloseTo(0.48, 9);
      expect(plan({ exchanges, devices: 4 }, links).exchanged).toEqual({ bytes: 32e9, sent: 24e9 });
    });

    it('says what it does not know', () => {
      expect(() => seconds({ host: 1, backend: 'gloo' }, 2)).toThrow(
        'says nothing of the network between hosts',
      );
    });
  });
});

describe('a step on a CPU that was measured', () => {
  const training = {
    batches: [
      { rows: 100, forward: 1, backward: 2 },
      { rows: 300, forward: 2, backward: 6 },
    ],
    statistics: 0.4,
    optimizer: 0.2,
    exchange: 0.05,
    rest: 0.1,
  };
  const costs: StepCosts = {
    decode: [
      { rows: 1, seconds: 1 },
      { rows: 4, seconds: 2.5 },
    ],
    context: 20,
    perKey: 0.001,
    prefill: [
      { rows: 1, seconds: 1 },
      { rows: 101, seconds: 11 },
    ],
    packing: 3,
    perCall: 0.25,
    records: 0.03,
    training: { p: training },
  };

  it.each([
    [[], 5, 0],
    [[{ rows: 4, seconds: 2 }], 6, 3],
    // Along the line through two points, between them and outside.
    [costs.decode, 1, 1],
    [costs.decode, 2, 1.5],
    [costs.decode, 4, 2.5],
    [costs.decode, 8, 4.5],
    [[...costs.decode, { rows: 5, seconds: 7 }], 4.5, 4.75],
    [[...costs.decode, { rows: 5, seconds: 7 }], 6, 11.5],
    // Nothing takes less than no time.
    [
      [
        { rows: 10, seconds: 1 },
        { rows: 20, seconds: 5 },
      ],
      5,
      0,
    ],
  ])('between sizes: %j at %d', (curve, rows, seconds) => {
    expect(at(curve, rows)).toBeCloseTo(seconds, 12);
  });

  it('adds up iterations, micro-batches and updates', () => {
    const policy = { name: 'p' } as StepWork['policies'][number]['policy'];
    const batch = (rows: number) => ({ rows, keys: 0, trees: 0, blocks: 0, entries: 0 });
    const bases = (...sequences: number[]) => sequences.map((of) => ({ sequences: of, shared: false }));
    const step: StepWork = {
      ...idle,
      devices: 2,
      decode: {
        ...idle.decode,
        prefills: [{ rows: 51, drawing: 11, shared: true }],
        phases: [
          { steps: 2, sequences: 3, context: 0, read: 0, keys: 3 * 30, bases: bases(1, 2) },
          // Less before them than was measured.
          { steps: 1, sequences: 1, context: 0, read: 0, keys: 10, bases: bases(1) },
        ],
      },
      policies: [
        {
          policy,
          parameters: { kind: 'full' },
          groups: 1,
          calls: [],
          batches: [batch(100), batch(200)],
          seen: 0,
          updates: 3,
        },
      ],
      exchanges: [{ name: 'exchange p', reduceScatter: 8, allGather: 6 }],
      cache: { ...idle.cache, token: 1, most: 1e9 },
      calls: { count: 12, seconds: 0.7 },
    };
    const plan = planOnCpu(step, { name: 'here', memory: 405, costs, packedBytes: () => 0 });
    expect(Object.fromEntries(plan.phases.map(({ name, seconds }) => [name, seconds]))).toEqual({
      episodes: 0.7,
      messages: 12 * 0.25,
      // 6 s for 51 rows, of which 2 are what 11 sequences take in any case.
      prefill: expect.closeTo(4, 9),
      decode: expect.closeTo(2 * (1 + 1.5 + 0.03) + 1, 9),
      'packing weights': 3,
      'forward p': expect.closeTo(1 + 1.5, 9),
      'backward p': expect.closeTo(2 + 4, 9),
      'statistics p': expect.closeTo(1.2, 9),
      'optimizer p': expect.closeTo(0.6, 9),
      'accumulators p': expect.closeTo(0.3, 9),
      'exchange p': expect.closeTo(0.15, 9),
      records: 0.03,
    });
    // A rollout that was run as a whole takes what it took.
    const replayed = planOnCpu(step, {
      name: 'here',
      memory: 405,
      costs: { ...costs, rollout: 1.5 },
      packedBytes: () => 0,
    });
    expect(replayed.phases[0]).toMatchObject({ name: 'rollout', seconds: 1.5 });
    expect(replayed.phases.slice(1)).toEqual(plan.phases.slice(5));
    // Each rank finds the whole machine's memory free.
    expect(plan.cacheTokens.planned).toBe((405 - 5) / 4);
  });

  it('is linear in the layers', () => {
    const more: StepCosts = {
      ...costs,
      decode: [
        { rows: 1, seconds: 1.5 },
        { rows: 4, seconds: 3 },
      ],
      packing: 5,
      perCall: 0.5,
      training: { p: { ...training, optimizer: 0.3, batches: [{ rows: 200, forward: 2, backward: 5 }] } },
    };
    const whole = withLayers(10, [2, costs], [4, more]);
    expect(whole.decode).toEqual([
      { rows: 1, seconds: 3 },
      { rows: 4, seconds: 4.5 },
    ]);
    expect(whole.packing).toBe(11);
    // Messages know nothing of layers.
    expect(whole.perCall).toBe(0.5);
    expect(whole.prefill).toEqual(costs.prefill);
    expect(whole.training.p?.optimizer).toBeCloseTo(0.6, 12);
    // 1.5 and 4 s at 200 rows of the smaller one.
    expect(whole.training.p?.batches).toEqual([{ rows: 200, forward: 3.5, backward: 8 }]);
  });
});
