/** The memory that one step of a run needs, tensor by tensor: what is held all the time, and what rollout and training add. */
import type { RunConfig } from '../../config/schema.js';
import type { NativeModelConfig } from '../../engine/native-model.js';
import type { PolicyParameters } from '../../engine/protocol.js';
import { parametersOf, type ResolvedPolicy } from '../../policies/routing.js';
import type { DecodeWork } from './decode-schedule.js';
import { headWeights, keptWidths, linears, modelParameters, trainedParameters } from './model-size.js';

/** Bytes of each of `count` tensors. */
export interface Tensors {
  bytes: number;
  count: number;
}

export interface MemoryNeed {
  name: string;
  tensors: Tensors[];
}

/** Held all the time, then the larger of what rollout (the cache aside) and training add. */
export interface StepMemory {
  held: MemoryNeed[];
  rollout: MemoryNeed[];
  training: MemoryNeed[];
  /** Beside these on a CPU: weights laid out again for decoding. Those of a base that does not train stay. */
  cpu: { held: MemoryNeed[]; rollout: MemoryNeed[] };
  /** Beside these on a GPU; a CPU's kernels make logits in pieces that stay in its caches. */
  gpu: { training: MemoryNeed[] };
}

/** Of an update of one policy on this device. */
export interface UpdateWork {
  parameters: PolicyParameters;
  groups: number;
  batches: readonly { rows: number; entries: number }[];
}

export interface MemoryWork {
  policies: readonly ResolvedPolicy[];
  updates: readonly UpdateWork[];
  decode: DecodeWork;
  devices: number;
}

/** Of a number. */
export const BYTES = { bfloat16: 2, float32: 4, float64: 8 };
/** Loss entries whose logits exist at a time. */
const CHUNK = 1024;
/** Copies of weights for decoding take at most this (native/rollout/request.h). */
const REPACKED = 2 ** 31;

type Settings = Pick<RunConfig, 'model' | 'rollout'>;

export function stepMemory(config: NativeModelConfig, settings: Settings, work: MemoryWork): StepMemory {
  const { dtype } = settings.model;
  return {
    held: held(config, work, BYTES[dtype]),
    rollout: rollout(config, settings, work.decode),
    ...training(config, work.updates, BYTES[dtype]),
    cpu: repacked(config, work.policies, dtype),
  };
}

/** Bytes on a device whose allocator takes `block(bytes)` for a tensor. */
export const bytesOf = ({ tensors }: MemoryNeed, block: (bytes: number) => number): number =>
  tensors.reduce((sum, { bytes, count }) => sum + count * block(bytes), 0);

/** What the CPU's allocator takes: eight steps to each power of two, from 2 MiB on in huge pages (`size_class` in native/memory). */
export function cpuBlock(bytes: number): number {
  const least = bytes < 2 ** 16 ? 1 : bytes < 2 ** 21 ? 2 ** 14 : 2 ** 21;
  const unit = Math.max(least, 2 ** Math.floor(Math.log2(Math.max(1, bytes))) / 8);
  return Math.ceil(bytes / unit) * unit;
}

const one = (name: string, bytes: number): MemoryNeed => ({ name, tensors: [{ bytes, count: 1 }] });

/** Whether it computes with the base model's weights as they are. */
const onBase = ({ parameters, freeze }: ResolvedPolicy) => parameters === 'lora' || freeze;

/** Weights, and this device's part of masters and moments. */
function held(config: NativeModelConfig, { policies, devices }: MemoryWork, size: number): MemoryNeed[] {
  const base = policies.some(onBase) ? [one('model', modelParameters(config) * size)] : [];
  const own = policies
    .filter(({ parameters, freeze }) => parameters === 'lora' || !freeze)
    .map((policy): MemoryNeed => {
      const wide = Math.max(4, size);
      const trained = trainedParameters(config, parametersOf(policy));
      const state = { bytes: (trained * wide) / devices, count: size < wide ? 3 : 2 };
      const tensors = [{ bytes: trained * size, count: 1 }, ...(policy.freeze ? [] : [state])];
      return { name: `policy ${policy.name}`, tensors };
    });
  return [...base, ...own];
}

