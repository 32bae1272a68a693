/**
 * Guards against ranks that train something else than one rank would: gradients, statistics, interventions, clipping and
 * optimizer steps over shards, and training states that go on under another number of ranks. Three engines of this process
 * are one group for all cases; their calls are dealt out so that a group is on one rank only and a rank has none.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/config/package.js';
import { Engine } from '../../src/engine/engine.js';
import type { CreatePolicyRequest } from '../../src/engine/protocol.js';
import { freePort } from '../../src/engine/rank-place.js';
import { openSafetensors } from '../../src/engine/safetensors.js';
import { scope } from '../../src/engine/scope.js';
import { Tensor } from '../../src/engine/tensor.js';
import type { InterventionRequest, TrainCall, TrainRequest, TrainResult } from '../../src/engine/types.js';

const SIZE = 3;
const folder = mkdtempSync(join(tmpdir(), 'troupe-sharded-'));
const ranks = Array.from({ length: SIZE }, () => new Engine({ threads: 1 }));
const one = new Engine({ threads: 1 });
const engines = [one, ...ranks];

afterAll(async () => {
  await Promise.all(engines.map((engine) => engine.close()));
  rmSync(folder, { recursive: true, force: true });
});

beforeAll(async () => {
  const port = await freePort();
  const place = { host: '127.0.0.1', address: '127.0.0.1', interface: '', prefix: 'test', port };
  const group = { ...place, size: SIZE, timeoutSeconds: 20, nccl: false };
  await everyRank((engine, rank) => {
    return engine.send('join', { ...group, rank, localRank: rank, serve: rank === 0 });
  });
  const rollout = { cacheBytes: 1 << 20, maxBatch: 1, prefillTokens: 1, seed: 0, deterministic: false };
  const path = join(packageRoot(), 'models', 'troupe-0.3m');
  for (const dtype of ['float64', 'float32', 'bfloat16'] as const) {
    const model = { name: dtype, folder: path, dtype, device: 'cpu', rollout };
    await Promise.all(engines.map((engine) => engine.send('loadModel', model)));
  }
});

const everyRank = <T>(work: (engine: Engine, rank: number) => Promise<T>) => Promise.all(ranks.map(work));

const call = (i: number, group: number): TrainCall => ({
  prompt: Int32Array.of(1, 2, 3, 4 + i),
  response: Int32Array.of(5 + i, 6, 7 + i, 8),
  rolloutLogprobs: new Float32Array(4).fill(-4),
  temperature: 1,
  advantage: i % 2 === 0 ? 1 : -0.5,
  weight: 1 / 16,
  kl: 0.1,
  group,
});

/** Calls of each rank: the third group is on the second rank only, and the third rank has none. */
const dealt = [[call(0, 0), call(1, 1)], [call(2, 0), call(3, 2)], []];

const request: TrainRequest = {
  policy: 'policy',
  calls: dealt.flat(),
  groups: ['a', 'b', 'c'],
  mismatchOnly: [],
  loss: { module: join(packageRoot(), 'build/js/learning/losses/policy-gradient.js'), options: {} },
  regularisation: { kl: 'k3', entropy: 0 },
  reference: true,
  learningRate: 1e-3,
  clipNorm: 0.1,
  microBatchRows: 100,
  update: true,
};

const damped: InterventionRequest = {
  roles: [0, 1].map((r) => ({
    role: `role ${r}`,
    groups: r === 0 ? [0, 1] : [2],
    slotFactor: 1,
    damping: 0.5,
    averageDecay: 0.9,
    rate: 1 + r,
  })),
  balance: 'mass',
  order: [0, 1],
};

const lora = { kind: 'lora', rank: 3, alpha: 8, targets: ['q', 'v', 'down'] } as const;
const policyOf = (model: string, parameters: CreatePolicyRequest['parameters']): CreatePolicyRequest => ({
  name: 'policy',
  model,
  parameters,
  trainable: true,
  reference: { kind: 'average', decay: 0.7 },
  optimizer: { betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.1 },
  seed: 3,
});

/** The update by one rank, and by each of three. */
async function train(over: Partial<TrainRequest>, parts = dealt): Promise<[TrainResult, TrainResult[]]> {
  const calls = parts.flat();
  return await Promise.all([
    one.send('train', { ...request, ...over, calls }),
    everyRank((engine, rank) => engine.send('train', { ...request, ...over, calls: parts[rank] ?? [] })),
  ]);
}

function expectNear(
  found: Iterable<number>,
  expected: Iterable<number>,
  tolerance: number,
  what: string,
): void {
  const values = [...expected];
  const others = [...found];
  expect(others.length, what).toBe(values.length);
  const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const off = values.reduce(
    (most, value, i) => Math.max(most, Math.abs(value - (others[i] ?? Number.NaN))),
    0,
  );
  expect(off / (largest || 1), what).toBeLessThan(tolerance);
}

/** All that is said of gradients; every rank says the same, to the bit. */
function expectSame(results: readonly TrainResult[], expected: TrainResult, tolerance: number): void {
  const [first] = results as [TrainResult];
  const { gram, applied, optimizer, totalNorm, tokens } = expected.gradients;
  expectNear(first.gradients.gram, gram, tolerance, 'gram');
  if (applied !== undefined)
    expectNear(first.gradients.applied?.gram ?? [], applied.gram, tolerance, 'applied');
  // AdamW divides by the root of what is small: its first steps turn on the last digits of tiny gradients.
  if (optimizer !== undefined)
    expectNear(first.gradients.optimizer ?? [], optimizer, 100 * tolerance, 'shares');
  expectNear([first.gradients.totalNorm], [totalNorm], tolerance, 'norm');
  expectNear(
    [first.loss, first.clipFactor],
    [expected.loss, expected.clipFactor],
    tolerance,
    'loss and clipping',
  );
  expect(first.gradients.tokens).toEqual(tokens);
  const said = ({ gradients, loss, clipFactor, updateCoherence }: TrainResult) => {
    return { gradients, loss, clipFactor, updateCoherence };
  };
  for (const other of results) expect(said(other)).toEqual(said(first));
}

