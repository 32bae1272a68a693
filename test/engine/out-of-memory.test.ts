/** Where memory runs out, an update begins again with smaller micro-batches and ends with the same gradient. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { LossFunction, LossInputs } from '../../src/engine/loss.js';
import { OUT_OF_MEMORY } from '../../src/engine/native.js';
import { PolicyState } from '../../src/engine/policy-state.js';
import { train } from '../../src/engine/training.js';
import type { TrainCall, TrainRequest } from '../../src/engine/types.js';
import { text, tinyConfig, Workshop } from '../rollout/tiny.js';

let workshop: Workshop;
beforeEach(() => {
  workshop = new Workshop();
});
afterEach(() => workshop.dispose());

const calls = Array.from(
  { length: 8 },
  (_, i): TrainCall => ({
    prompt: Int32Array.from(text(i, 4 + i)),
    response: Int32Array.from(text(50 + i, 6)),
    rolloutLogprobs: new Float32Array(6),
    temperature: 1,
    advantage: i % 2 === 0 ? 1 : -0.5,
    weight: 0.1,
    group: i % 2,
  }),
);
const request: TrainRequest = {
  policy: 'p',
  calls,
  groups: ['a', 'b'],
  mismatchOnly: [],
  loss: { module: '', options: {} },
  reference: false,
  learningRate: 0,
  clipNorm: 0,
  microBatchRows: 10_000,
  update: false,
};

const loss: LossFunction = ({ logprobs, advantages, weights }: LossInputs) =>
  logprobs.mul(advantages).mul(weights).sum().neg();

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

function policyState(): PolicyState {
  const config = tinyConfig();
  const base = workshop.base(config, 'float64', 5);
  const optimizer = { betas: [0.9, 0.99] as [number, number], eps: 1e-8, weightDecay: 0 };
  const settings = {
    name: 'p',
    model: 'm',
    parameters: { kind: 'full' as const },
    trainable: true,
    optimizer,
    seed: 1,
  };
  return new PolicyState(settings, config, base, 'cpu', () => {
    throw new Error('no KL term asks for a reference');
  });
}

const turn = () => Promise.resolve();

it('halves micro-batches until they fit, counts it, and keeps the size', async () => {
  const policy = policyState();
  const whole = await train(policyState(), request, loss, turn);
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
  const result = await train(policyState(), { ...mixed, groups: ['a'] }, starving(1), turn);
  expect(result.calls.length).toBe(4);
  expect(result.memoryRestarts).toBeLessThan(12);
});

it('a call that does not fit alone is an error, and so is any other failure', async () => {
  await expect(train(policyState(), request, starving(0), turn)).rejects.toThrow(
    /^memory ran out in the pass of one call, of \d+ rows \(the device is full\)\. Set rollout\.promptTokens/,
  );
  const broken: LossFunction = () => {
    throw new Error('broken');
  };
  await expect(train(policyState(), request, broken, turn)).rejects.toThrow('broken');
});
