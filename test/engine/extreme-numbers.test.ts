/**
 * Numbers from the ends of their range in every place of the addon's functions: sizes whose product no integer holds, NaN
 * where a number becomes one. Each is an error in words or does no harm; scripts/check-sanitizers.mjs runs this file over
 * arithmetic that ends the process where it overflows. Left out are counts of things that are made one by one (gradient
 * groups): 2⁵³ of them run out of memory, rightly.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, expect, it } from 'vitest';
import { native } from '../../src/engine/native.js';
import type { NativeModelConfig } from '../../src/engine/native-model.js';
import { Tensor } from '../../src/engine/tensor.js';
import { request, text, tinyConfig, Workshop } from '../rollout/tiny.js';

const MOST = Number.MAX_SAFE_INTEGER;
const NUMBERS = [
  -1,
  0,
  0.5,
  MOST,
  -MOST,
  2n ** 63n - 1n,
  -(2n ** 63n),
  Number.NaN,
  Number.POSITIVE_INFINITY,
  1e300,
];
const ELEMENTS = {
  Int32Array: [-1, 2 ** 31 - 1, -(2 ** 31)],
  Float64Array: [-1, 0, Number.NaN, Infinity, 1e300],
};

type Path = (string | number)[];

/** Every number and every first element of a typed array in `value`, with what is put in its place. */
function* extremes(value: unknown, path: Path = []): Generator<[Path, unknown]> {
  if (typeof value === 'number') for (const one of NUMBERS) yield [path, one];
  else if (value instanceof Int32Array || value instanceof Float64Array) {
    for (const one of ELEMENTS[value.constructor.name as keyof typeof ELEMENTS])
      yield [path, value.with(0, one)];
  } else if (typeof value === 'object' && value !== null) {
    for (const [key, one] of Object.entries(value)) yield* extremes(one, [...path, key]);
  }
}

function replaced(value: unknown, [key, ...rest]: Path, by: unknown): unknown {
  if (key === undefined) return by;
  const copy = (Array.isArray(value) ? [...value] : { ...(value as object) }) as Record<
    string | number,
    unknown
  >;
  copy[key] = replaced(copy[key], rest, by);
  return copy;
}

/** What the calls with one extreme number each said; a call that returned is ''. */
function tried<A>(args: A, call: (args: A) => unknown): Record<string, string> {
  call(args); // the right arguments are right
  const said: Record<string, string> = {};
  for (const [path, by] of extremes(args)) {
    const name = `${path.join('.')} ${typeof by === 'object' ? by?.[0 as never] : String(by)}`;
    try {
      call(replaced(args, path, by) as A);
      said[name] = '';
    } catch (error) {
      said[name] = (error as Error).message;
      expect(said[name], name).toMatch(/\w+ \w+/);
    }
  }
  return said;
}

const addon = native();
const folder = mkdtempSync(join(tmpdir(), 'troupe-extreme-'));
let workshop: Workshop;
beforeEach(() => {
  workshop = new Workshop();
});
afterEach(() => workshop.dispose());
afterAll(() => rmSync(folder, { recursive: true }));

const config = tinyConfig();
const shard = { index: 0, count: 1 };

it('sizes of models, adapters and shards', () => {
  const base = tried([config, shard] as const, ([sizes, part]) =>
    addon.createBase(sizes as NativeModelConfig, 'float32', 'cpu', true, part).dispose(),
  );
  expect(base[`0.hiddenSize ${MOST}`]).toMatch(
    /sizes are all at least 1 and at most 2147483647, not 9007199254740991/,
  );
  expect(base['0.maxPositions 0']).toMatch(/sizes/);
  expect(base['0.layers 9223372036854775807']).toMatch(/a whole number/);
  const adapter = { rank: 4, alpha: 8, targets: ['q' as const] };
  const said = tried([adapter, shard] as const, ([options, part]) =>
    addon.createAdapter(config, options, 'float32', 'cpu', part).dispose(),
  );
  expect(said[`0.rank ${MOST}`]).toMatch(/lora_\w\.weight of .* is too large/);
});

it('a model of possible sizes whose product is not', () => {
  const huge = {
    ...config,
    layers: 2 ** 14,
    heads: 2 ** 14,
    kvHeads: 2 ** 14,
    headDim: 2 ** 16,
    hiddenSize: 2 ** 20,
  };
  const inverseFrequencies = new Float64Array(2 ** 15).fill(1);
  expect(() => addon.createBase({ ...huge, inverseFrequencies }, 'bfloat16', 'cpu', false)).toThrow(
    /a model that has model\.layers\.\d+\.self_attn\.\w_proj\.weight of \[\d+, \d+\] is too large/,
  );
});