const everySave = (file: string) =>
  everyRank((engine) => engine.send('savePolicy', { policy: 'policy', file }));

function expectSameState(file: string, expected: string, tolerance: number): void {
  const [a, b] = [openSafetensors(file), openSafetensors(expected)];
  expect(a.names).toEqual(b.names);
  expect(a.metadata).toEqual(b.metadata);
  scope(() => {
    for (const name of b.names) {
      expect(a.info(name)).toEqual(b.info(name));
      const [found, wanted] = [a, b].map((one) => Tensor.wrap(one.tensor(name)).toArray().map(Number));
      expectNear(found ?? [], wanted ?? [], tolerance, name);
    }
  });
  a.dispose();
  b.dispose();
}

const kinds: [string, string, CreatePolicyRequest['parameters'], number][] = [
  ['all parameters, fp64', 'float64', { kind: 'full' }, 1e-10],
  ['an adapter, fp64', 'float64', { ...lora, targets: [...lora.targets] }, 1e-10],
  ['all parameters, fp32', 'float32', { kind: 'full' }, 1e-5],
  ['an adapter, fp32', 'float32', { ...lora, targets: [...lora.targets] }, 1e-5],
];

describe.each(kinds)('three ranks train as one: %s', (name, model, parameters, tolerance) => {
  const file = join(folder, name);

  it('update after update, with interventions and clipping, towards their average', async () => {
    const policy = policyOf(model, parameters);
    await Promise.all(engines.map((engine) => engine.send('createPolicy', policy)));
    for (const index of [0, 1]) {
      const [expected, results] = await train({ intervention: damped, position: { index, of: 2 } });
      expectSame(results, expected, tolerance);
      expect(results[0]?.updateCoherence).toBeCloseTo(expected.updateCoherence ?? 0, 5);
    }
    await one.send('savePolicy', { policy: 'policy', file: `${file}-1` });
    await everySave(`${file}-3`);
    expectSameState(`${file}-3`, `${file}-1`, 100 * tolerance);
  });

  it('goes on with the state of any number of ranks, to the bit', async () => {
    await one.send('restorePolicy', { policy: 'policy', file: `${file}-3` });
    await everyRank((engine) => engine.send('restorePolicy', { policy: 'policy', file: `${file}-3` }));
    const [expected, results] = await train({ intervention: damped });
    expectSame(results, expected, tolerance);
    await everyRank((engine) => engine.send('restorePolicy', { policy: 'policy', file: `${file}-1` }));
    await everySave(`${file}-back`);
    expectSameState(`${file}-back`, `${file}-1`, Number.MIN_VALUE);
  });
});

it('masters apart from what is computed with: one rank has all calls, and steps like one that is alone', async () => {
  const policy = policyOf('bfloat16', { kind: 'full' });
  await Promise.all(engines.map((engine) => engine.send('createPolicy', policy)));
  const parts = [[], dealt.flat(), []];
  for (let i = 0; i < 2; i++) {
    const [expected, results] = await train({}, parts);
    expectSame(results, expected, 1e-6);
  }
  const file = join(folder, 'masters');
  await one.send('savePolicy', { policy: 'policy', file: `${file}-1` });
  await everySave(`${file}-3`);
  expectSameState(`${file}-3`, `${file}-1`, 1e-6);
  const exported = (engine: Engine, name: string) => {
    return engine.send('exportPolicy', { policy: 'policy', folder: join(folder, name), dtype: 'float32' });
  };
  await Promise.all([exported(one, 'whole'), everyRank((engine) => exported(engine, 'parts'))]);
  const [whole, parted] = ['whole', 'parts'].map((name) => join(folder, name, 'model.safetensors'));
  expectSameState(parted ?? '', whole ?? '', 1e-6);
});

it('sketches add up', async () => {
  const policy = policyOf('float64', { kind: 'full' });
  await Promise.all(engines.map((engine) => engine.send('createPolicy', policy)));
  const statistics = { method: 'sketch', sketch: { replicates: 4, size: 8, seed: 1 } } as const;
  const [expected, results] = await train({ statistics });
  expectSame(results, expected, 1e-10);
  const [found, wanted] = [results[0], expected].map((result) => result?.gradients.replicates?.gram ?? []);
  expectNear(found ?? [], wanted ?? [], 1e-10, 'replicates');
});

it('what rank 0 cannot write or read is an error on all, after which they go on', async () => {
  const policy = policyOf('float32', { kind: 'full' });
  await everyRank((engine) => engine.send('createPolicy', policy));
  const file = join(folder, 'nowhere', 'state');
  for (const command of ['savePolicy', 'restorePolicy'] as const) {
    const ended = await Promise.allSettled(
      ranks.map((engine) => engine.send(command, { policy: 'policy', file })),
    );
    for (const one of ended) expect(String((one as PromiseRejectedResult).reason)).toMatch(/nowhere/);
  }
  const results = await everyRank((engine, rank) =>
    engine.send('train', { ...request, calls: dealt[rank] ?? [] }),
  );
  expect(results.map(({ version }) => version)).toEqual([1, 1, 1]);
});
