/**
 * Prefix trees and gradient groups: sharing rows must change neither log-probabilities nor gradients, and every
 * group's gradient must be what a plain backward of that group's loss alone gives. The reference is the same
 * model on the unshared batch, which test/model/golden.test.ts holds against transformers.
 */
import { describe, expect, it } from 'vitest';
import type {
  AdapterConfig,
  DType,
  NativeModelConfig,
  NativeParameterSet,
  NativePolicy,
  PackCall,
} from '../../src/engine/native-model.js';
import {
  addon,
  backward,
  call,
  checkTensorsAreFreed,
  type Floats,
  keep,
  randomBase,
  read,
  relativeError,
  sameBits,
  sumOf,
  tinyConfig,
} from './support.js';

checkTensorsAreFreed();

const GROUPS = 3;
const adapter: AdapterConfig = { rank: 3, alpha: 6, targets: ['q', 'k', 'v', 'o', 'gate', 'up', 'down'] };

/** Three groups over one prompt and a longer one; identical calls, a call that is a prefix of another. */
function calls(): PackCall[] {
  const prompt = [3, 1, 4, 1, 5, 9, 2, 6];
  const longer = [...prompt, 50, 51, 52];
  const responses = [
    [10, 11, 12, 13, 14],
    [10, 11, 12, 20, 21, 22],
    [10, 11, 12],
    [10, 11, 12, 20, 21, 22],
    [10, 11, 12, 20, 40, 41],
    [30],
  ];
  return Array.from({ length: GROUPS }, (_, group) => [
    ...responses.map((response) => ({ prompt, response, group })),
    { prompt: longer, response: [60 + group, 61, 62], group },
    { prompt: longer, response: [60 + group, 61, 70], group },
    { prompt: [90, 91], response: [10, 11], group },
  ])
    .flat()
    .map(({ prompt, response, group }) => ({
      prompt: Int32Array.from(prompt),
      response: Int32Array.from(response),
      group,
    }));
}

/** One weight for each response token of `of`, the same whatever else is in the batch. */
function lossWeights(of: PackCall[]): number[] {
  const all = calls();
  return of.flatMap((call) => {
    const index = all.findIndex(
      (other) => other.group === call.group && other.response.join() === call.response.join(),
    );
    return Array.from(call.response, (_, i) => Math.sin(1 + 5 * index + 2.3 * i));
  });
}

interface Model {
  policy: NativePolicy;
  trained: NativeParameterSet;
}

function model(dtype: DType, lora: boolean, config: NativeModelConfig = tinyConfig()): Model {
  const base = randomBase(config, dtype, 5, !lora);
  if (!lora) return { policy: keep(addon.createPolicy(config, base)), trained: base };
  const trained = keep(addon.createAdapter(config, adapter, dtype, 'cpu'));
  addon.initialize(trained, 9, 0.2);
  for (const { name, size, shape } of trained.parameters) {
    // PEFT's B = 0 would leave A without a gradient.
    const values = Float64Array.from({ length: size }, (_, i) => 0.1 * Math.sin(i + name.length));
    if (name.includes('lora_B')) {
      call('copy_', '', keep(trained.view(name)), keep(addon.tensor(values, shape, 'float64', 'cpu')));
    }
  }
  trained.commit();
  return { policy: keep(addon.createPolicy(config, base, trained, adapter)), trained };
}

interface Pass {
  logprobs: Floats;
  gradients: Floats[];
  gram: Float64Array;
  rows: number;
}

function pass(
  { policy, trained }: Model,
  of: PackCall[],
  share: boolean,
  { activationBytes, levels }: { activationBytes?: number; levels?: number } = {},
): Pass {
  const batch = keep(addon.pack(of, GROUPS, share, levels));
  trained.beginGradients(GROUPS);
  const logprobs = backward(policy, batch, lossWeights(of), {
    temperature: 0.8,
    entropyWeight: 0.05,
    ...(activationBytes !== undefined && { activationBytes }),
  });
  const gradients = Array.from({ length: GROUPS }, (_, k) => read(keep(trained.gradient(k))));
  return { logprobs, gradients, gram: trained.gram(), rows: batch.rows };
}

