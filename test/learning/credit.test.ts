/** Fails if a call learns from another group's rewards, or if an advantage is not GRPO's. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { assignCredit, type CreditOptions } from '../../src/learning/credit.js';
import { outcomeReward, ownReward } from '../../src/learning/rewards.js';
import { episode } from './episodes.js';

const options: CreditOptions = { groups: ['role'], baseline: 'calls', normalise: 'std', strict: false };

const advantages = async (...given: Parameters<typeof assignCredit>) =>
  (await assignCredit(...given)).calls.map(({ advantage }) => advantage);

test('GRPO: (r − mean) / (unbiased std + 1e-6), by problem', async () => {
  const episodes = [
    ...[1, 0, 0, 1, 0].map((reward, i) => episode(0, i, reward, [{}])),
    ...[1, 0].map((reward, i) => episode(1, i, reward, [{}])),
  ];
  // As numpy: (r - r.mean()) / (r.std(ddof=1) + 1e-6)
  const expected = [1.095443, -0.7302953, -0.7302953, 1.095443, -0.7302953, 0.7071058, -0.7071058];
  const got = await advantages(episodes, outcomeReward, options);
  for (const [i, value] of expected.entries()) expect(got[i]).toBeCloseTo(value, 6);
});

test('without the standard deviation', async () => {
  const episodes = [1, 0, 0, 1].map((reward, i) => episode(0, i, reward, [{}]));
  expect(await advantages(episodes, outcomeReward, { ...options, normalise: 'none' })).toEqual([
    0.5, -0.5, -0.5, 0.5,
  ]);
});

test('groups by role, slot, turn, their combinations, and pooled', async () => {
  const calls = [{ slot: 0 }, { slot: 1 }, { role: 'aggregator' }, { turn: 1 }];
  const episodes = [episode(0, 0, 1, calls), episode(0, 1, 0, calls)];
  const groups = async (...keys: CreditOptions['groups']) => {
    const credit = await assignCredit(episodes, outcomeReward, { ...options, groups: keys });
    expect(credit.groups).toBe(new Set(credit.calls.map(({ group }) => group)).size);
    return credit.calls.slice(0, 4).map(({ group }) => group);
  };
  expect(await groups('role')).toEqual(['0:generator', '0:generator', '0:aggregator', '0:generator']);
  expect(await groups('slot')).toEqual(['0:slot0', '0:slot1', '0:slot0', '0:slot0']);
  expect(await groups('turn')).toEqual(['0:turn0', '0:turn0', '0:turn0', '0:turn1']);
  expect(await groups('role', 'slot', 'turn')).toEqual([
    '0:generator:slot0:turn0',
    '0:generator:slot1:turn0',
    '0:aggregator:slot0:turn0',
    '0:generator:slot0:turn1',
  ]);
  expect(await groups()).toEqual(['0', '0', '0', '0']);
});

test('own correctness where a call claims something, else the outcome', async () => {
  const calls = (own: number) => [{ own, slot: 0 }, { role: 'orchestrator' }];
  const episodes = [episode(0, 0, 1, calls(0)), episode(0, 1, 0, calls(1))];
  const credit = await assignCredit(episodes, ownReward, options);
  expect(credit.calls.map(({ reward }) => reward)).toEqual([0, 1, 1, 0]);
});

test('a group of one has advantage 0 and is counted; so is one without variance', async () => {
  const episodes = [
    episode(0, 0, 1, [{}, { role: 'aggregator' }]),
    ...[0.1, 0.1, 0.1].map((reward, i) => episode(1, i, reward, [{}])),
  ];
  const credit = await assignCredit(episodes, outcomeReward, options);
  expect(credit.calls.map(({ advantage }) => advantage)).toEqual([0, 0, 0, 0, 0]);
  expect(credit).toMatchObject({ groups: 3, groupsOfOne: 2, groupsWithoutVariance: 1 });
});

test('counting episodes, an episode of many turns weighs as much as one of few', async () => {
  const episodes = [episode(0, 0, 1, [{}]), episode(0, 1, 0, [{}, { turn: 1 }, { turn: 2 }])];
  const none = { ...options, normalise: 'none' as const };
  expect(await advantages(episodes, outcomeReward, none)).toEqual([0.75, -0.25, -0.25, -0.25]);
  expect(await advantages(episodes, outcomeReward, { ...none, baseline: 'episodes' })).toEqual([
    0.5, -0.5, -0.5, -0.5,
  ]);
  const single = [episode(0, 0, 1, [{}, { turn: 1 }])];
  expect((await assignCredit(single, outcomeReward, { ...none, baseline: 'episodes' })).groupsOfOne).toBe(1);
});

test('a reward that throws or is no number is counted, fatal with strict or when there is no other', async () => {
  const episodes = [1, 0, 1].map((reward, i) => episode(0, i, reward, [{}]));
  const flaky = (_: unknown, { sample }: { sample: number }) => {
    if (sample === 0) throw new Error('boom');
    return sample === 1 ? Number.NaN : 1;
  };
  const credit = await assignCredit(episodes, flaky, options);
  expect(credit).toMatchObject({ failedRewards: 2 });
  expect(credit.firstFailure).toBe('reward of generator/0/0 on p0: the reward function threw: boom');
  expect(credit.calls).toHaveLength(1);
  await expect(assignCredit(episodes, flaky, { ...options, strict: true })).rejects.toThrow(/threw: boom/);
  await expect(assignCredit(episodes, () => Number.POSITIVE_INFINITY, options)).rejects.toThrow(
    /no call has a reward.*returned Infinity; it takes a finite number/,
  );
});

test('without episodes there is nothing to credit', async () => {
  expect(await assignCredit([], outcomeReward, options)).toMatchObject({ calls: [], groups: 0 });
});

test('advantages of a group sum to 0 and do not change when rewards shift', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: -8, max: 8 }), { minLength: 2, maxLength: 12 }),
      fc.integer({ min: -4, max: 4 }),
      async (rewards, shift) => {
        const of = (values: number[]) =>
          advantages(
            values.map((reward, i) => episode(0, i, reward, [{}])),
            outcomeReward,
            options,
          );
        const plain = await of(rewards);
        const shifted = await of(rewards.map((reward) => reward + shift));
        expect(plain.reduce((sum, value) => sum + value, 0)).toBeCloseTo(0, 9);
        for (const [i, value] of plain.entries()) expect(shifted[i]).toBeCloseTo(value, 9);
      },
    ),
  );
});
