/**
 * What the engine makes of a loss: which log-probabilities it compares with, importance weights, and gradients by group
 * that are what each group alone would give, whatever the loss.
 */
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/config/package.js';
import { Session } from '../../src/engine/session.js';
import type { TrainCall, TrainRequest, TrainResult } from '../../src/engine/types.js';
import { losses, openLoss } from '../../src/learning/losses.js';

const session = new Session(async () => {});

/** How far the rollout is above the policy: within every clip, and beyond on each side. */
const OFFSETS = [
  [0.1, -0.3, 0.2],
  [0.9, 0.8],
  [-0.1, -0.05, -0.8, 0.2],
];

let calls: TrainCall[] = [
  { response: [5, 6, 7], advantage: 1.5, group: 0 },
  { response: [8, 9], advantage: -1, group: 1 },
  { response: [6, 5, 4, 3], advantage: -2, group: 1 },
].map(({ response, ...call }) => ({
  ...call,
  prompt: Int32Array.of(1, 2, 3),
  response: Int32Array.from(response),
  temperature: 1,
  rolloutLogprobs: new Float32Array(response.length),
  weight: 1 / 9,
}));

beforeAll(async () => {
  const rollout = { cacheBytes: 1 << 20, maxBatch: 1, prefillTokens: 1, seed: 0, deterministic: false };
  const folder = join(packageRoot(), 'models', 'troupe-0.3m');
  await session.run('loadModel', { name: 'model', folder, dtype: 'float64', device: 'cpu', rollout }, 0);
  const optimizer = { betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0 };
  await session.run(
    'createPolicy',
    { name: 'policy', model: 'model', parameters: { kind: 'full' }, trainable: true, optimizer, seed: 0 },
    0,
  );
  const now = await logprobs();
  calls = calls.map((call, i) => {
    const rolloutLogprobs = Float32Array.from(now[i] ?? [], (value, t) => value + (OFFSETS[i]?.[t] ?? 0));
    return { ...call, rolloutLogprobs };
  });
});

async function train(over: Partial<TrainRequest>): Promise<TrainResult> {
  const request = {
    policy: 'policy',
    calls,
    groups: ['a', 'b'],
    mismatchOnly: [],
    loss: (await openLoss({ name: 'policy-gradient' })).request,
    reference: false,
    learningRate: 0,
    clipNorm: 0,
    microBatchRows: 100,
    update: false,
    ...over,
  };
  return (await session.run('train', request, 0)) as TrainResult;
}

