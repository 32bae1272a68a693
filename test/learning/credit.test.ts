/** Fails if a call learns from another group's rewards, or if an advantage is not GRPO's. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { CreditOptions } from '../../src/learning/credit.js';
import * as credits from '../../src/learning/credit.js';
import { grpo } from '../../src/learning/estimators/group-mean.js';
import { functionReward } from '../../src/learning/rewards/user.js';
import type { RewardFunction } from '../../src/learning/rewards.js';
import { callsOf } from '../../src/learning/step-call.js';
import type { Episode } from '../../src/workflows/types.js';
import { episode } from './episodes.js';

const options: CreditOptions = { groups: ['role'], baseline: 'calls', estimator: grpo('std'), strict: false };

const outcomeReward: RewardFunction = (_call, { grade }) => grade.reward;
const ownReward: RewardFunction = ({ ownGrade }, { grade }) => ownGrade?.reward ?? grade.reward;

/** Credit of calls that one function rewards. */
async function assignCredit(
  episodes: readonly Episode[],
  reward: RewardFunction,
  creditOptions: CreditOptions,
): Promise<credits.Credit> {
  const calls = callsOf(episodes);
  const source = functionReward((call, one) => reward(call, one, {}), { label: 'mine', where: 'mine.ts' });
  const values = await source.values(calls, { step: 0, steps: 1 });
  const rewarded = calls.map((one, i) => ({ ...one, values: [], reward: values[i] ?? 0 }));
  return credits.assignCredit(rewarded, creditOptions);
}

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
  expect(await advantages(episodes, outcomeReward, { ...options, estimator: grpo('none') })).toEqual([
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
  const none = { ...options, estimator: grpo('none') };
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
  expect(credit.failed.map(({ episode: { sample }, reward }) => [sample, (reward as Error).message])).toEqual(
    [
      [
        0,
        expect.stringMatching(
          /^mine\.ts \(.*:\d+\): the reward function threw on call generator\/0\/0 on problem p0: boom\.$/,
        ),
      ],
      [
        1,
        'mine.ts: the reward function returned NaN for call generator/0/0 on problem p0; it takes a finite number.',
      ],
    ],
  );
  expect(credit.calls).toHaveLength(1);
  await expect(assignCredit(episodes, flaky, { ...options, strict: true })).rejects.toThrow(
    /threw on call .*: boom/,
  );
  await expect(assignCredit(episodes, () => Number.POSITIVE_INFINITY, options)).rejects.toThrow(
    /returned Infinity .*; it takes a finite number.*None of the 3 calls of generator has a reward/,
  );
});

test('a role that lost all its calls is an error, though others have rewards', async () => {
  const episodes = [episode(0, 0, 1, [{}, { role: 'aggregator' }]), episode(0, 1, 0, [{}])];
  const picky = ({ role }: { role: string }) => (role === 'aggregator' ? Number.NaN : 1);
  await expect(assignCredit(episodes, picky, options)).rejects.toThrow(/None of the 1 calls of aggregator/);
});

test('rewards of a step run side by side', async () => {
  const episodes = Array.from({ length: 20 }, (_, i) => episode(0, i, i, [{}]));
  let running = 0;
  let most = 0;
  const slow = async (_: unknown, { grade }: { grade: { reward: number } }) => {
    most = Math.max(most, ++running);
    await new Promise(setImmediate);
    running--;
    return grade.reward;
  };
  const { calls } = await assignCredit(episodes, slow, options);
  expect(most).toBe(20);
  expect(calls.map(({ reward }) => reward)).toEqual(episodes.map(({ grade }) => grade.reward));
});

test('mean, deviation and the test for variance are of the same samples', async () => {
  // Own correctness: the calls of an episode differ, its means do not.
  const calls = [{ own: 1 }, { own: 0, turn: 1 }];
  const same = [episode(0, 0, 1, calls), episode(0, 1, 1, calls)];
  const byEpisode = { ...options, baseline: 'episodes' as const };
  const credit = await assignCredit(same, ownReward, byEpisode);
  expect(credit.calls.map(({ advantage }) => advantage)).toEqual([0, 0, 0, 0]);
  expect(credit).toMatchObject({ groupsWithoutVariance: 1 });
  // Means that are equal but for rounding: (0.1 + 0.2 + 0.3) / 3 is not (0.3 + 0.2 + 0.1) / 3.
  const sums = [
    [0.1, 0.2, 0.3],
    [0.3, 0.2, 0.1],
  ].map((own, i) =>
    episode(
      0,
      i,
      1,
      own.map((value, turn) => ({ own: value, turn })),
    ),
  );
  expect(await advantages(sums, ownReward, byEpisode)).toEqual([0, 0, 0, 0, 0, 0]);
  // Where means differ: their mean 0.75 and their deviation √0.125.
  const mixed = [episode(0, 0, 1, calls), episode(0, 1, 1, [{ own: 1 }])];
  const scale = Math.sqrt(0.125) + 1e-6;
  const got = await advantages(mixed, ownReward, byEpisode);
  for (const [i, reward] of [1, 0, 1].entries()) expect(got[i]).toBeCloseTo((reward - 0.75) / scale, 12);
});

test('a group is flat for every role in it or for none', async () => {
  const calls = (own: number) => [{ own }, { role: 'aggregator', own: 1 }];
  const episodes = [episode(0, 0, 1, calls(0)), episode(0, 1, 1, calls(1))];
  const flat = async (...groups: CreditOptions['groups']) =>
    (await assignCredit(episodes, ownReward, { ...options, groups })).calls.map((call) => call.flat);
  expect(await flat()).toEqual([false, false, false, false]);
  expect(await flat('role')).toEqual([false, true, false, true]);
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
