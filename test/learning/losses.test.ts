/** Fails if a loss or its gradient is not TRL's (golden/losses.py), or depends on how calls are cut into micro-batches. */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runSchema } from '../../src/config/schema.js';
import { type Importance, importanceWeights } from '../../src/engine/importance.js';
import type { LossFunction, LossInputs } from '../../src/engine/loss.js';
import { type KlEstimator, regularisers } from '../../src/engine/regularisers.js';
import { scope } from '../../src/engine/scope.js';
import { liveTensors, Tensor } from '../../src/engine/tensor.js';
import { type Aggregation, losses, openLoss } from '../../src/learning/losses.js';
import type { CreditedCall } from '../../src/learning/step-call.js';
import { planUpdates } from '../../src/learning/update-plan.js';
import { episode, roleCall } from './episodes.js';

interface Golden {
  lengths: number[];
  advantages: number[];
  logprobs: number[];
  oldLogprobs: number[];
  rolloutLogprobs: number[];
  referenceLogprobs: number[];
  entropy: number[];
  cases: {
    name: string;
    options: {
      name: string;
      aggregation: Aggregation;
      length?: number;
      kl: number;
      entropy: number;
      importance?: Omit<Importance, 'low'> & { low: number | null };
      truncated?: boolean[];
    } & Record<string, unknown>;
    loss: number;
    logprobsGradient: number[];
    entropyGradient: number[];
  }[];
}

const golden: Golden = JSON.parse(readFileSync(new URL('../golden/losses.json', import.meta.url), 'utf8'));

/** The functions of the losses, as the engine imports them. */
const functions = new Map<string, LossFunction>();
beforeAll(async () => {
  for (const name of Object.keys(losses.entries)) {
    const { request } = await openLoss({ name });
    functions.set(name, (await import(request.module)).default);
  }
});

let before = 0;
beforeAll(() => {
  before = liveTensors();
});
afterAll(() => expect(liveTensors()).toBe(before));

const f64 = (values: readonly number[]) => Tensor.from(Float64Array.from(values));

/** The weights of an update of the golden batch's calls, some of them cut off and masked. */
function weightsOf({ aggregation, length = 1, truncated = [] }: Golden['cases'][number]['options']) {
  const calls = golden.lengths.map((tokens, i): CreditedCall => {
    const call = roleCall({ tokens });
    call.completion.finish = truncated[i] === true ? 'length' : 'stop';
    const given = { index: 0, values: [], reward: 0, group: '', flat: false };
    return { ...given, episode: episode(0, i, 0, []), call, advantage: golden.advantages[i] ?? 0 };
  });
  const { learning } = runSchema.parse({ learning: { truncated: 'mask' } });
  const loss = { aggregation, followsAdvantage: true };
  return planUpdates(calls, { ...learning, loss, length })[0]?.calls.map(({ weight }) => weight) ?? [];
}

/**
 * TRL leaves the tokens of truncated responses out, and goes on to count the responses: where it divides by them, its loss is
 * smaller by the share of those that are left.
 */
function shareInTrl({ aggregation, truncated = [] }: Golden['cases'][number]['options']): number {
  const left = golden.lengths.length - truncated.filter(Boolean).length;
  return aggregation === 'token' ? 1 : left / golden.lengths.length;
}

/** Loss and gradients over calls `from` to `to` of the golden batch. */
function evaluate(options: Golden['cases'][number]['options'], from = 0, to = golden.lengths.length) {
  return scope(() => {
    const starts = golden.lengths.map((_, i) => golden.lengths.slice(0, i).reduce((sum, n) => sum + n, 0));
    const part = (values: readonly number[]) => f64(values.slice(starts[from], starts[to]));
    const weights = weightsOf(options);
    const lengths = golden.lengths.slice(from, to);
    const perToken = (values: readonly number[]) =>
      f64(lengths.flatMap((length, i) => new Array<number>(length).fill(values[from + i] ?? Number.NaN)));
    const inputs: LossInputs = {
      logprobs: part(golden.logprobs).setRequiresGrad(true),
      entropy: part(golden.entropy).setRequiresGrad(true),
      rolloutLogprobs: part(golden.rolloutLogprobs),
      oldLogprobs: part(golden.oldLogprobs),
      referenceLogprobs: part(golden.referenceLogprobs),
      advantages: perToken(golden.advantages),
      weights: perToken(weights),
      calls: Tensor.from(BigInt64Array.from(lengths.flatMap((n, i) => new Array(n).fill(BigInt(i))))),
      callCount: lengths.length,
      lengths: f64(lengths),
    };
    if (options.importance !== undefined) {
      const importance = { ...options.importance, low: options.importance.low ?? 0 };
      inputs.advantages = inputs.advantages.mul(importanceWeights(inputs, importance));
    }
    const anchors = options.kl === 0 ? undefined : perToken(golden.lengths.map(() => options.kl));
    const added = regularisers(inputs, anchors, { kl: 'k3', entropy: options.entropy });
    const own = functions.get(options.name)?.(inputs, options);
    if (own === undefined) throw new Error(`no loss ${options.name}`);
    const loss = added === undefined ? own : own.add(added);
    loss.backward();
    const zeros = new Array<number>(inputs.logprobs.size).fill(0);
    return {
      loss: loss.item(),
      logprobs: inputs.logprobs.grad?.toArray() ?? zeros,
      entropy: inputs.entropy.grad?.toArray() ?? zeros,
    };
  });
}

