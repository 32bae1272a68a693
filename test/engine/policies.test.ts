/** Policies in the engine: what is replaced is freed, and a restore that fails changes nothing. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/config/package.js';
import { native } from '../../src/engine/native.js';
import type { NativeTensor } from '../../src/engine/native-model.js';
import type { CreatePolicyRequest } from '../../src/engine/protocol.js';
import { openSafetensors, saveSafetensors } from '../../src/engine/safetensors.js';
import { scope } from '../../src/engine/scope.js';
import { Session } from '../../src/engine/session.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-policies-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const session = new Session(async () => {});
const load = (name = 'model') =>
  session.run(
    'loadModel',
    {
      name,
      folder: join(packageRoot(), 'models', 'troupe-0.3m'),
      dtype: 'float32',
      device: 'cpu',
      rollout: { cacheBytes: 1 << 20, maxBatch: 1, prefillTokens: 1, seed: 0, deterministic: false },
    },
    0,
  );
const create = (over: Partial<CreatePolicyRequest>) =>
  session.run(
    'createPolicy',
    {
      name: 'policy',
      model: 'model',
      parameters: { kind: 'full' },
      trainable: true,
      optimizer: { betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0 },
      seed: 0,
      ...over,
    },
    0,
  );
const sequence = Int32Array.of(1, 2, 3, 4);
async function score(policy = 'policy'): Promise<number[]> {
  const scored = await session.run('score', { policy, sequences: [sequence], temperature: 1 }, 0);
  return Array.from((scored as Float32Array[])[0] ?? []);
}
/** One update that moves the parameters. */
const train = (learningRate: number, groups = ['all']) =>
  session.run(
    'train',
    {
      policy: 'policy',
      calls: [
        {
          prompt: sequence.slice(0, 1),
          response: sequence.slice(1),
          rolloutLogprobs: new Float32Array(3),
          temperature: 1,
          advantage: 1,
          weight: 1,
          group: 0,
        },
      ],
      groups,
      mismatchOnly: [],
      loss: { module: join(packageRoot(), 'build/js/learning/losses/policy-gradient.js'), options: {} },
      reference: false,
      learningRate,
      clipNorm: 1,
      microBatchRows: 100,
      update: true,
    },
    0,
  );
const used = () => native().deviceMemory('cpu').used;

beforeAll(() => load());

describe('under a name that is taken', () => {
  it.each<[string, Partial<CreatePolicyRequest>]>([
    ['a trained policy', {}],
    ['an adapter', { parameters: { kind: 'lora', rank: 4, alpha: 8, targets: ['q', 'v'] } }],
    ['a policy that is only restored', { trainable: false, restored: true }],
  ])('%s frees the one before it', async (_what, over) => {
    await create(over);
    await score();
    const before = used();
    for (let i = 0; i < 3; i++) await create(over);
    await score();
    expect(used()).toBe(before);
  });

  it('a model frees the one before it, with its policies', async () => {
    await load('other');
    await create({ name: 'p', model: 'other', trainable: false });
    const before = used();
    await load('other');
    await expect(score('p')).rejects.toThrow(/holds no policy "p"/);
    await create({ name: 'p', model: 'other', trainable: false });
    expect(used()).toBe(before);
  });
});

it('an update leaves no accumulators behind, however many groups it had', async () => {
  await create({});
  await train(1e-2);
  const before = used();
  await train(1e-2, ['all', 'none', 'none either']);
  expect(used()).toBe(before);
});

describe('restoring', () => {
  const file = join(folder, 'state.safetensors');

  it('gives back parameters, optimizer and version', async () => {
    await create({});
    await train(1e-2);
    await session.run('savePolicy', { policy: 'policy', file }, 0);
    const scored = await score();
    await train(1e-2);
    const next = await score();
    expect(next).not.toEqual(scored);
    expect(await session.run('restorePolicy', { policy: 'policy', file }, 0)).toMatchObject({ version: 1 });
    expect(await score()).toEqual(scored);
    await train(1e-2);
    expect(await score()).toEqual(next);
  });

  it('into a policy without training gives the parameters', async () => {
    await session.run('restorePolicy', { policy: 'policy', file }, 0);
    await create({ name: 'reader', trainable: false, restored: true });
    expect(await score('reader')).not.toEqual(await score());
    await session.run('restorePolicy', { policy: 'reader', file }, 0);
    expect(await score('reader')).toEqual(await score());
  });

  /** The saved state, changed. */
  function changed(
    name: string,
    change: (tensors: Record<string, NativeTensor | undefined>) => void,
    steps = '1',
  ): string {
    const saved = openSafetensors(file);
    const path = join(folder, name);
    scope(() => {
      const tensors: Record<string, NativeTensor | undefined> = {};
      for (const one of saved.names) tensors[one] = saved.tensor(one);
      change(tensors);
      saveSafetensors(path, tensors as Record<string, NativeTensor>, { optimizer_steps: steps });
    });
    saved.dispose();
    return path;
  }

  it.each<[string, RegExp, () => string]>([
    ['without parameters', /is no training state/, () => changed('a', (tensors) => delete tensors.master)],
    ['with a count that is none', /is no training state/, () => changed('b', () => {}, 'many')],
    [
      'with half of the moments',
      /the optimizer state of parameter \d is incomplete/,
      () => changed('c', (tensors) => delete tensors['0.exp_avg']),
    ],
    [
      'with moments of another shape',
      /holds \d+ numbers of 0\.exp_avg, policy policy has \d+/,
      () =>
        changed('d', (tensors) => {
          tensors['0.exp_avg'] = tensors['1.exp_avg'];
        }),
    ],
    [
      'with an average of another size',
      /holds \d+ parameters, policy policy has \d+/,
      () =>
        changed('e', (tensors) => {
          tensors['average.generator'] = tensors['1.exp_avg'];
        }),
    ],
  ])('a file %s changes nothing', async (_what, message, make) => {
    await create({});
    await session.run('restorePolicy', { policy: 'policy', file }, 0);
    const before = await score();
    await expect(session.run('restorePolicy', { policy: 'policy', file: make() }, 0)).rejects.toThrow(
      message,
    );
    expect(await score()).toEqual(before);
    expect(await train(0)).toMatchObject({ version: 2 });
  });
});
