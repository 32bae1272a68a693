/** Fails if a KL term compares with other parameters than it is told: the start, a saved state, or a moving average. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/config/package.js';
import type { CreatePolicyRequest } from '../../src/engine/protocol.js';
import { openSafetensors } from '../../src/engine/safetensors.js';
import { scope } from '../../src/engine/scope.js';
import { Session } from '../../src/engine/session.js';
import { Tensor } from '../../src/engine/tensor.js';
import type { TrainCall } from '../../src/engine/types.js';
import { builtInLoss } from '../../src/learning/losses.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-references-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const session = new Session(async () => {});
const call: TrainCall = {
  prompt: Int32Array.of(1, 2),
  response: Int32Array.of(3, 4, 5),
  rolloutLogprobs: new Float32Array(3),
  temperature: 1,
  advantage: 1,
  weight: 1,
  group: 0,
};

beforeAll(() => {
  const rollout = { cacheBytes: 1 << 20, maxBatch: 1, prefillTokens: 1, seed: 0, deterministic: false };
  const model = join(packageRoot(), 'models', 'troupe-0.3m');
  const request = { name: 'model', folder: model, dtype: 'float32', device: 'cpu', rollout };
  return session.run('loadModel', request, 0);
});

const lora: CreatePolicyRequest['parameters'] = {
  kind: 'lora',
  rank: 4,
  alpha: 8,
  targets: ['q', 'v', 'down'],
};

const create = (over: Partial<CreatePolicyRequest>) => {
  const optimizer = { betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0 };
  const request = { name: 'p', model: 'model', parameters: lora, trainable: true, optimizer, seed: 0 };
  return session.run('createPolicy', { ...request, ...over }, 0);
};

async function step(): Promise<void> {
  const loss = await builtInLoss('policy-gradient');
  const request = { policy: 'p', calls: [call], groups: ['all'], mismatchOnly: [], loss, reference: false };
  await session.run(
    'train',
    { ...request, learningRate: 1e-2, clipNorm: 1, microBatchRows: 100, update: true },
    0,
  );
}

async function logprobs(under: 'policy' | 'reference'): Promise<number[]> {
  const request = { policy: 'p', calls: [call], microBatchRows: 100, under };
  const [values] = (await session.run('logprobs', request, 0)) as Float32Array[];
  return [...(values ?? [])];
}

const save = (name: string) => {
  const file = join(folder, `${name}.safetensors`);
  return Promise.resolve(session.run('savePolicy', { policy: 'p', file }, 0)).then(() => file);
};

function read(file: string, name: string): number[] {
  const saved = openSafetensors(file);
  try {
    return scope(() => Tensor.wrap(saved.tensor(name)).toArray());
  } finally {
    saved.dispose();
  }
}

function expectClose(got: readonly number[], expected: readonly number[], digits = 6): void {
  expect(got).toHaveLength(expected.length);
  for (const [i, value] of expected.entries()) expect(got[i]).toBeCloseTo(value, digits);
}

describe.each<[string, CreatePolicyRequest['parameters']]>([
  ['an adapter', lora],
  ['full parameters', { kind: 'full' }],
])('the reference of %s', (_what, parameters) => {
  it('is where it began, or a saved state', async () => {
    await create({ parameters });
    const start = await logprobs('policy');
    await step();
    const later = await logprobs('policy');
    expect(later).not.toEqual(start);
    expectClose(await logprobs('reference'), start);
    const file = await save('later');
    await create({ parameters, reference: { kind: 'state', file } });
    expectClose(await logprobs('policy'), start);
    expectClose(await logprobs('reference'), later);
  });

  it('is a moving average, which a checkpoint holds', async () => {
    const decay = 0.75;
    const reference = { kind: 'average', decay } as const;
    await create({ parameters, reference });
    const start = await logprobs('policy');
    expectClose(await logprobs('reference'), start);
    const states = [await save('0')];
    for (const name of ['1', '2']) {
      await step();
      states.push(await save(name));
    }
    const [zero = [], one = [], two = []] = states.map((file) => read(file, 'master'));
    const expected = two.map((value, i) => {
      const first = decay * (zero[i] ?? 0) + (1 - decay) * (one[i] ?? 0);
      return decay * first + (1 - decay) * value;
    });
    expectClose(read(states[2] ?? '', 'reference_average'), expected);
    const averaged = await logprobs('reference');
    expect(averaged).not.toEqual(await logprobs('policy'));
    expect(averaged).not.toEqual(start);

    // Going on from the checkpoint is going on.
    await step();
    const next = await logprobs('reference');
    expect(next).not.toEqual(averaged);
    await create({ parameters, reference });
    await session.run('restorePolicy', { policy: 'p', file: states[2] ?? '' }, 0);
    expect(await logprobs('reference')).toEqual(averaged);
    await step();
    expect(await logprobs('reference')).toEqual(next);
    // One from before the first step has none, and begins anew.
    await session.run('restorePolicy', { policy: 'p', file: states[0] ?? '' }, 0);
    expectClose(await logprobs('reference'), start);
  });
});
