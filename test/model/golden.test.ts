/**
 * The transformer against transformers and PEFT: log-probabilities, entropies and every gradient of tiny random
 * models of each family. The values come from test/golden/models.py.
 */
import { describe, expect, it } from 'vitest';
import type { NativeParameterSet, NativePolicy } from '../../src/engine/native-model.js';
import {
  addon,
  backward,
  checkTensorsAreFreed,
  type Floats,
  type Golden,
  golden,
  keep,
  read,
  relativeError,
  rootMeanSquare,
  write,
} from './support.js';

checkTensorsAreFreed();

const cases = [
  'qwen3-tied',
  'qwen3-untied-yarn',
  'qwen2-tied',
  'qwen2-untied',
  'llama-tied-9-3',
  'llama-untied-bias-llama3',
  'llama-tied-linear',
];

function fullModel(
  model: Golden,
  dtype: 'float32' | 'bfloat16',
): { policy: NativePolicy; trained: NativeParameterSet } {
  const trained = keep(addon.createBase(model.config, dtype, 'cpu', true));
  write(trained, model.weights);
  return { policy: keep(addon.createPolicy(model.config, trained)), trained };
}

function adaptedModel(model: Golden): { policy: NativePolicy; trained: NativeParameterSet } {
  const base = keep(addon.createBase(model.config, 'float32', 'cpu', false));
  write(base, model.weights);
  if (!model.adapter || !model.adapterWeights) throw new Error('the case has no adapter');
  const trained = keep(addon.createAdapter(model.config, model.adapter, 'float32', 'cpu'));
  write(trained, model.adapterWeights);
  return { policy: keep(addon.createPolicy(model.config, base, trained, model.adapter)), trained };
}

function logprobs(
  policy: NativePolicy,
  model: Golden,
  temperature: number,
): { logprobs: Floats; entropy: Floats } {
  const batch = keep(addon.pack(model.calls, 1, true));
  const result = policy.tokenLogprobs(batch, temperature, false);
  return { logprobs: read(keep(result.logprobs)), entropy: read(keep(result.entropy)) };
}

function expected(model: Golden, name: string): Float32Array {
  const tensor = model.expected.get(name);
  if (!tensor) throw new Error(`no golden value ${name}`);
  return tensor.data;
}

function expectOutputs(policy: NativePolicy, model: Golden, prefix: string): void {
  const plain = logprobs(policy, model, 1);
  const tempered = logprobs(policy, model, model.temperature);
  const close = (actual: Floats, name: string) => {
    const values = expected(model, prefix + name);
    expect(actual.length).toBe(values.length);
    actual.forEach((value, i) => {
      expect(Math.abs(value - (values[i] as number)), `${name}[${i}]`).toBeLessThan(1e-4);
    });
  };
  close(plain.logprobs, 'logprobs');
  close(tempered.logprobs, 'logprobs_at_temperature');
  close(tempered.entropy, 'entropy_at_temperature');
}

function expectGradients(
  policy: NativePolicy,
  trained: NativeParameterSet,
  model: Golden,
  prefix: string,
): void {
  trained.beginGradients(1);
  const batch = keep(addon.pack(model.calls, 1, true));
  backward(policy, batch, model.lossWeights, {
    temperature: model.temperature,
    entropyWeight: model.entropyWeight,
  });
  for (const { name } of trained.parameters) {
    const gradient = read(keep(trained.gradientView(0, name)));
    expect(relativeError(gradient, expected(model, `${prefix}gradient.${name}`)), name).toBeLessThan(2e-5);
  }
}

describe.each(cases)('%s', (name) => {
  const model = golden(name);

  it('fp32 log-probabilities and entropies', () => {
    expectOutputs(fullModel(model, 'float32').policy, model, '');
  });

  it('bf16 log-probabilities err no more than transformers in bf16 does', () => {
    const exact = expected(model, 'logprobs');
    const theirs = rootMeanSquare(expected(model, 'bf16.logprobs'), exact);
    const ours = rootMeanSquare(logprobs(fullModel(model, 'bfloat16').policy, model, 1).logprobs, exact);
    expect(ours).toBeGreaterThan(0);
    expect(ours).toBeLessThan(1.25 * theirs);
  });

  it('gradients of all parameters', () => {
    const { policy, trained } = fullModel(model, 'float32');
    expectGradients(policy, trained, model, '');
  });
});

describe.each(['qwen3-tied', 'qwen2-tied'])('%s with LoRA', (name) => {
  const model = golden(name);

  it('log-probabilities and entropies', () => {
    expectOutputs(adaptedModel(model).policy, model, 'lora.');
  });

  it("gradients are PEFT's", () => {
    const { policy, trained } = adaptedModel(model);
    expectGradients(policy, trained, model, 'lora.');
  });
});
