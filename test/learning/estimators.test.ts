/** Fails if an advantage is not TRL's (golden/estimators.py), or not what the formula of its paper gives. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { assignCredit, rewardGroups } from '../../src/learning/credit.js';
import type { Estimator, EstimatorInput, GroupedCall } from '../../src/learning/estimators/types.js';
import { openEstimator } from '../../src/learning/estimators.js';
import { newLoopState, restoreLoopState, saveLoopState } from '../../src/learning/loop-state.js';
import { episode } from './episodes.js';

interface Golden {
  size: number;
  rewards: number[];
  advantages: Record<'group' | 'batch' | 'none' | 'rloo', number[]>;
}

const golden: Golden = JSON.parse(
  readFileSync(new URL('../golden/estimators.json', import.meta.url), 'utf8'),
);

interface Sketch {
  reward: number;
  group?: number;
  /** Index of the episode; each call has one of its own by default. */
  sample?: number;
  role?: string;
  tokens?: number;
  policy?: string;
}

/** Calls in groups, as credit makes them. */
function input(sketches: readonly Sketch[], memory: Record<string, number> = {}): EstimatorInput {
  const episodes = new Map<number, ReturnType<typeof episode>>();
  const calls = sketches.map((sketch, i): GroupedCall => {
    const { reward, group = 0, sample = i, role = 'generator', tokens = 2, policy = 'shared' } = sketch;
    const made = episode(group, sample, reward, [{ role, tokens }]);
    const own = episodes.get(sample) ?? made;
    episodes.set(sample, own);
    const [call] = made.calls;
    if (call === undefined) throw new Error('no call');
    return { episode: own, call: { ...call, policy }, reward, group: `${group}` };
  });
  return { calls, groups: rewardGroups(calls, 'calls'), memory };
}

const goldenInput = () =>
  input(golden.rewards.map((reward, i) => ({ reward, group: Math.floor(i / golden.size) })));

function expectClose(got: readonly number[], expected: readonly number[], digits = 10): void {
  expect(got).toHaveLength(expected.length);
  for (const [i, value] of expected.entries()) expect(got[i]).toBeCloseTo(value, digits);
}

describe('as TRL computes them', () => {
  test.each([
    [{ name: 'grpo' }, 'group'],
    [{ name: 'grpo', normalise: 'batch' }, 'batch'],
    [{ name: 'grpo', normalise: 'none' }, 'none'],
    [{ name: 'dr-grpo' }, 'none'],
    [{ name: 'rloo' }, 'rloo'],
  ] as const)('%j', async (section, name) => {
    // TRL divides by n − 1 in float32, which has 30 / 29 only so closely.
    expectClose((await openEstimator(section))(goldenInput()), golden.advantages[name], 6);
  });
});

test('REINFORCE++: rewards whitened over the tokens of a policy (Hu et al. 2025, eq. 10)', async () => {
  const estimate = await openEstimator({ name: 'reinforce++' });
  const withBaseline = await openEstimator({ name: 'reinforce++-baseline' });
  const call = fc.record({
    reward: fc.double({ min: -5, max: 5, noNaN: true }),
    group: fc.integer({ min: 0, max: 2 }),
    tokens: fc.integer({ min: 1, max: 9 }),
    policy: fc.constantFrom('a', 'b'),
  });
  fc.assert(
    fc.property(fc.array(call, { minLength: 4, maxLength: 20 }), (calls) => {
      const check = (estimator: Estimator, values: readonly number[]) => {
        const got = estimator(input(calls));
        for (const policy of ['a', 'b']) {
          // One entry per token, as the definition has it.
          const tokens = calls.flatMap((one, i) =>
            one.policy === policy ? new Array<number>(one.tokens).fill(values[i] ?? Number.NaN) : [],
          );
          const mean = tokens.reduce((sum, value) => sum + value, 0) / tokens.length;
          const variance = tokens.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (tokens.length - 1);
          for (const [i, one] of calls.entries()) {
            if (one.policy !== policy || !(variance > 1e-12)) continue;
            expect(got[i]).toBeCloseTo(((values[i] ?? 0) - mean) / Math.sqrt(variance + 1e-8), 8);
          }
        }
      };
      const rewards = calls.map(({ reward }) => reward);
      check(estimate, rewards);
      const means = [0, 1, 2].map((group) => {
        const its = calls.filter((one) => one.group === group).map(({ reward }) => reward);
        return its.reduce((sum, value) => sum + value, 0) / its.length;
      });
      check(
        withBaseline,
        calls.map(({ reward, group }) => reward - (means[group] ?? 0)),
      );
    }),
    { numRuns: 50 },
  );
  expect(estimate(input([{ reward: 0.1 }, { reward: 0.1 }, { reward: 0.1 }]))).toEqual([0, 0, 0]);
});