async function logprobs(microBatchRows = 100): Promise<number[][]> {
  const request = { policy: 'policy', calls, microBatchRows, under: 'policy' };
  const measured = (await session.run('logprobs', request, 0)) as Float32Array[];
  return measured.map((values) => [...values]);
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

it('what is measured of a call comes back in its place, whatever its group and micro-batch', async () => {
  const now = await logprobs();
  const mixed = [1, 0, 1].map((group, i) => ({ ...(calls[i] as TrainCall), group }));
  const mismatchOnly = [{ ...(calls[1] as TrainCall) }];
  for (const microBatchRows of [1, 8, 100]) {
    const { calls: measured } = await train({ calls: mixed, mismatchOnly, microBatchRows });
    const logprobsOf = measured.map((one) => [...one.logprobs]);
    expect(logprobsOf).toEqual([...now, now[1]].map((one) => one?.map((value) => expect.closeTo(value, 6))));
  }
});

describe('the ratio', () => {
  const grpo = async () => (await openLoss({ name: 'grpo', clipLow: 0.5, clipHigh: 0.5 })).request;
  /** −Σ w min(r A, clip(r) A) with r = exp(difference) and A times a factor. */
  const expected = (
    differences: readonly number[][],
    factor: (call: number, token: number) => number = () => 1,
  ) =>
    sum(
      calls.flatMap(({ advantage, weight }, i) =>
        (differences[i] ?? []).map((difference, t) => {
          const [ratio, own] = [Math.exp(difference), advantage * factor(i, t)];
          return -weight * Math.min(ratio * own, Math.min(1.5, Math.max(0.5, ratio)) * own);
        }),
      ),
    );
  const against = (of: readonly number[][], old: (call: TrainCall) => ArrayLike<number>) =>
    of.map((values, i) => values.map((value, t) => value - (old(calls[i] as TrainCall)[t] ?? 0)));

  it('compares with the rollout, or with the trainer as it is or was', async () => {
    const now = await logprobs();
    const loss = await grpo();
    const rollout = await train({ loss });
    expect(rollout.loss).toBeCloseTo(expected(against(now, (call) => call.rolloutLogprobs)), 5);
    const first = await train({ loss, old: 'trainer' });
    expect(first.loss).toBeCloseTo(expected(now.map((values) => values.map(() => 0))), 5);
    const oldLogprobs = (call: TrainCall) => Float32Array.from(call.rolloutLogprobs, (value) => value + 0.3);
    const later = calls.map((call) => ({ ...call, oldLogprobs: oldLogprobs(call) }));
    const second = await train({ loss, old: 'trainer', calls: later });
    expect(second.loss).toBeCloseTo(expected(against(now, oldLogprobs)), 5);
    expect(new Set([rollout.loss, first.loss, second.loss]).size).toBe(3);
  });

  it('between rollout and trainer is a factor on the advantages', async () => {
    const now = await logprobs();
    const loss = await grpo();
    const ratios = against(now, (call) => call.rolloutLogprobs).map((values) => values.map(Math.exp));
    const zero = now.map((values) => values.map(() => 0));
    const truncate = { level: 'token', outside: 'truncate', low: 0, high: 1.2 } as const;
    const truncated = await train({ loss, old: 'trainer', importance: truncate });
    expect(truncated.loss).toBeCloseTo(
      expected(zero, (i, t) => Math.min(1.2, ratios[i]?.[t] ?? 0)),
      5,
    );
    const mask = { level: 'sequence', outside: 'mask', low: 0.5, high: 3 } as const;
    const product = (i: number) => (ratios[i] ?? []).reduce((all, ratio) => all * ratio, 1);
    const masked = await train({ loss, old: 'trainer', importance: mask });
    const kept = (i: number) => (product(i) >= 0.5 && product(i) <= 3 ? product(i) : 0);
    expect(masked.loss).toBeCloseTo(expected(zero, kept), 5);
    const kinds = new Set(calls.map((_, i) => kept(i) === 0));
    expect(kinds.size, 'some are masked, some are not').toBe(2);
  });

  it('is measured in micro-batches of any size', async () => {
    const [whole, parts] = [await logprobs(), await logprobs(5)];
    for (const [i, values] of whole.entries()) {
      for (const [t, value] of values.entries()) expect(parts[i]?.[t]).toBeCloseTo(value, 6);
    }
  });
});

describe('gradients by group', () => {
  it.each(Object.keys(losses.entries))('of %s are those of each group alone', async (name) => {
    const { request: loss } = await openLoss({ name });
    const trace = ({ gradients }: TrainResult, group: number, groups: number) =>
      sum(Array.from(gradients.gram).filter((_, i) => i % (groups * groups) === group * groups + group));
    const together = await train({ loss });
    for (const group of [0, 1]) {
      const own = calls.filter((call) => call.group === group).map((call) => ({ ...call, group: 0 }));
      const alone = await train({ loss, calls: own, groups: ['alone'] });
      const square = trace(together, group, 2);
      expect(square).toBeGreaterThan(0);
      expect(square / trace(alone, 0, 1)).toBeCloseTo(1, 9);
    }
    const { gram, totalNorm } = together.gradients;
    expect(sum(Array.from(gram)) / totalNorm ** 2).toBeCloseTo(1, 9);
  });
});
