/**
 * Models on the device against what transformers and PEFT gave for them (test/golden): log-probabilities, entropies,
 * every gradient in fp32, gradients by group and their inner products in fp32 and bf16.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { NativeParameterSet, NativePolicy } from '../../src/engine/native-model.js';
import {
  addon,
  backward,
  checkTensorsAreFreed,
  type Golden,
  golden as goldenModel,
  keep,
  read,
  relativeError,
  rootMeanSquare,
  write,
} from '../model/support.js';
import { device, golden, json } from './device.js';

checkTensorsAreFreed();

const families = [
  'qwen3-tied',
  'qwen3-untied-yarn',
  'qwen2-tied',
  'qwen2-untied',
  'llama-tied-9-3',
  'llama-untied-bias-llama3',
  'llama-tied-linear',
];

interface Model {
  policy: NativePolicy;
  trained: NativeParameterSet;
}

function full(model: Golden, dtype: 'float32' | 'bfloat16'): Model {
  const trained = keep(addon.createBase(model.config, dtype, device, true));
  write(trained, model.weights);
  return { policy: keep(addon.createPolicy(model.config, trained)), trained };
}

function adapted(model: Golden): Model {
  const base = keep(addon.createBase(model.config, 'float32', device, false));
  write(base, model.weights);
  if (!model.adapter || !model.adapterWeights) throw new Error('the case has no adapter');
  const trained = keep(addon.createAdapter(model.config, model.adapter, 'float32', device));
  write(trained, model.adapterWeights);
  return { policy: keep(addon.createPolicy(model.config, base, trained, model.adapter)), trained };
}

function expected(model: Golden, name: string): Float32Array {
  const tensor = model.expected.get(name);
  if (!tensor) throw new Error(`no golden value ${name}`);
  return tensor.data;
}

function outputs({ policy }: Model, model: Golden, temperature: number) {
  const batch = keep(addon.pack(model.calls, 1, true));
  const { logprobs, entropy } = policy.tokenLogprobs(batch, temperature, false);
  return { logprobs: read(keep(logprobs)), entropy: read(keep(entropy)) };
}

function expectOutputs(made: Model, model: Golden, prefix: string): void {
  const plain = outputs(made, model, 1);
  const tempered = outputs(made, model, model.temperature);
  for (const [values, name] of [
    [plain.logprobs, 'logprobs'],
    [tempered.logprobs, 'logprobs_at_temperature'],
    [tempered.entropy, 'entropy_at_temperature'],
  ] as const) {
    const wanted = expected(model, prefix + name);
    expect(values.length).toBe(wanted.length);
    const worst = Math.max(...values.map((value, i) => Math.abs(value - (wanted[i] as number))));
    expect(worst, name).toBeLessThan(2e-4);
  }
}

function expectGradients({ policy, trained }: Model, model: Golden, prefix: string): void {
  trained.beginGradients(1);
  const batch = keep(addon.pack(model.calls, 1, true));
  const { temperature, entropyWeight } = model;
  backward(policy, batch, model.lossWeights, { temperature, entropyWeight });
  for (const { name } of trained.parameters) {
    const gradient = read(keep(trained.gradientView(0, name)));
    expect(relativeError(gradient, expected(model, `${prefix}gradient.${name}`)), name).toBeLessThan(1e-4);
  }
  trained.endGradients();
}

describe.each(families)('%s', (name) => {
  const model = goldenModel(name);

  it('fp32 log-probabilities and entropies are those of transformers', () => {
    expectOutputs(full(model, 'float32'), model, '');
  });

  it('bf16 log-probabilities err no more than transformers in bf16 does', () => {
    const exact = expected(model, 'logprobs');
    const theirs = rootMeanSquare(expected(model, 'bf16.logprobs'), exact);
    const ours = rootMeanSquare(outputs(full(model, 'bfloat16'), model, 1).logprobs, exact);
    expect(ours).toBeGreaterThan(0);
    expect(ours).toBeLessThan(1.25 * theirs);
  });

  it('fp32 gradients of all parameters are those of transformers', () => {
    expectGradients(full(model, 'float32'), model, '');
  });
});

describe.each(['qwen3-tied', 'qwen2-tied'])('%s with LoRA', (name) => {
  const model = goldenModel(name);

  it("log-probabilities and gradients are PEFT's", () => {
    const made = adapted(model);
    expectOutputs(made, model, 'lora.');
    expectGradients(made, model, 'lora.');
  });
});

interface Products {
  norm: number[];
  gram: number[][];
}

describe('gradients by group', () => {
  const values = (file: string) =>
    JSON.parse(readFileSync(golden(`gradients/${file}.json`), 'utf8')) as Record<string, Products>;
  const exact = values('expected');
  const rounded = values('bfloat16');

  /** The largest difference of two Gram matrices, in units of the larger norm. */
  function distance(actual: Products, wanted: Products): number {
    const unit = Math.max(...wanted.norm) ** 2;
    const differences = wanted.gram.flatMap((row, k) =>
      row.map((value, l) => Math.abs((actual.gram[k]?.[l] ?? Number.NaN) - value)),
    );
    return Math.max(...differences) / unit;
  }

  const measured = (by: string, dtype: string) =>
    json<Products>([
      'gradients',
      golden('models/qwen3-tied'),
      '--calls',
      golden('gradients/calls.jsonl'),
      '--by',
      by,
      '--dtype',
      dtype,
      '--device',
      device,
    ]);

  it.each(['role', 'role,slot', 'role,slot,turn', 'turn'])('by %s in fp32: norms and products', (by) => {
    expect(distance(measured(by, 'float32'), exact[by] as Products)).toBeLessThan(5e-5);
  });

  it.each(['role', 'role,slot', 'turn'])('by %s in bf16 err no more than transformers in bf16 does', (by) => {
    const theirs = distance(rounded[by] as Products, exact[by] as Products);
    const ours = distance(measured(by, 'bfloat16'), exact[by] as Products);
    expect(ours).toBeGreaterThan(0);
    expect(ours).toBeLessThan(1.5 * theirs);
  });
});
