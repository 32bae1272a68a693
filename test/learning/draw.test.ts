/** Fails if problems without variance stay where there are fresh ones, or if a run that goes on draws others than it would have. */
import { expect, test } from 'vitest';
import { type CreditOptions, hasVariance } from '../../src/learning/credit.js';
import type { RoleCall } from '../../src/workflows/types.js';
import { episode } from './episodes.js';
import { newFolder, remains, resumedRun, trainedRun } from './trained-run.js';

test('a problem has variance where one of its groups does', () => {
  const rewarded = (rewards: [role: string, reward: number][]) =>
    rewards.map(([role, reward], i) => {
      const one = episode(0, i, 0, [{ role }]);
      return { episode: one, call: one.calls[0] as RoleCall, index: 0, values: [], reward };
    });
  const options: Pick<CreditOptions, 'groups' | 'baseline'> = { groups: ['role'], baseline: 'calls' };
  const check = (...rewards: [string, number][]) => hasVariance(rewarded(rewards), options);
  expect(check(['a', 1], ['a', 1], ['b', 0], ['b', 0])).toBe(false);
  expect(check(['a', 1], ['a', 1], ['b', 0], ['b', 1])).toBe(true);
  expect(check(['a', 1])).toBe(false);
  expect(check()).toBe(false);
});

test('problems without variance give their place to fresh ones, a bounded number of times, resumed or not', async () => {
  const over = {
    evaluation: { every: 0, problems: 1, greedy: false },
    policies: { defaults: { learningRate: 1e-3 } },
    learning: {
      dynamicSampling: 2,
      estimator: { name: 'rae' },
      kl: { coefficient: 0.1, reference: 'average' },
    },
  };
  const whole = await trainedRun(over);
  const steps = whole.rows('steps');
  const replaced = steps.map(({ replaced_problems }) => Number(replaced_problems));
  expect(Math.max(...replaced)).toBeGreaterThan(0);
  expect(Math.max(...replaced)).toBeLessThanOrEqual(2 * 3);
  for (const [i, { replaced_correct_share: share }] of steps.entries()) {
    expect(share === null).toBe(replaced[i] === 0);
  }
  expect(steps.map(({ problems, episodes }) => [problems, episodes])).toEqual([
    [3, 12],
    [3, 12],
  ]);
  const training = whole.rows('episodes').filter(({ phase }) => phase === 'train');
  expect(new Set(training.map(({ step, problem }) => `${step} ${problem}`)).size).toBe(6);
  const numbers = (step: number) =>
    training.filter((one) => one.step === step).map(({ problem_index: index }) => Number(index));
  expect(numbers(0)).toEqual(numbers(0).toSorted((a, b) => a - b));

  const folder = newFolder();
  await trainedRun(over, folder, { stop: 1 });
  await resumedRun(over, folder);
  expect(remains(folder)).toEqual(remains(whole.folder));
});
