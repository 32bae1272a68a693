/** Fails if tokens are weighed wrongly, or if a call that matters skips its backward pass. */
import { expect, test } from 'vitest';
import { runSchema } from '../../src/config/schema.js';
import { scheduleFactor } from '../../src/learning/schedule.js';
import type { CreditedCall, PlannedCall } from '../../src/learning/step-call.js';
import {
  planUpdates,
  tokenWeights,
  type Update,
  type UpdateOptions,
} from '../../src/learning/update-plan.js';
import { episode, roleCall } from './episodes.js';

function options(learning: Record<string, unknown> = {}): UpdateOptions {
  const { loss: _, ...config } = runSchema.parse({ learning }).learning;
  return { ...config, loss: { aggregation: 'token', followsAdvantage: true }, length: 1 };
}

function calls(...given: [advantage: number, tokens: number][]): CreditedCall[] {
  return given.map(([advantage, tokens], i) => ({
    episode: episode(0, i, 0, []),
    call: roleCall({ tokens }),
    index: 0,
    values: [],
    reward: 0,
    advantage,
    group: '0',
    flat: false,
  }));
}

const passing = (update: Update | undefined, pass: PlannedCall['pass']) =>
  update?.calls.filter((one) => one.pass === pass) ?? [];
const weightsOf = (update: Update | undefined) => passing(update, 'backward').map(({ weight }) => weight);

test('token weights: one over the tokens; by sequence: one over the calls and their lengths, or a constant', () => {
  expect(tokenWeights([1, 3, 4], 'token')).toEqual([1 / 8, 1 / 8, 1 / 8]);
  expect(tokenWeights([1, 4, 0], 'sequence')).toEqual([1 / 2, 1 / 8, 0]);
  expect(tokenWeights([1, 4, 0], 'constant', 5)).toEqual([1 / 10, 1 / 10, 0]);
  expect(tokenWeights([0, 0], 'token')).toEqual([0, 0]);
});

test('calls with advantage 0 skip the backward pass and stay in the normaliser', () => {
  const [update] = planUpdates(calls([1, 2], [0, 5], [-1, 3]), options());
  expect(weightsOf(update)).toEqual([1 / 10, 1 / 10]);
  expect(update?.calls.map(({ pass }) => pass)).toEqual(['backward', 'forward', 'backward']);
  expect(update).toMatchObject({ tokens: 10 });
});

test.each([
  { ...options(), klOf: () => 0.1 },
  options({ entropy: 0.1 }),
  options({ skipZeroAdvantage: false }),
  { ...options(), loss: { aggregation: 'token', followsAdvantage: false } as const },
])('they do not skip where that would change the update: %j', (changed) => {
  const [update] = planUpdates(calls([1, 2], [0, 5]), changed);
  expect(passing(update, 'backward')).toHaveLength(2);
});

test('the mismatch is measured on a fixed, evenly spread sample of the skipped calls', () => {
  const many = calls(...Array.from({ length: 100 }, () => [0, 1] as [number, number]));
  const drawn = (n: number) => passing(planUpdates(many, options({ mismatchSample: n }))[0], 'forward');
  const sample = (n: number) => drawn(n).map(({ episode: { sample: i } }) => i);
  expect(sample(4)).toEqual([24, 49, 74, 99]);
  expect(sample(4)).toEqual(sample(4));
  expect(sample(0)).toEqual([]);
  expect(sample(1000)).toHaveLength(100);
  expect(drawn(4).map(({ standsFor }) => standsFor)).toEqual([25, 25, 25, 25]);
  expect(drawn(1000)[0]?.standsFor).toBe(1);
});

test('mini-batches keep the order, differ by one call at most and have their own normaliser', () => {
  const updates = planUpdates(calls([1, 1], [1, 2], [1, 3], [1, 4], [1, 5]), options({ miniBatches: 2 }));
  expect(updates.map(({ tokens }) => tokens)).toEqual([3, 12]);
  expect(updates.map(({ calls: its }) => its.map(({ update }) => update))).toEqual([
    [0, 0],
    [1, 1, 1],
  ]);
  expect(weightsOf(updates[1])).toEqual([1 / 12, 1 / 12, 1 / 12]);
  expect(planUpdates(calls([1, 1]), options({ miniBatches: 4 }))).toHaveLength(1);
});

test('without calls there is one empty update: the optimizer still steps', () => {
  expect(planUpdates([], options())).toEqual([{ index: 0, calls: [], masked: 0, tokens: 0 }]);
});

test('matched updates: a policy makes as many steps as its roles would on their own', () => {
  const six = calls([1, 2], [1, 2], [1, 2], [-1, 2], [-1, 2], [-1, 2]);
  const counts = (learning: Record<string, unknown>, roles: number) =>
    planUpdates(six, options(learning), roles).map((update) => update.calls.length);
  expect(counts({}, 3)).toEqual([6]);
  expect(counts({ updates: 'matched' }, 3)).toEqual([2, 2, 2]);
  expect(counts({ updates: 'matched' }, 1)).toEqual([6]);
  expect(counts({ updates: 'matched', miniBatches: 2 }, 3)).toEqual([1, 1, 1, 1, 1, 1]);
  expect(counts({ updates: 'matched', miniBatches: 9 }, 3)).toHaveLength(6);
});

test('masked responses that were cut off train nothing and are not in the normaliser', () => {
  const given = calls([1, 2], [1, 5], [-1, 3]);
  const [, cut] = given;
  if (cut !== undefined) cut.call.completion.finish = 'length';
  const [whole] = planUpdates(given, options());
  expect(whole).toMatchObject({ masked: 0, tokens: 10 });
  const [update] = planUpdates(given, options({ truncated: 'mask' }));
  expect(weightsOf(update)).toEqual([1 / 5, 1 / 5]);
  expect(update?.calls.map(({ pass }) => pass)).toEqual(['backward', 'forward', 'backward']);
  expect(update).toMatchObject({ masked: 1, tokens: 5 });
});

test('the schedule moves on by a step, or by each role in it', () => {
  const { schedule } = runSchema.parse({
    learning: { schedule: { warmupSteps: 6, kind: 'linear' } },
  }).learning;
  const factors = (per: 'step' | 'role', roles: number) =>
    [0, 1, 2, 3, 4, 5].map((step) => scheduleFactor({ ...schedule, per }, step, 12, roles));
  expect(factors('step', 3)).toEqual([1, 2, 3, 4, 5, 6].map((k) => k / 6));
  // After 12 of its steps, four of the run, it has ended.
  expect(factors('role', 3)).toEqual([1 / 6, 4 / 6, 1, 0.5, 0, 0]);
  expect(factors('role', 1)).toEqual(factors('step', 1));
});
