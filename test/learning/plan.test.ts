/**
 * What a plan counts against what the engine does: parameters, rows of packed batches, tokens and steps of the rollout.
 * How far its seconds and bytes are from measured ones is bench/plan.mjs' business.
 */
import { describe, expect, it, test } from 'vitest';
import { loadRunConfig } from '../../src/config/load.js';
import { nativeModelConfig } from '../../src/engine/configuration.js';
import { native } from '../../src/engine/native.js';
import { SHAPES } from '../../src/engine/shapes.js';
import { at, type StepCosts, withLayers } from '../../src/learning/plan/costs.js';
import { DecodeSchedule, noDecoding } from '../../src/learning/plan/decode-schedule.js';
import { DEVICES, findDevice } from '../../src/learning/plan/devices.js';
import {
  cachedOfToken,
  headWeights,
  linearWeights,
  modelParameters,
  trainedParameters,
} from '../../src/learning/plan/model-size.js';
import { estimatedTokenizer, planStep } from '../../src/learning/plan/planned-calls.js';
import { groupedRows } from '../../src/learning/plan/prefix-rows.js';
import { phase, ratedPhases } from '../../src/learning/plan/rated-phases.js';
import { planOnCpu, planOnDevice } from '../../src/learning/plan/step-plan.js';
import { type StepWork, stepWork } from '../../src/learning/plan/step-work.js';
import { fails, json } from '../cli/troupe.js';
import { request, text, tinyConfig, Workshop } from '../rollout/tiny.js';

const shape = (name: string) => nativeModelConfig(SHAPES[name], name);

describe('parameters', () => {
  it.each([
    ['tied, with norms of heads', tinyConfig()],
    ['untied, biases', tinyConfig({ qkNorm: false, qkvBias: true, tiedEmbeddings: false })],
    ['biases everywhere', tinyConfig({ qkvBias: true, outputBias: true, mlpBias: true })],
  ])('%s: as many as the engine makes', (_name, config) => {
    const base = native().createBase(config, 'float32', 'cpu', false);
    const count = (set: typeof base) => set.parameters.reduce((sum, { size }) => sum + size, 0);
    expect(modelParameters(config)).toBe(count(base));
    base.dispose();
    const targets = ['q', 'v', 'o', 'down'] as const;
    const lora = { kind: 'lora' as const, rank: 3, alpha: 6, targets: [...targets] };
    const adapter = native().createAdapter(config, lora, 'float32', 'cpu');
    expect(trainedParameters(config, lora)).toBe(count(adapter));
    adapter.dispose();
    expect(trainedParameters(config, { kind: 'full' })).toBe(modelParameters(config));
  });

  it('of published models', () => {
    expect(modelParameters(shape('qwen3-0.6b'))).toBe(596_049_920);
    expect(modelParameters(shape('qwen3-4b'))).toBe(4_022_468_096);
    expect(modelParameters(shape('smollm2-135m'))).toBe(134_515_008);
    expect(2 * cachedOfToken(shape('qwen3-4b'))).toBe(144 * 1024);
  });
});

/** Calls whose prompts and responses begin alike, in groups. */
function someCalls(seed: number) {
  const draw = text(seed, 400, 1000);
  let next = 0;
  const number = (below: number) => (draw[next++ % draw.length] as number) % below;
  const stem = text(seed + 1, 30, 5);
  return Array.from({ length: 14 }, () => {
    const prompt = [...stem.slice(0, 1 + number(12)), ...Array.from({ length: number(3) }, () => number(4))];
    const response = Array.from({ length: 1 + number(6) }, () => number(3));
    return {
      prompt: Int32Array.from(prompt),
      response: Int32Array.from(response),
      rolloutLogprobs: new Float32Array(response.length),
      temperature: 1,
      advantage: 1,
      weight: 1,
      group: number(3),
    };
  });
}

test('rows of a batch are those of packing, whatever its calls share', () => {
  for (let seed = 0; seed < 40; seed++) {
    const calls = someCalls(seed);
    const batch = native().pack(calls, 3, true);
    expect(groupedRows(calls).rows).toBe(batch.rows);
    batch.dispose();
  }
});