test('RAE: reward minus the running mean of the role before the episode (Liu et al. 2025)', async () => {
  const estimate = await openEstimator({ name: 'rae', decay: 0.9 });
  const memory: Record<string, number> = {};
  const calls = [
    { reward: 1, sample: 0 },
    { reward: 0, sample: 0 },
    { reward: 3, sample: 0, role: 'judge' },
    { reward: 1, sample: 1 },
    { reward: 3, sample: 1, role: 'judge' },
  ];
  // generator: 0, then 0.1 · mean(1, 0); judge: 0, then 0.1 · 3.
  expectClose(estimate(input(calls, memory)), [1, 0, 3, 1 - 0.05, 3 - 0.3]);
  expect(memory.generator).toBeCloseTo(0.9 * 0.05 + 0.1 * 1, 12);
  expect(memory.judge).toBeCloseTo(0.9 * 0.3 + 0.1 * 3, 12);
  // The next step goes on from there, with other calls in other groups.
  expectClose(estimate(input([{ reward: 2, group: 5 }], memory)), [2 - 0.145]);
});

test('groups of one and without variance have advantage 0, exactly', async () => {
  for (const name of ['grpo', 'dr-grpo', 'rloo']) {
    const estimate = await openEstimator({ name });
    const calls = [{ reward: 0.1 }, { reward: 0.1 }, { reward: 0.1 }, { reward: 1, group: 1 }];
    expect(estimate(input(calls)), name).toEqual([0, 0, 0, 0]);
  }
});

test('RLOO compares a call with the other episodes, where episodes are counted', async () => {
  const estimate = await openEstimator({ name: 'rloo' });
  const { calls } = input([
    { reward: 1, sample: 0 },
    { reward: 0, sample: 0 },
    { reward: 1, sample: 1 },
    { reward: 0, sample: 2 },
  ]);
  const groups = rewardGroups(calls, 'episodes');
  // Means by episode: 0.5, 1, 0.
  expectClose(estimate({ calls, groups, memory: {} }), [1 - 0.5, 0 - 0.5, 1 - 0.25, 0 - 0.75]);
});

test('what an estimator keeps is in the credit, and what it was given stays', async () => {
  const estimator = await openEstimator({ name: 'rae', decay: 0.5 });
  const rewarded = input([{ reward: 1 }]).calls.map((call, index) => ({ ...call, index, values: [] }));
  const memory = { generator: 0.5 };
  const credit = assignCredit(rewarded, { groups: [], baseline: 'calls', strict: false, estimator, memory });
  expect(credit.calls.map(({ advantage }) => advantage)).toEqual([0.5]);
  expect(credit.memory).toEqual({ generator: 0.75 });
  expect(memory).toEqual({ generator: 0.5 });
  expect(restoreLoopState(saveLoopState({ ...newLoopState(), memory })).memory).toEqual(memory);
});

describe('an estimator from a file', () => {
  const folder = mkdtempSync(join(tmpdir(), 'troupe-estimators-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const written = (name: string, text: string) => {
    const file = join(folder, `${name}.mjs`);
    writeFileSync(file, text);
    return { name: 'grpo', module: file };
  };

  test('gets calls, groups, memory and its settings', async () => {
    const text = `export default ({ calls, groups, memory }, { shift }) => {
  memory.steps = (memory.steps ?? 0) + 1;
  return calls.map(({ reward }) => reward + shift + groups.length);
};`;
    const estimate = await openEstimator({ ...written('mine', text), shift: 10 });
    const given = input([{ reward: 1 }, { reward: 2, group: 1 }]);
    expect(estimate(given)).toEqual([13, 14]);
    expect(given.memory).toEqual({ steps: 1 });
  });

  test('that empties what it gets has emptied a copy', async () => {
    const text = `export default ({ calls, groups }) => {
  const rewards = Float64Array.from(calls, (call) => call.reward++);
  groups[0].members.length = groups.length = calls.length = 0;
  return rewards;
};`;
    const estimate = await openEstimator(written('empties', text));
    const given = input([{ reward: 1 }, { reward: 2, group: 1 }]);
    const before = structuredClone({
      rewards: given.calls.map(({ reward }) => reward),
      groups: given.groups,
    });
    expect(estimate(given)).toEqual([1, 2]);
    expect({ rewards: given.calls.map(({ reward }) => reward), groups: given.groups }).toEqual(before);
  });

  test.each([
    ['throws', "throw new Error('boom');", /throws\.mjs:\d+: the estimator threw: boom/],
    ['short', 'return [1];', /the estimator returned 1 advantages for 2 calls/],
    ['later', 'return Promise.resolve(Array(20).fill(1));', /returned Promise \{ .*for 2 calls\.$/],
    ['nothing', 'return undefined;', /returned undefined for 2 calls/],
    ['wrong', 'return [1, NaN];', /gave or keeps NaN; it takes finite numbers/],
    ['keeps', "memory.x = 'y'; return [1, 2];", /gave or keeps 'y'; it takes finite numbers/],
  ])('that %s is one sentence', async (name, body, message) => {
    const estimate = await openEstimator(written(name, `export default ({ memory }) => { ${body} };`));
    expect(() => estimate(input([{ reward: 1 }, { reward: 2 }]))).toThrow(message);
  });
});
