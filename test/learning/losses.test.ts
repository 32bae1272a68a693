/** Fails if a loss or its gradient is not TRL's (golden/losses.py), or depends on how calls are cut into micro-batches. */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runSchema } from '../../src/config/schema.js';
import type { LossInputs } from '../../src/engine/loss.js';
import { regularisers } from '../../src/engine/regularisers.js';
import { liveTensors, scope, Tensor } from '../../src/engine/tensor.js';
import grpo from '../../src/learning/losses/grpo.js';
import { losses, openLoss } from '../../src/learning/losses.js';
import { tokenWeights } from '../../src/learning/updates.js';

interface Golden {
  lengths: number[];
  advantages: number[];
  logprobs: number[];
  oldLogprobs: number[];
  referenceLogprobs: number[];
  entropy: number[];
  cases: {
    name: string;
    options: { aggregation: 'token' | 'sequence'; kl: number; entropy: number } & Record<string, unknown>;
    loss: number;
    logprobsGradient: number[];
    entropyGradient: number[];
  }[];
}

const golden: Golden = JSON.parse(readFileSync(new URL('../golden/losses.json', import.meta.url), 'utf8'));

let before = 0;
beforeAll(() => {
  before = liveTensors();
});
afterAll(() => expect(liveTensors()).toBe(before));

const f64 = (values: readonly number[]) => Tensor.from(Float64Array.from(values));

/** Loss and gradients over calls `from` to `to` of the golden batch. */
function evaluate(options: Golden['cases'][number]['options'], from = 0, to = golden.lengths.length) {
  return scope(() => {
    const starts = golden.lengths.map((_, i) => golden.lengths.slice(0, i).reduce((sum, n) => sum + n, 0));
    const [start, end] = [starts[from], starts[to]];
    const weights = tokenWeights(golden.lengths, options.aggregation);
    const calls = golden.lengths.slice(from, to);
    const perToken = (values: readonly number[]) =>
      f64(calls.flatMap((length, i) => new Array<number>(length).fill(values[from + i] ?? Number.NaN)));
    const logprobs = f64(golden.logprobs.slice(start, end)).setRequiresGrad(true);
    const entropy = f64(golden.entropy.slice(start, end)).setRequiresGrad(true);
    const inputs: LossInputs = {
      logprobs,
      entropy,
      oldLogprobs: f64(golden.oldLogprobs.slice(start, end)),
      referenceLogprobs: f64(golden.referenceLogprobs.slice(start, end)),
      advantages: perToken(golden.advantages),
      weights: perToken(weights),
      calls: Tensor.from(BigInt64Array.from(calls.flatMap((length, i) => new Array(length).fill(BigInt(i))))),
      callCount: calls.length,
    };
    const anchors = options.kl === 0 ? undefined : perToken(golden.lengths.map(() => options.kl));
    const added = regularisers(inputs, anchors, { kl: 'k3', entropy: options.entropy });
    const own = grpo(inputs, options);
    const loss = added === undefined ? own : own.add(added);
    loss.backward();
    const zeros = new Array<number>(logprobs.size).fill(0);
    return {
      loss: loss.item(),
      logprobs: logprobs.grad?.toArray() ?? zeros,
      entropy: entropy.grad?.toArray() ?? zeros,
    };
  });
}

function expectClose(got: readonly number[], expected: readonly number[]): void {
  expect(got).toHaveLength(expected.length);
  for (const [i, value] of expected.entries()) expect(got[i]).toBeCloseTo(value, 12);
}

describe('GRPO', () => {
  test.each(golden.cases)('$name: loss and gradients are TRL’s', ({ options, loss, ...gradients }) => {
    const got = evaluate(options);
    expect(got.loss).toBeCloseTo(loss, 12);
    expectClose(got.logprobs, gradients.logprobsGradient);
    expectClose(got.entropy, gradients.entropyGradient);
  });

  test.each(golden.cases)(
    '$name: micro-batches add up to the whole',
    ({ options, loss, logprobsGradient }) => {
      const parts = [evaluate(options, 0, 1), evaluate(options, 1, 4)];
      expect(parts.reduce((sum, part) => sum + part.loss, 0)).toBeCloseTo(loss, 12);
      expectClose(
        parts.flatMap((part) => part.logprobs),
        logprobsGradient,
      );
    },
  );

  test('the golden cases reach every branch: clips on both sides and the dual clip change the loss', () => {
    const loss = (name: string) => golden.cases.find((one) => one.name === name)?.loss;
    expect(
      new Set(['token', 'sequence', 'asymmetric clip', 'dual clip', 'kl', 'entropy'].map(loss)).size,
    ).toBe(6);
  });
});

describe('names', () => {
  test('the configuration names a loss, whose file and settings go to the engine', async () => {
    const { loss } = runSchema.parse({ learning: { loss: { clipHigh: 0.28 } } }).learning;
    const { request, clip } = await openLoss(loss);
    expect(request.module).toMatch(/losses[/\\]grpo\.ts$/);
    expect(request.options).toMatchObject({ clipLow: 0.2, clipHigh: 0.28, dualClip: null });
    expect(clip).toEqual({ low: 0.2, high: 0.28 });
    await expect(openLoss({ name: 'grop' })).rejects.toThrow(/no loss is named "grop".*Did you mean "grpo"/);
  });

  test('every loss has its file', async () => {
    for (const name of Object.keys(losses.entries)) {
      const { request } = await openLoss({ name });
      expect((await import(request.module)).default, name).toBeTypeOf('function');
    }
  });
});
