/** Parameters, activations and cache of a model, in numbers (not bytes), from its shape. */
import type { NativeModelConfig } from '../../engine/native-model.js';
import type { PolicyParameters } from '../../engine/protocol.js';

/** The linear layers of one transformer layer: in and out. */
export function linears(config: NativeModelConfig): Record<string, { in: number; out: number }> {
  const { hiddenSize, intermediateSize, heads, kvHeads, headDim } = config;
  const kv = { in: hiddenSize, out: kvHeads * headDim };
  const up = { in: hiddenSize, out: intermediateSize };
  return {
    q: { in: hiddenSize, out: heads * headDim },
    k: kv,
    v: kv,
    o: { in: heads * headDim, out: hiddenSize },
    gate: up,
    up,
    down: { in: intermediateSize, out: hiddenSize },
  };
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

/** Weights of the linear layers of all transformer layers: what every row is multiplied with. */
export function linearWeights(config: NativeModelConfig): number {
  return config.layers * sum(Object.values(linears(config)).map((linear) => linear.in * linear.out));
}

/** Numbers of `rows` rows for adapters' A behind each of these matrices (native/model/adapter_rows.h). */
export function adapterRowWeights(config: NativeModelConfig, rows: number): number {
  return config.layers * rows * sum(Object.values(linears(config)).map((linear) => linear.in));
}

export const headWeights = (config: NativeModelConfig) => config.vocabularySize * config.hiddenSize;

export function modelParameters(config: NativeModelConfig): number {
  const { hiddenSize: h, layers, headDim, intermediateSize } = config;
  const { q, k, v } = linears(config) as Record<'q' | 'k' | 'v', { out: number }>;
  const biases =
    (config.qkvBias ? q.out + k.out + v.out : 0) +
    (config.outputBias ? h : 0) +
    (config.mlpBias ? 2 * intermediateSize + h : 0);
  const norms = 2 * h + (config.qkNorm ? 2 * headDim : 0);
  const embeddings = headWeights(config) * (config.tiedEmbeddings ? 1 : 2);
  return linearWeights(config) + layers * (norms + biases) + embeddings + h;
}

export function trainedParameters(config: NativeModelConfig, parameters: PolicyParameters): number {
  if (parameters.kind === 'full') return modelParameters(config);
  const all = linears(config);
  const targets = parameters.targets.map((target) => all[target] ?? { in: 0, out: 0 });
  return config.layers * parameters.rank * sum(targets.map((linear) => linear.in + linear.out));
}

/** Widths of what the training pass keeps of a row and layer for the backward pass, a tensor each (docs/memory.md). */
export function keptWidths(config: NativeModelConfig, parameters: PolicyParameters): number[] {
  const { hiddenSize, heads, kvHeads, headDim, intermediateSize } = config;
  const ranks = parameters.kind === 'lora' ? parameters.targets.map(() => parameters.rank) : [];
  const qkv = (heads + 2 * kvHeads) * headDim;
  return [hiddenSize, qkv, heads * headDim, hiddenSize, 2 * intermediateSize, ...ranks];
}

/** Keys and values of a token. */
export const cachedOfToken = ({ layers, kvHeads, headDim }: NativeModelConfig) =>
  2 * layers * kvHeads * headDim;
