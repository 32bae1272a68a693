/**
 * Models of published shapes with random weights, one policy to train on each, and what is asked of it: for the benchmarks
 * that need no weights on disk (gpu/troupe.mjs, stages.mjs, decode.mjs).
 */
import { nativeModelConfig } from '../build/js/engine/configuration.js';
import { native } from '../build/js/engine/native.js';
import { PolicyState } from '../build/js/engine/policy-state.js';
import { SHAPES } from '../build/js/engine/shapes.js';

/** 0.6b, 1.7b, 4b (Qwen3), or tiny to try a benchmark out; with so many layers, where they are given. */
export function shapeNamed(name, layers) {
  const tiny = {
    hidden_size: 64,
    intermediate_size: 128,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: 16,
    vocab_size: 512,
  };
  const shape = name === 'tiny' ? { ...SHAPES['qwen3-0.6b'], ...tiny } : SHAPES[`qwen3-${name}`];
  if (shape === undefined) throw new Error(`there is no shape "${name}": 0.6b, 1.7b, 4b, tiny`);
  return nativeModelConfig(layers === undefined ? shape : { ...shape, num_hidden_layers: layers });
}

/** Weights drawn on the device. */
function makeBase(config, device, trainable, adapterRanks) {
  const call = (name, overload, ...args) => native().call(`aten::${name}`, overload, args);
  const base = native().createBase(config, 'bfloat16', device, trainable, undefined, adapterRanks);
  for (const { name, kind } of base.parameters) {
    const view = base.view(name);
    if (kind === 'norm') call('fill_', 'Scalar', view, 1);
    else call('normal_', '', view, 0, 0.02, null);
    view.dispose();
  }
  base.commit();
  return base;
}

/** `parameters`: full, or r16, r64 …. Disposed by the process' end alone. */
export function makePolicy(config, parameters, device) {
  const full = parameters === 'full';
  const rank = Number(parameters.slice(1));
  const targets = ['q', 'k', 'v', 'o', 'gate', 'up', 'down'];
  return new PolicyState(
    {
      name: 'policy',
      model: 'model',
      parameters: full ? { kind: 'full' } : { kind: 'lora', rank, alpha: 2 * rank, targets },
      trainable: true,
      optimizer: { betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0 },
      seed: 0,
    },
    config,
    makeBase(config, device, full, full ? 0 : rank),
    device,
    {
      make: () => {
        throw new Error('no reference in this benchmark');
      },
      bytes: () => 0,
    },
  );
}

/** Tokens of a prompt or a response that mean nothing. */
export const randomTokens = (config, length) =>
  Int32Array.from({ length }, () => 1 + ((Math.random() * (config.vocabularySize - 1)) | 0));

/** A request of a native policy for exactly `maxTokens` tokens at temperature 1. */
export const completionRequest = (policy, id, prompt, maxTokens) => ({
  id,
  policy,
  prompt,
  maxTokens,
  temperature: 1,
  topK: 0,
  topP: 1,
  minP: 0,
  stopTokens: new Int32Array(),
  stopStrings: [],
  counter: [id, 0, 0, 0, 0],
  ignoreStop: true,
});