const cases = [
  ['all parameters', 'float64', false, 1e-10],
  ['all parameters', 'float32', false, 1e-5],
  ['LoRA', 'float64', true, 1e-10],
  ['LoRA', 'float32', true, 1e-5],
] as const;

describe.each(cases)('%s, %s', (_name, dtype, lora, tolerance) => {
  const subject = model(dtype, lora);
  const shared = pass(subject, calls(), true);

  it.each([0, 1, 2, 3])('trees of at most %i levels give what the unshared batch gives', (levels) => {
    const unshared = pass(subject, calls(), false);
    const limited = levels === 0 ? shared : pass(subject, calls(), true, { levels });
    if (levels !== 1) expect(limited.rows).toBeLessThan(unshared.rows / 2);
    if (levels > 0) expect(limited.rows).toBeGreaterThan(shared.rows);
    expect(relativeError(limited.logprobs, unshared.logprobs)).toBeLessThan(tolerance);
    limited.gradients.forEach((gradient, k) => {
      expect(relativeError(gradient, unshared.gradients[k] as Floats)).toBeLessThan(tolerance);
    });
  });

  it("every group's gradient is that of a plain backward of its own loss", () => {
    for (let group = 0; group < GROUPS; group++) {
      const alone = pass(
        subject,
        calls().filter((call) => call.group === group),
        false,
      );
      expect(relativeError(shared.gradients[group] as Floats, alone.gradients[group] as Floats)).toBeLessThan(
        tolerance,
      );
    }
  });

  it('the Gram matrix sums to the squared norm of the plain unshared gradient', () => {
    const ungrouped = calls().map((call) => ({ ...call, group: 0 }));
    const batch = keep(addon.pack(ungrouped, 1, false));
    subject.trained.beginGradients(1);
    backward(subject.policy, batch, lossWeights(calls()), { temperature: 0.8, entropyWeight: 0.05 });
    const total = read(keep(subject.trained.gradient(0)));
    const squaredNorm = sumOf(total, (value) => value * value);
    let sum = 0;
    let norms = 0;
    for (let k = 0; k < GROUPS; k++) {
      norms += Math.sqrt(sumOverParameters(shared.gram, k, k));
      for (let l = 0; l < GROUPS; l++) sum += sumOverParameters(shared.gram, k, l);
    }
    expect(Math.abs(sum - squaredNorm)).toBeLessThan(1e-5 * norms ** 2);
  });

  it('recomputing activations gives the same bits', () => {
    const recomputed = pass(subject, calls(), true, { activationBytes: 1 });
    recomputed.gradients.forEach((gradient, k) => {
      expect(sameBits(gradient, shared.gradients[k] as Floats)).toBe(true);
    });
  });
});

function sumOverParameters(gram: Float64Array, k: number, l: number): number {
  let sum = 0;
  for (let i = k * GROUPS + l; i < gram.length; i += GROUPS * GROUPS) sum += gram[i] as number;
  return sum;
}

describe('the observer', () => {
  const subject = model('float32', false);
  const { gradients, gram } = pass(subject, calls(), true);

  it('gives the inner products of each parameter', () => {
    subject.trained.parameters.forEach(({ offset, size, name }, i) => {
      for (let k = 0; k < GROUPS; k++) {
        for (let l = 0; l < GROUPS; l++) {
          let product = 0;
          let norms = 0;
          for (let j = offset; j < offset + size; j++) {
            const [a, b] = [gradients[k]?.[j] as number, gradients[l]?.[j] as number];
            product += a * b;
            norms += Math.abs(a * b);
          }
          const actual = gram[(i * GROUPS + k) * GROUPS + l] as number;
          expect(Math.abs(actual - product), name).toBeLessThanOrEqual(1e-12 * norms);
        }
      }
    });
  });

  it('sums the groups in place and keeps one accumulator', () => {
    const total = read(keep(subject.trained.totalGradient()));
    const sum = (gradients[0] as Float32Array).map((first, i) =>
      Math.fround(Math.fround(first + (gradients[1]?.[i] as number)) + (gradients[2]?.[i] as number)),
    );
    expect(sameBits(total, sum)).toBe(true);
    expect(() => subject.trained.gradient(1)).toThrow('gradient group 1 of 1');
  });
});