test('keys are counted along each path', () => {
  const call = (prompt: number[], response: number[]) => ({
    ...(someCalls(0)[0] as ReturnType<typeof someCalls>[number]),
    prompt: Int32Array.from(prompt),
    response: Int32Array.from(response),
    group: 0,
  });
  // 1 2 | 3 (4) and 1 2 | 5 (6): rows 1, 2, 3, 5 meet 1, 2, 3 and 3 keys.
  const rows = groupedRows([call([1, 2], [3, 4]), call([1, 2], [5, 6])]);
  expect(rows).toEqual({ rows: 4, keys: 9 });
});

describe('the schedule of a rollout', () => {
  const sampling = { temperature: 1, topK: 0, topP: 1, minP: 0, maxTokens: 1, stop: [] };

  it.each([
    [64, 'all together'],
    [4, 'four at a time'],
  ])('%i: steps and tokens are those of the engine', async (maxBatch) => {
    const workshop = new Workshop();
    const config = tinyConfig();
    const policy = workshop.policy(config, 'float32');
    const engine = workshop.engine(config, { maxBatch });
    const shared = text(3, 21);
    const prompts = [shared, shared, shared, text(4, 9), [...shared.slice(0, 12), 1, 2], text(5, 17), shared];
    const lengths = [5, 9, 3, 7, 7, 2, 11];
    const requests = prompts.map((prompt, i) => request(policy, prompt, { maxTokens: lengths[i] ?? 1 }));
    for (const one of requests) engine.submit({ ...one, ignoreStop: true });
    let steps = 0;
    for (; !engine.idle; steps++) engine.step();

    let responses = 0;
    const schedule = new DecodeSchedule(
      // Responses that share nothing.
      ({ sampling: { maxTokens } }) => new Int32Array(maxTokens).fill(-++responses),
      { maxBatch },
    );
    await Promise.all(
      prompts.map((prompt, i) =>
        schedule.complete({
          policy: 'p',
          prompt: Int32Array.from(prompt),
          sampling: { ...sampling, maxTokens: lengths[i] ?? 1 },
          counter: [0, i, 0, 0, 0],
        }),
      ),
    );
    const { phases, decodedTokens, prefillRows } = schedule.work;
    const statistics = engine.statistics();
    expect(decodedTokens).toBe(lengths.reduce((a, b) => a + b));
    const planned = phases.reduce((sum, phase) => sum + phase.steps, 0);
    // The engine may let a request wait for the prefill of another that begins like it.
    expect(steps - planned).toBeGreaterThanOrEqual(0);
    expect(steps - planned).toBeLessThanOrEqual(3);
    // Every sample but each response's last is computed, and the prompts' unshared tokens; a prompt that is known whole
    // counts one row, its last, which the engine computes again only where that prompt's logits are gone.
    const computed = statistics.prefillTokens + statistics.decodeTokens;
    const expected = prefillRows + decodedTokens - lengths.length;
    expect(Math.abs(computed - expected)).toBeLessThanOrEqual(prompts.length);
    workshop.dispose();
  });

  it('counts a prompt that several read once, and their own tokens each', async () => {
    const schedule = new DecodeSchedule(() => new Int32Array(4), { maxBatch: 8 });
    const prompt = Int32Array.from({ length: 300 }, (_, i) => i);
    const one = { policy: 'p', sampling, counter: [0, 0, 0, 0, 0] as const };
    const alone = { ...one, prompt: Int32Array.of(-1, -2) };
    // Prompts are the same where their tokens are.
    await Promise.all(
      [{ ...one, prompt }, { ...one, prompt: prompt.slice() }, alone].map((call) => schedule.complete(call)),
    );
    const own = 3 * (4 / 2);
    const blocks = 512 + 256 + 256 + 256;
    expect(schedule.work.phases).toEqual([
      { steps: 4, sequences: 3, context: 302 + own, padded: blocks, keys: 602 + own, bases: [3] },
    ]);
    expect(schedule.work.prefillRows).toBe(300 + 1 + 2);
    expect(schedule.work.prefills).toEqual([{ rows: 303, drawing: 3 }]);
  });

  it('runs what has weights of its own by itself, and prompts in parts', async () => {
    const schedule = new DecodeSchedule(({ policy }) => new Int32Array(policy === 'long' ? 5 : 2), {
      maxBatch: 8,
      prefillTokens: 6,
      baseOf: (policy) => policy,
    });
    const call = (policy: string, first: number) => {
      const prompt = Int32Array.from({ length: 4 }, (_, i) => first + i);
      return schedule.complete({ policy, prompt, sampling, counter: [0, 0, 0, 0, 0] });
    };
    await Promise.all([call('long', 0), call('short', 10), call('long', 20)]);
    expect(schedule.work.phases.map(({ steps, bases }) => ({ steps, bases }))).toEqual([
      { steps: 2, bases: [2, 1] },
      { steps: 3, bases: [2] },
    ]);
    expect(schedule.work.prefills).toEqual([
      { rows: 6, drawing: 2 },
      { rows: 2, drawing: 2 },
      { rows: 4, drawing: 1 },
    ]);
  });
});