it('what the rollout engine is made with and asked for', () => {
  const policy = workshop.policy(config, 'float32');
  const options = { cacheBytes: 2 ** 20, maxBatch: 4, prefillTokens: 64, seed: 1, deterministic: false };
  const {
    id: _,
    policy: __,
    ...asked
  } = request(policy, text(1, 20), {
    stopTokens: Int32Array.of(7),
    maxTokens: 2,
    counter: [1, 1, 0, 0, 0],
  });
  const results = new Map<unknown, string | undefined>();
  const run = ([settings, one]: readonly [typeof options, typeof asked]) => {
    const engine = addon.createRolloutEngine(config, settings);
    try {
      engine.submit({ ...one, id: 1, policy });
      while (!engine.idle) for (const result of engine.step()) results.set(one.maxTokens, result.error);
    } finally {
      engine.dispose();
    }
  };
  const said = tried([options, asked] as const, run);
  // A cache that nobody sized, for more sequences than a product can count: what is free decides.
  expect(tried([{ ...options, cacheBytes: 0 }, asked] as const, run)[`0.maxBatch ${MOST}`]).toBe('');
  expect(said[`1.topK ${MOST}`]).toBe('');
  run([options, asked]);
  expect([results.has(2), results.get(2)]).toEqual([true, undefined]);
  expect(results.get(MOST)).toMatch(/are more than the model's 512 positions/);
});

it('what is trained and scored', () => {
  const policy = workshop.policy(config, 'float32');
  const call = {
    prompt: Int32Array.from(text(1, 5)),
    response: Int32Array.from(text(2, 3)),
    group: 0,
    temperature: 1,
  };
  tried([call, 1, 100, 3] as const, ([one, temperature, activationBytes, count]) => {
    const batch = addon.pack([one], 1, true);
    try {
      const scored = policy.tokenLogprobs(batch, temperature, false, activationBytes);
      const likeliest = policy.likeliestTokens(batch, temperature, count);
      for (const tensor of [...Object.values(scored), ...Object.values(likeliest)]) tensor.dispose();
    } finally {
      batch.dispose();
    }
  });
});

it('optimizers, gradients, sketches and their products', () => {
  const base = workshop.base(config, 'float32');
  base.beginGradients(1);
  const theta = workshop.keep(base.master());
  const gradient = workshop.keep(base.gradient(0));
  const group = { learningRate: 0.1, weightDecay: 0.1 };
  tried(
    [group, [0.9, 0.99], 1e-8, 3, 0, 0.1, 1] as const,
    ([rates, betas, eps, steps, index, rate, norm]) => {
      const optimizer = addon.createAdamW(
        [{ parameters: [theta], ...rates }],
        betas as [number, number],
        eps,
      );
      try {
        optimizer.loadState({}, steps);
        optimizer.setLearningRate(index, rate);
        addon.clipGradNorm([gradient], norm);
        optimizer.step([gradient]);
      } finally {
        optimizer.dispose();
      }
    },
  );
  const whole = workshop.keep(Tensor.wrap(base.master()));
  const parts = [
    [0, base.decaySize],
    [base.decaySize, base.size],
  ].map(([from = 0, to = 0]) => {
    const part = workshop.keep(whole.narrow(0, from, to - from));
    return { parameters: [part.native], learningRate: 0.1, weightDecay: 0 };
  });
  const flat = workshop.keep(addon.createAdamW(parts, [0.9, 0.99], 1e-8));
  const step = { clip: 1, measure: true, keepTotal: false };
  tried([Float64Array.of(1), step, 0.5, 0] as const, ([coefficients, options, decay, k]) => {
    flat.stepParameters(base, coefficients, [], options);
    base.addGradients(gradient, decay, coefficients);
    base.gradientView(k, 'model.norm.weight').dispose();
  });
  tried([1, 0.1] as const, ([seed, std]) => addon.initialize(base, seed, std));
  tried({ replicates: 2, size: 3, seed: 1 }, (options) => {
    base.beginSketch(1, options);
    base.sketchGram();
  });
});

it('shapes of tensors, of a file, and of a batch', () => {
  tried([2, 3], (shape) => addon.tensor(new Float32Array(6), shape, 'float32', 'cpu').dispose());
  const said = tried([2, 3], (shape) =>
    addon.createSafetensors(join(folder, 'x'), [{ name: 'a', dtype: 'float32', shape }], {}).dispose(),
  );
  expect(said['0 -1']).toMatch(/tensor "a" has an impossible shape, \[-1, 3\]/);
  expect(said[`0 ${MOST}`]).toBe('');
  const large = [2 ** 32, 2 ** 32];
  expect(() =>
    addon.createSafetensors(join(folder, 'x'), [{ name: 'a', dtype: 'float32', shape: large }], {}),
  ).toThrow(/impossible shape/);
  const { treePlan } = addon as unknown as { treePlan(nodes: number[], rows: number): unknown };
  tried([0, 2, -1, 2, 1, 0], (nodes) => treePlan(nodes, 3));
});

it('the place of a rank', () => {
  const place = { host: '127.0.0.1', address: '127.0.0.1', interface: '', prefix: 'extreme', serve: true };
  const options = { ...place, rank: 0, size: 1, port: 1, timeoutSeconds: 5, nccl: false };
  const wrong = {
    rank: [MOST, 2 ** 32],
    size: [MOST, 2 ** 32 + 1],
    timeoutSeconds: [MOST, 1e300, Number.NaN],
  };
  for (const [name, numbers] of Object.entries(wrong)) {
    for (const number of numbers)
      expect(() => addon.createProcessGroup({ ...options, [name]: number })).toThrow(name);
  }
});
