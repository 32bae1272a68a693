/** Fails if the checkpoint of the best evaluation of training is not there, or if one is made that nobody asked for. */
import { expect, it } from 'vitest';
import { listCheckpoints } from '../../src/runs/checkpoint.js';
import { trainedRun } from './trained-run.js';

it.each([true, false])('checkpoints.keepBest: %s', async (keepBest) => {
  const { folder, rows } = await trainedRun({
    steps: 5,
    policies: { defaults: { learningRate: 3e-3 } },
    evaluation: { every: 1, problems: 6, greedy: false },
    checkpoints: { every: 0, keep: 1, keepBest },
  });
  const accuracy = new Map<number, number>();
  for (const { step, correct } of rows('evaluations')) {
    accuracy.set(step as number, (accuracy.get(step as number) ?? 0) + (correct ? 1 : 0));
  }
  const trained = [...accuracy].filter(([step]) => step > 0);
  const most = Math.max(...trained.map(([, right]) => right));
  const [best = -1] = trained.find(([, right]) => right === most) ?? [];
  const last = accuracy.get(5) ?? 0;
  // Of equals the newest is called the best, and the last one is always kept.
  const expected = !keepBest || last === most ? [5] : [best, 5];
  expect(best).toBeLessThan(5);
  expect(listCheckpoints(folder).map(({ step }) => step)).toEqual(expected);
});