test('without a tokenizer, texts of other responses are others, and as long in tokens', () => {
  const ids = (first: number) => Int32Array.from({ length: 9 }, (_, i) => first + i);
  const texts = [1, 2, 3].map((first) => estimatedTokenizer.decode(ids(first)));
  expect(new Set(texts.map((text) => text.slice(0, 8))).size).toBe(3);
  for (const text of texts) expect(estimatedTokenizer.encodePlain(text).length).toBe(9);
});

describe('the step of a run', () => {
  it("has the workflow's own calls, with the responses of before in their prompts", async () => {
    const { config } = loadRunConfig('default', [
      'rollout.promptsPerStep=3',
      'rollout.episodesPerPrompt=2',
      'workflow.prompts=full',
    ]);
    const step = await planStep(config, estimatedTokenizer, { responseTokens: [6] });
    expect(step.broken).toBeUndefined();
    expect(step.calls.map(({ role }) => role).sort()).toEqual([
      ...new Array(6).fill('aggregator'),
      ...new Array(18).fill('generator'),
    ]);
    expect(step.calls.every(({ completion }) => completion.ids.length === 6)).toBe(true);
    const length = (role: string) => step.calls.find((call) => call.role === role)?.prompt.length ?? 0;
    expect(length('aggregator')).toBeGreaterThan(length('generator') + 2 * 6);
    expect(step.policies.map(({ name }) => name)).toEqual(['generator', 'aggregator']);
  });

  it('takes lengths of responses in turn, none longer than its role may have', async () => {
    const { config } = loadRunConfig('default', [
      'workflow.name=single',
      'rollout.promptsPerStep=1',
      'rollout.episodesPerPrompt=5',
      'rollout.sampling.maxTokens=8',
    ]);
    const step = await planStep(config, estimatedTokenizer, { responseTokens: [3, 30] });
    expect(step.calls.map(({ completion }) => completion.ids.length)).toEqual([3, 8, 3, 8, 3]);
    expect(step.decode.phases.map(({ steps, sequences }) => [steps, sequences])).toEqual([
      [3, 5],
      [5, 2],
    ]);
  });

  it('is divided by problems, and the optimizer by shards', async () => {
    const { config } = loadRunConfig('default', [
      'model.dtype=bfloat16',
      'rollout.promptsPerStep=5',
      'rollout.episodesPerPrompt=2',
    ]);
    const whole = await planStep(config, estimatedTokenizer, { responseTokens: [6] });
    const part = await planStep(config, estimatedTokenizer, { responseTokens: [6], devices: 2 });
    expect(part.share).toBe(3 / 5);
    const prompts = (step: typeof whole) => new Set(step.calls.map(({ prompt }) => prompt.join()));
    expect(part.calls.length).toBe((3 / 5) * whole.calls.length);
    expect([...prompts(part)].filter((prompt) => prompts(whole).has(prompt)).length).toBeGreaterThan(2);
    const work = stepWork(shape('qwen3-0.6b'), config, part);
    const trained = 596_049_920;
    const policy = [
      { bytes: 2 * trained, count: 1 },
      { bytes: (4 * trained) / 2, count: 3 },
    ];
    expect(work.memory.held.map(({ tensors }) => tensors)).toEqual([policy, policy]);
    expect(
      work.exchanges.map(({ name, reduceScatter, allGather }) => [name, reduceScatter, allGather]),
    ).toEqual([
      // Three voters are three groups.
      ['exchange generator', 3 * 4 * trained, 2 * trained],
      ['exchange aggregator', 4 * trained, 2 * trained],
      ['records', 0, expect.any(Number)],
    ]);
    expect(stepWork(shape('qwen3-0.6b'), config, whole).exchanges).toEqual([]);
  });

  it('needs more of everything for a larger shape, and less memory for adapters', async () => {
    const { config } = loadRunConfig('default', ['model.dtype=bfloat16', 'rollout.promptsPerStep=2']);
    const step = await planStep(config, estimatedTokenizer);
    const peak = (name: string, parameters: 'full' | 'lora') => {
      const policies = step.policies.map((policy) => ({ ...policy, parameters }));
      const work = stepWork(shape(name), config, { ...step, policies });
      return planOnDevice(shape(name), work, findDevice('h100'), 'bfloat16');
    };
    const [small, large, lora] = [
      peak('qwen3-0.6b', 'full'),
      peak('qwen3-4b', 'full'),
      peak('qwen3-4b', 'lora'),
    ];
    expect(large.seconds).toBeGreaterThan(3 * small.seconds);
    expect(large.memory.peak).toBeGreaterThan(large.memory.device);
    expect(lora.memory.peak).toBeLessThan(large.memory.device / 4);
    // Two policies of 4.02 · 10⁹ parameters with bf16 weights, fp32 masters and two moments.
    const policies = large.memory.parts.filter(({ name }) => name.startsWith('policy'));
    expect(policies.map(({ bytes }) => bytes)).toEqual([14 * 4_022_468_096, 14 * 4_022_468_096]);
  });
});

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
    const one = { steps: 3, sequences: 2, context: 0, padded: 0, keys: 0 };
    const seconds = (bases: number[]) => {
      const decode = { ...idle.decode, phases: [{ ...one, bases }] };
      const [, decoding] = ratedPhases(config, { ...idle, decode }, { ...device, launch: 0 }, 'bfloat16');
      return decoding?.parts?.memory ?? 0;
    };
    expect(seconds([1, 1]) - seconds([2])).toBeCloseTo((3 * weights) / 1e12, 9);
  });
});

