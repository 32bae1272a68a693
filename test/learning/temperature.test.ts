/** Calls of one policy that are sampled at temperatures of their own are trained at those. */
import { writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { newFolder, trainedRun } from './trained-run.js';

/** Three calls of one role, each at another temperature; `third` is written as it stands. */
function workflowFile(third: string): string {
  const file = join(dirname(newFolder()), 'temperatures.mjs');
  writeFileSync(
    file,
    `export default {
      name: 'temperatures',
      roles: ['solver'],
      async run({ problem, call }) {
        const messages = [{ role: 'user', content: problem.question }];
        const replies = await Promise.all(
          [{}, { temperature: 0.5 }, ${third}].map((sampling, slot) => call('solver', messages, { slot, sampling })),
        );
        return { answer: replies[0].text };
      },
    };`,
  );
  return file;
}

const run = (third: string, temperature = 1) =>
  trainedRun({
    steps: 1,
    model: { path: 'troupe-0.3m', dtype: 'float32' },
    workflow: { module: workflowFile(third) },
    learning: { skipZeroAdvantage: false },
    rollout: { promptsPerStep: 3, episodesPerPrompt: 4, sampling: { temperature, maxTokens: 6 } },
  });

test('the trainer scores each call at the temperature that it was sampled at', async () => {
  const { rows } = await run('{ temperature: 2 }');
  const calls = rows('calls');
  expect(calls).toHaveLength(36);
  for (const { rollout_logprob, trainer_logprob } of calls)
    expect(trainer_logprob).toBeCloseTo(rollout_logprob as number, 4);
  const [solver] = rows('roles');
  expect(solver?.kl_k1).toBeCloseTo(0, 4);
  expect(solver?.clip_high_share).toBe(0);
});

test('a call that the workflow samples greedily cannot be trained on, and says so', async () => {
  await expect(run('{ temperature: 0 }')).rejects.toThrow(/call solver\/2\/0: was sampled at temperature 0/);
});
