/** Decode steps of many rows on the CUDA kernels' emulation, which are not recorded (native/rollout/recorded_steps.h). */
import { afterEach, expect, test } from 'vitest';
import { useEmulation } from '../kernels/counting.js';
import { request, run, text, tinyConfig, Workshop } from './tiny.js';

useEmulation();
const workshop = new Workshop();
afterEach(() => workshop.dispose());

test('a step whose attention takes several pieces is launched plainly each time', () => {
  // 5,462 rows of three parts each: 16,386 partial results.
  const flat = tinyConfig({
    layers: 1,
    headDim: 64,
    hiddenSize: 64,
    heads: 1,
    kvHeads: 1,
    maxPositions: 1024,
  });
  const policy = workshop.policy(flat, 'bfloat16');
  const rows = 5462;
  const calls = Array.from({ length: rows }, (_, i) =>
    request(policy, text(7, 656), { maxTokens: 3, counter: [0, i, 0, 0, 0] }),
  );
  const [replaying, single] = [true, false].map((recordSteps) =>
    workshop.engine(flat, { recordSteps, maxBatch: rows, prefillTokens: 1024 }),
  );
  if (replaying === undefined || single === undefined) throw new Error('no engines');
  const [ours, theirs] = [run(replaying, calls), run(single, calls)];
  expect(ours.map(({ ids }) => [...ids])).toEqual(theirs.map(({ ids }) => [...ids]));
  expect(replaying.statistics()).toMatchObject({ replayedSteps: 0, decodeTokens: 2 * rows });
});
