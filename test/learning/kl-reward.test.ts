/** Fails if what KL takes from a reward is not the sum of its estimator over the tokens, or reaches another call. */
import { writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { divergence } from '../../src/learning/kl-reward.js';
import { newFolder, trainedRun } from './trained-run.js';

test('the estimators over a response, as TRL’s RLOO has k1 and its GRPO k3', () => {
  const policy = Float32Array.of(-1, -2, -0.5);
  const reference = Float32Array.of(-1.5, -1, -0.5);
  // d = 0.5, −1, 0.
  expect(divergence(policy, reference, 'k1')).toBeCloseTo(-0.5, 6);
  expect(divergence(policy, reference, 'k2')).toBeCloseTo((0.25 + 1) / 2, 6);
  expect(divergence(policy, reference, 'k3')).toBeCloseTo(Math.exp(-0.5) - 1 + 0.5 + Math.exp(1) - 1 - 1, 6);
});

test('a run with KL in the reward, mini-batches against the trainer and importance weights', async () => {
  const coefficient = 0.5;
  // Every group has variance, so that every step moves the policy.
  const folder = newFolder();
  const module = `${folder}-reward.mjs`;
  writeFileSync(module, 'export default (call, { sample }) => sample % 2;');
  const reward = { module, label: 'parity' };
  const { rows } = await trainedRun({
    evaluation: { every: 0, problems: 1, greedy: false },
    policies: { defaults: { learningRate: 5e-3 } },
    learning: {
      reward,
      kl: { coefficient, in: 'reward', estimator: 'k3' },
      miniBatches: 2,
      oldLogprobs: 'trainer',
      importance: { level: 'token', high: 2 },
      loss: { name: 'gspo' },
      estimator: { name: 'rloo' },
    },
    interventions: { roles: { aggregator: { kl: 0 } } },
  });
  const calls = rows('calls');
  const kl = rows('rewards').filter(({ name }) => name === 'kl');
  const generators = calls.filter(
    ({ role, response_tokens }) => role === 'generator' && Number(response_tokens) > 0,
  );
  expect(kl).toHaveLength(generators.length);
  for (const { step, value, weight } of kl) {
    expect(weight).toBe(-coefficient);
    // The policy begins as the reference, and has left it after a step.
    if (step === 0) expect(Math.abs(Number(value))).toBeLessThan(1e-3);
  }
  expect(kl.some(({ step, value }) => step === 1 && Number(value) > 1e-2)).toBe(true);
  const parity = rows('rewards').filter(({ name }) => name === 'parity');
  expect(parity).toHaveLength(calls.length);
  const updates = rows('updates').filter(({ policy }) => policy === 'generator');
  expect(updates.map(({ update }) => update)).toEqual([0, 1, 0, 1]);
});