function rollout(
  config: NativeModelConfig,
  { model }: Settings,
  { phases, prefills }: DecodeWork,
): MemoryNeed[] {
  const sequences = Math.max(0, ...phases.map((phase) => phase.sequences));
  // Those that decode beside prompts have a row each.
  const rows = Math.max(sequences, ...prefills.map((pass) => pass.rows + pass.drawing));
  const { hiddenSize, heads, kvHeads, headDim, intermediateSize } = config;
  const row = 4 * hiddenSize + 2 * (heads + 2 * kvHeads) * headDim + 3 * intermediateSize;
  const size = BYTES[model.dtype];
  return [one('a decode step', rows * row * size + 2 * 4 * sequences * config.vocabularySize)];
}

/** Accumulators of the policy that is updated, what its largest micro-batch keeps, and what one layer needs at a time. */
function training(
  config: NativeModelConfig,
  updates: readonly UpdateWork[],
  size: number,
): Pick<StepMemory, 'training' | 'gpu'> {
  const { hiddenSize, intermediateSize, heads, kvHeads, headDim, layers } = config;
  const needs = updates.map(({ parameters, groups, batches }) => {
    const rows = Math.max(...batches.map((batch) => batch.rows));
    const chunk = Math.min(CHUNK, Math.max(...batches.map((batch) => batch.entries)));
    const layer = [3 * hiddenSize, 2 * (heads + 2 * kvHeads) * headDim, 4 * intermediateSize];
    const ofRows = (widths: readonly number[], count: number) =>
      widths.map((width) => ({ bytes: width * rows * size, count }));
    const accumulator = trainedParameters(config, parameters) * Math.max(4, size);
    return {
      training: [
        { name: 'gradients', tensors: [{ bytes: accumulator, count: groups }] },
        { name: 'activations', tensors: ofRows(keptWidths(config, parameters), layers) },
        { name: 'a layer at work', tensors: ofRows(layer, 1) },
      ],
      gpu: { training: [one('logits of a chunk', chunk * config.vocabularySize * (4 + size))] },
    };
  });
  const total = (parts: readonly MemoryNeed[]) =>
    parts.reduce((sum, part) => sum + bytesOf(part, Math.ceil), 0);
  const [largest] = needs.toSorted((a, b) => total(b.training) - total(a.training));
  return largest ?? { training: [], gpu: { training: [] } };
}

/** As the rollout's engine keeps them: each base's as long as all copies take no more than it may (native/rollout/engine.cc). */
function repacked(
  config: NativeModelConfig,
  policies: readonly ResolvedPolicy[],
  dtype: keyof typeof BYTES,
): StepMemory['cpu'] {
  if (dtype === 'float64') return { held: [], rollout: [] };
  const { q, k, v, o, gate, up, down } = linears(config) as Record<string, { in: number; out: number }>;
  const fused = [[q, k, v], [o], [gate, up], [down]];
  const size = BYTES[dtype];
  const tensors = fused.map((parts) => ({
    bytes: size * parts.reduce((sum, part) => sum + (part?.in ?? 0) * (part?.out ?? 0), 0),
    count: config.layers,
  }));
  if (dtype === 'bfloat16') tensors.push({ bytes: headWeights(config) * size, count: 1 });
  const copy = { name: 'weights laid out for decoding', tensors };
  const each = bytesOf(copy, Math.ceil);
  const trained = policies.filter((policy) => !onBase(policy)).length;
  const frozen = policies.some(onBase) ? 1 : 0;
  const most = Math.floor((REPACKED - modelParameters(config) * size) / each) + 1;
  const kept = Math.max(0, Math.min(frozen, most));
  const count = Math.max(0, Math.min(trained, most - kept));
  const times = (n: number) =>
    n === 0 ? [] : [{ ...copy, tensors: tensors.map((one) => ({ ...one, count: n * one.count })) }];
  return { held: times(kept), rollout: times(count) };
}