function expectClose(got: readonly number[], expected: readonly number[]): void {
  expect(got).toHaveLength(expected.length);
  for (const [i, value] of expected.entries()) expect(got[i]).toBeCloseTo(value, 12);
}

describe('a loss', () => {
  test.each(golden.cases)('$name: loss and gradients are TRL’s', ({ options, loss, ...gradients }) => {
    const got = evaluate(options);
    const share = shareInTrl(options);
    const asTrl = (values: readonly number[]) => values.map((value) => value * share);
    expect(got.loss * share).toBeCloseTo(loss, 12);
    expectClose(asTrl(got.logprobs), gradients.logprobsGradient);
    expectClose(asTrl(got.entropy), gradients.entropyGradient);
  });

  test.each(golden.cases)(
    '$name: micro-batches add up to the whole',
    ({ options, loss, logprobsGradient }) => {
      const parts = [evaluate(options, 0, 1), evaluate(options, 1, 4)];
      const share = shareInTrl(options);
      expect(parts.reduce((sum, part) => sum + part.loss * share, 0)).toBeCloseTo(loss, 12);
      expectClose(
        parts.flatMap((part) => part.logprobs.map((value) => value * share)),
        logprobsGradient,
      );
    },
  );

  test('the golden cases reach every branch: each changes the loss, save that DAPO is one of GRPO', () => {
    expect(new Set(golden.cases.map(({ loss }) => loss)).size).toBe(golden.cases.length - 1);
  });
});

test('the estimators of the KL divergence are Schulman’s, and k2 and k3 have the gradient that k1 lacks', () => {
  // E over p of each is KL(p ‖ q), or close to it: here exactly, summed over three outcomes.
  const p = [0.2, 0.3, 0.5];
  const q = [0.25, 0.35, 0.4];
  const kl = p.reduce((sum, value, i) => sum + value * Math.log(value / (q[i] ?? 1)), 0);
  const expectation = (estimator: KlEstimator) =>
    scope(() => {
      const logprobs = f64(p.map(Math.log)).setRequiresGrad(true);
      const inputs = { logprobs, referenceLogprobs: f64(q.map(Math.log)), weights: f64(p) } as LossInputs;
      const value = regularisers(inputs, f64([1, 1, 1]), { kl: estimator, entropy: 0 });
      value?.backward();
      return { value: value?.item() ?? Number.NaN, gradient: logprobs.grad?.toArray() ?? [] };
    });
  expect(expectation('k1').value).toBeCloseTo(kl, 12);
  expect(expectation('k1').gradient).toEqual(p);
  expect(expectation('k3').value).toBeCloseTo(kl, 12);
  const difference = p.map((value, i) => Math.log(value / (q[i] ?? 1)));
  expect(expectation('k2').value).toBeCloseTo(
    p.reduce((sum, value, i) => sum + (value * (difference[i] ?? 0) ** 2) / 2, 0),
    12,
  );
  expectClose(
    expectation('k2').gradient,
    p.map((value, i) => value * (difference[i] ?? 0)),
  );
});

describe('names', () => {
  test('the configuration names a loss, whose file and settings go to the engine', async () => {
    const { loss } = runSchema.parse({ learning: { loss: { clipHigh: 0.28 } } }).learning;
    const { request, clip } = await openLoss(loss);
    expect(request.module).toMatch(/losses[/\\]grpo\.js$/);
    expect(request.options).toMatchObject({ clipLow: 0.2, clipHigh: 0.28, dualClip: null });
    expect(clip).toEqual({ low: 0.2, high: 0.28, level: 'token' });
    await expect(openLoss({ name: 'grop' })).rejects.toThrow(/no loss is named "grop".*Did you mean "grpo"/);
  });
});