describe('gradients', () => {
  it('of micro-batches add up', () => {
    const subject = model('float64', false);
    const whole = pass(subject, calls(), true);
    subject.trained.beginGradients(GROUPS);
    for (const half of [calls().slice(0, 11), calls().slice(11)]) {
      backward(subject.policy, keep(addon.pack(half, GROUPS, true)), lossWeights(half), {
        temperature: 0.8,
        entropyWeight: 0.05,
      });
    }
    whole.gradients.forEach((gradient, k) => {
      expect(relativeError(read(keep(subject.trained.gradient(k))), gradient)).toBeLessThan(1e-12);
    });
  });

  it.each([[['o']], [['down']], [['q', 'v']], [['gate']]] as const)(
    'of an adapter on %s alone equal finite differences',
    (targets) => {
      const config = tinyConfig();
      const options: AdapterConfig = { rank: 2, alpha: 3, targets: [...targets] };
      const base = randomBase(config, 'float64', 5, false);
      const trained = keep(addon.createAdapter(config, options, 'float64', 'cpu'));
      const values = Float64Array.from({ length: trained.size }, (_, i) => 0.2 * Math.sin(i));
      const set = (vector: Float64Array) => {
        const source = keep(addon.tensor(vector, [trained.size], 'float64', 'cpu'));
        call('copy_', '', keep(trained.master()), source);
        trained.commit();
      };
      const policy = keep(addon.createPolicy(config, base, trained, options));
      const batch = keep(addon.pack(calls(), GROUPS, true));
      const weights = lossWeights(calls());
      const loss = (step: number) => {
        set(values.map((value, i) => value + step * Math.cos(3 * i)));
        const result = policy.tokenLogprobs(batch, 1, false);
        keep(result.entropy);
        return sumOf(read(keep(result.logprobs)), (value, i) => value * (weights[i] as number));
      };
      const difference = (loss(1e-5) - loss(-1e-5)) / 2e-5;
      set(values);
      trained.beginGradients(GROUPS);
      backward(policy, batch, weights);
      const total = read(keep(trained.totalGradient()));
      let slope = 0;
      for (const { offset, size } of trained.parameters) {
        for (let i = offset; i < offset + size; i++) slope += (total[i] as number) * Math.cos(3 * i);
      }
      expect(Math.abs(difference - slope)).toBeLessThan(1e-6 * Math.abs(slope));
    },
  );

  it('of an adapter leave the base as it was, bit for bit', () => {
    const config = tinyConfig();
    const base = randomBase(config, 'bfloat16', 5, false);
    const trained = keep(addon.createAdapter(config, adapter, 'bfloat16', 'cpu'));
    addon.initialize(trained, 9, 0.2);
    const policy = keep(addon.createPolicy(config, base, trained, adapter));
    const before = read(keep(base.compute()));
    const first = pass({ policy, trained }, calls(), true);
    for (let step = 0; step < 3; step++) {
      pass({ policy, trained }, calls(), true);
      const gradient = keep(trained.totalGradient());
      call('add_', 'Tensor', keep(trained.master()), gradient, -0.5);
      trained.commit();
    }
    expect(pass({ policy, trained }, calls(), true).logprobs).not.toEqual(first.logprobs);
    expect(sameBits(read(keep(base.compute())), before)).toBe(true);
  });
});
