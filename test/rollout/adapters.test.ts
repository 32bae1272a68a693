/**
 * Adapters whose A lie behind the base's weights, as a GPU's kernels want them, on the CUDA kernels' emulation: they draw what
 * those draw for which there was no room, and an adapter's place is the next one's when it goes.
 */
import { describe, expect, test } from 'vitest';
import { native } from '../../src/engine/native.js';
import type { AdapterConfig, DType, NativeModelConfig } from '../../src/engine/native-model.js';
import { useEmulation } from '../kernels/counting.js';
import { maxDifference, request, run, text, tinyConfig, Workshop } from './tiny.js';
import { useWorkshop } from './use-workshop.js';

useEmulation();
const workshop = useWorkshop();
const addon = native();

const all: AdapterConfig['targets'] = ['q', 'k', 'v', 'o', 'gate', 'up', 'down'];
const adapters: AdapterConfig[] = [
  { rank: 4, alpha: 8, targets: all },
  { rank: 12, alpha: 6, targets: ['q', 'v', 'up', 'down'] },
  { rank: 5, alpha: 5, targets: ['k', 'o', 'gate'] },
];

const configs: Record<string, NativeModelConfig> = {
  'norms on q and k': tinyConfig({ headDim: 64, hiddenSize: 64, heads: 4 }),
  'biases everywhere': tinyConfig({ qkNorm: false, qkvBias: true, outputBias: true, mlpBias: true }),
};

const baseOf = (config: NativeModelConfig, dtype: DType, ranks: number, owner: Workshop = workshop) =>
  owner.base(config, dtype, 1, false, ranks);

/** What the base and each adapter on it draw, in one batch. */
function drawn(config: NativeModelConfig, dtype: DType, ranks: number, count: number) {
  const owner = new Workshop();
  const base = baseOf(config, dtype, ranks, owner);
  const own = adapters.map((options, i) => ({
    options,
    set: owner.adapter(config, options, dtype, 3 + i),
  }));
  const policies = [
    owner.keep(addon.createPolicy(config, base)),
    ...own.map(({ options, set }) => owner.keep(addon.createPolicy(config, base, set, options))),
  ];
  const engine = owner.engine(config, { prefillTokens: 64 });
  const requests = Array.from({ length: count }, (_, i) =>
    request(policies[i % 4] as (typeof policies)[0], text(i % 5, 3 + (i % 7) * 4), {
      maxTokens: 9,
      counter: [0, i, 0, 0, 0],
    }),
  );
  const results = run(engine, requests);
  owner.dispose();
  return results;
}

describe.each(Object.entries(configs))('%s', (_, config) => {
  test.each([
    ['float64', 1e-9],
    ['float32', 1e-4],
  ] as const)('the same tokens with room for all, for some and for none, %s', (dtype, tolerance) => {
    const [none, some, room] = [0, 24, 32].map((ranks) => drawn(config, dtype, ranks, 24));
    for (const found of [some, room]) {
      for (const [i, { ids, logprobs }] of (found ?? []).entries()) {
        expect(ids).toEqual(none?.[i]?.ids);
        expect(maxDifference(logprobs, none?.[i]?.logprobs ?? [])).toBeLessThan(tolerance);
      }
    }
  });

  test('bfloat16: first log-probabilities are as near to float32 as without room', () => {
    const first = (dtype: DType, ranks: number) =>
      drawn(config, dtype, ranks, 64).map(({ ids, logprobs }) => [ids[0], logprobs[0]] as const);
    const exact = first('float32', 0);
    const error = (ranks: number) => {
      const same = first('bfloat16', ranks).flatMap(([id, logprob], i) =>
        id === exact[i]?.[0] ? [Math.abs((logprob ?? Number.NaN) - (exact[i]?.[1] ?? 0))] : [],
      );
      expect(same.length).toBeGreaterThan(32);
      return same.reduce((sum, value) => sum + value, 0) / same.length;
    };
    expect(error(32)).toBeLessThan(1.3 * error(0) + 1e-3);
  });
});

test('an adapter that changes draws with its new numbers, and one that goes leaves its place to another', () => {
  const config = tinyConfig();
  const options: AdapterConfig = { rank: 8, alpha: 16, targets: all };
  const base = baseOf(config, 'float32', 8);
  const engine = workshop.engine(config);
  const policyOf = (seed: number, owner: Workshop, on = base) =>
    owner.keep(addon.createPolicy(config, on, owner.adapter(config, options, 'float32', seed), options));
  const ids = (policy: ReturnType<typeof policyOf>, by = engine) =>
    run(
      by,
      [0, 1, 2, 3].map((i) => request(policy, text(i, 12), { counter: [0, i, 0, 0, 0] })),
    ).map((one) => [...one.ids]);
  const expected = [3, 4].map((seed) => {
    const owner = new Workshop();
    const found = ids(policyOf(seed, owner, baseOf(config, 'float32', 0, owner)), owner.engine(config));
    owner.dispose();
    return found;
  });
  for (const [i, seed] of [3, 4, 3].entries()) {
    const owner = new Workshop();
    const policy = policyOf(seed, owner);
    expect(ids(policy)).toEqual(expected[i % 2]);
    expect(ids(policy)).toEqual(expected[i % 2]);
    owner.dispose();
  }
  const changing = workshop.adapter(config, options, 'float32', 3);
  const policy = workshop.keep(addon.createPolicy(config, base, changing, options));
  expect(ids(policy)).toEqual(expected[0]);
  const a = changing.parameters.find(({ name }) => name.includes('lora_A'))?.name as string;
  const view = changing.view(a);
  (addon.call('aten::mul_', 'Scalar', [view, -1]) as { dispose(): void }).dispose();
  view.dispose();
  changing.commit();
  expect(ids(policy)).not.toEqual(expected[0]);
});

test('room for adapters is of a base that does not train, and so many ranks', () => {
  const config = tinyConfig();
  expect(() => addon.createBase(config, 'float32', 'cpu', true, undefined, 8)).toThrow(/does not train/);
  expect(() => addon.createBase(config, 'float32', 'cpu', false, undefined, -8)).toThrow(/not -8/);
});

test('one adapter on two bases decodes on each as on that one alone', () => {
  const config = tinyConfig();
  const options: AdapterConfig = { rank: 8, alpha: 16, targets: all };
  const adapter = workshop.adapter(config, options, 'float32', 3);
  const other = workshop.adapter(config, options, 'float32', 4);
  const [first, second] = [24, 16].map((ranks, i) => workshop.base(config, 'float32', 1 + i, false, ranks));
  if (first === undefined || second === undefined) throw new Error('two bases');
  const on = (base: typeof first, set: typeof adapter) =>
    workshop.keep(addon.createPolicy(config, base, set, options));
  const policies = [on(first, adapter), on(second, other), on(second, adapter)];
  const asked = (policy: (typeof policies)[0] | undefined, round: number) =>
    [0, 1, 2].map((i) =>
      request(policy as (typeof policies)[0], text(i, 12), { counter: [round, i, 0, 0, 0] }),
    );
  const alone = policies.map((policy, i) =>
    run(workshop.engine(config), asked(policy, i)).map(({ ids }) => [...ids]),
  );
  const engine = workshop.engine(config);
  for (const [i, policy] of policies.entries())
    expect(run(engine, asked(policy, i)).map(({ ids }) => [...ids])).toEqual(alone[i]);
});