const need = (name: string, bytes: number) => ({ name, tensors: [{ bytes, count: 1 }] });
/** A step in which nothing is computed. */
const idle: StepWork = {
  decode: noDecoding(),
  policies: [],
  adapters: false,
  memory: {
    held: [need('model', 5)],
    rollout: [],
    training: [need('activations', 9)],
    cpu: { held: [need('weights laid out for decoding', 2)], rollout: [] },
    gpu: { training: [need('logits of a chunk', 3)] },
  },
  cache: { token: 1, tokens: 7, limit: 'auto', most: 1000 },
  rows: { largest: 0, computed: 0, seen: 0 },
  exchanges: [],
  devices: 1,
};

describe('a step on a device', () => {
  const device = { ...findDevice('h100'), overhead: 1 };
  const plan = (over: Partial<StepWork> = {}, links = device.links, hosts = 1) =>
    planOnDevice(shape('qwen3-0.6b'), { ...idle, ...over }, { ...device, links }, 'bfloat16', hosts);

  it('peaks where most is held', () => {
    expect(plan().memory).toMatchObject({ peak: 5 + 9 + 3 + 1, during: 'training' });
    const cpu = { ...device, launch: 0 };
    const { memory } = planOnDevice(shape('qwen3-0.6b'), idle, cpu, 'bfloat16');
    expect(memory).toMatchObject({ peak: 5 + 2 + 9 + 1, during: 'training' });
  });

  it('has no more in its cache than is allowed, or half of what is free', () => {
    const cache = { token: 2, tokens: 700, limit: 'auto', most: 1000 } as const;
    expect(plan({ cache }).cacheTokens).toEqual({ planned: 1000, used: 700 });
    expect(plan({ cache: { ...cache, limit: 100 } }).memory.peak).toBe(5 + 100 + 1);
    const memory = { ...idle.memory, held: [need('all but 400 bytes', device.memory - 401)] };
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
    const batch = (rows: number) => ({ rows, keys: 0, entries: 0 });
    const step: StepWork = {
      ...idle,
      devices: 2,
      decode: {
        ...idle.decode,
        prefills: [{ rows: 51, drawing: 11 }],
        phases: [
          { steps: 2, sequences: 3, context: 0, padded: 0, keys: 3 * 30, bases: [1, 2] },
          // Less before them than was measured.
          { steps: 1, sequences: 1, context: 0, padded: 0, keys: 10, bases: [1] },
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
    };
    const links = { reduceScatter: 4, allGather: 2 };
    const plan = planOnCpu(step, { name: 'here', memory: 405, costs, links, repacks: false });
    expect(Object.fromEntries(plan.phases.map(({ name, seconds }) => [name, seconds]))).toEqual({
      // 6 s for 51 rows, of which 2 are what 11 sequences take in any case.
      prefill: expect.closeTo(4, 9),
      decode: expect.closeTo(2 * (1 + 1.5 + 0.03) + 1, 9),
      'packing weights': 3,
      'forward p': expect.closeTo(1 + 1.5, 9),
      'backward p': expect.closeTo(2 + 4, 9),
      'statistics p': expect.closeTo(0.6, 9),
      'optimizer p': expect.closeTo(0.3, 9),
      'accumulators p': expect.closeTo(0.3, 9),
      'exchange p': 2 + 3,
    });
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
      training: { p: { ...training, optimizer: 0.3, batches: [{ rows: 200, forward: 2, backward: 5 }] } },
    };
    const whole = withLayers(10, [2, costs], [4, more]);
    expect(whole.decode).toEqual([
      { rows: 1, seconds: 3 },
      { rows: 4, seconds: 4.5 },
    ]);
    expect(whole.packing).toBe(11);
    expect(whole.prefill).toEqual(costs.prefill);
    expect(whole.training.p?.optimizer).toBeCloseTo(0.6, 12);
    // 1.5 and 4 s at 200 rows of the smaller one.
    expect(whole.training.p?.batches).toEqual([{ rows: 200, forward: 3.5, backward: 8 }]);
  });
});

describe('troupe plan', () => {
  it('prints memory and time as JSON', async () => {
    const plan = await json<{ device: string; seconds: number; calls: number; phases: { name: string }[] }>([
      'plan',
      '--device',
      'h200',
    ]);
    expect(plan.device).toBe(DEVICES.h200?.name);
    expect(plan.calls).toBe(64 * 4 * 4);
    expect(plan.seconds).toBeGreaterThan(0);
    expect(plan.phases.map(({ name }) => name)).toContain('training aggregator');
  });

  it('says which devices there are', async () => {
    await fails(['plan', '--device', 'h1000'], ['h1000', 'h100', 'cpu']);
    await fails(['plan', '--devices', '3', '--hosts', '2'], ['--hosts', 'is 2; 3 devices']);
    await fails(['plan', '--response-tokens', '12,0'], ['--response-tokens', '12,0', 'whole number']);
    await fails(['plan', '--device', 'cpu', '--devices', '2', '--hosts', '2'], ['--hosts', 'is 2']);
    await fails(['plan', '--shape', 'qwen3-4'], ['qwen3-4b']);
  });
});
