/** Where memory runs out, an update begins again with smaller micro-batches and ends with the same gradient. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { LossFunction } from '../../src/engine/loss.js';
import { OUT_OF_MEMORY } from '../../src/engine/native.js';
import { train } from '../../src/engine/training.js';
import type { TrainCall } from '../../src/engine/types.js';
import { text, Workshop } from '../rollout/tiny.js';
import { loss, policyState, trainCalls, trainRequest, turn } from './tiny-training.js';

let workshop: Workshop;
beforeEach(() => {
  workshop = new Workshop();
});
afterEach(() => workshop.dispose());

const calls = trainCalls(8, (i) => 4 + i, 6);
const request = trainRequest(calls, { learningRate: 0, update: false });
const exactPolicy = () => policyState(workshop, { dtype: 'float64' });

/** Runs out of memory for more calls than `most`, as often as it is asked; `after`: not before that many batches. */
function starving(most: number, after = 0): LossFunction {
  let batches = 0;
  return (inputs, options) => {
    batches += 1;
    if (batches > after && inputs.callCount > most)
      throw Object.assign(new Error('the device is full'), { code: OUT_OF_MEMORY });
    return loss(inputs, options);
  };
}

it('halves micro-batches until they fit, counts it, and keeps the size', async () => {
  const policy = exactPolicy();
  const whole = await train(exactPolicy(), request, loss, turn);
  expect(whole.memoryRestarts).toBe(0);
  // After one batch has gone through: its gradient must not be counted twice.
  const first = await train(policy, { ...request, microBatchRows: 70 }, starving(2, 1), turn);
  expect(first.memoryRestarts).toBeGreaterThan(0);
  expect(first.microBatchRows).toBeLessThan(70);
  expect(first.gradients.gram.length).toBe(whole.gradients.gram.length);
  const scale = whole.gradients.gram.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  first.gradients.gram.forEach((value, i) => {
    expect(Math.abs(value - (whole.gradients.gram[i] as number))).toBeLessThan(1e-10 * scale);
  });
  expect(first.calls.length).toBe(calls.length);
  const second = await train(policy, request, starving(2), turn);
  expect(second.memoryRestarts).toBe(0);
});

it('a call that is alone and longer than the limit does not keep the others from being cut', async () => {
  const long = { ...(calls[0] as TrainCall), prompt: Int32Array.from(text(9, 200)) };
  const mixed = { ...request, calls: [long, ...calls.slice(1, 4)].map((call) => ({ ...call, group: 0 })) };
  const result = await train(exactPolicy(), { ...mixed, groups: ['a'] }, starving(1), turn);
  expect(result.calls.length).toBe(4);
  expect(result.memoryRestarts).toBeLessThan(12);
});

it('a call that does not fit alone is an error, and so is any other failure', async () => {
  await expect(train(exactPolicy(), request, starving(0), turn)).rejects.toThrow(
    /^memory ran out in the pass of one call, of \d+ rows \(the device is full\)\. Set rollout\.promptTokens/,
  );
  const broken: LossFunction = () => {
    throw new Error('broken');
  };
  await expect(train(exactPolicy(), request, broken, turn)).rejects.toThrow('broken');
});
