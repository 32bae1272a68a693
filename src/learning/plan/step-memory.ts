/** The memory that one step of a run needs, tensor by tensor: what is held all the time, and what rollout and training add. */
import { availableParallelism } from 'node:os';
import type { RunConfig } from '../../config/schema.js';
import { adapterRoom, type NativeModelConfig } from '../../engine/native-model.js';
import { adapterRanks, parametersOf, type ResolvedPolicy } from '../../policies/routing.js';
import type { DecodeWork } from './decode-schedule.js';
import { bytesOf, type MemoryNeed, one } from './memory-need.js';
import { adapterRowWeights, linears, modelParameters, trainedParameters } from './model-size.js';
import { trainingMemory, type UpdateWork } from './training-memory.js';

/** Held all the time, then the larger of what rollout (the cache aside) and training add. */
export interface StepMemory {
  held: MemoryNeed[];
  rollout: MemoryNeed[];
  training: MemoryNeed[];
  /**
   * On a CPU: the weights that it may lay out again for decoding; in the place of `training` what its attention works with,
   * where that makes more.
   */
  cpu: { decoding: DecodingWeights; training: MemoryNeed[] };
  /** Beside these on a GPU: room for adapters, and logits, which a CPU's kernels make in pieces that stay in its caches. */
  gpu: { held: MemoryNeed[]; training: MemoryNeed[] };
}

export interface MemoryWork {
  policies: readonly ResolvedPolicy[];
  updates: readonly UpdateWork[];
  decode: DecodeWork;
  devices: number;
}

/** A matrix that decoding multiplies by, of `count` layers. */
export interface DecodingWeight {
  dtype: DType;
  outputs: number;
  inputs: number;
  /** It is the output projection. */
  head: boolean;
  count: number;
}

/** The weights of one base, and how many bases there are that stay as they are, and that train. */
export interface DecodingWeights {
  weights: DecodingWeight[];
  /** Bytes of all of a base's parameters. */
  base: number;
  frozen: number;
  trained: number;
}

type DType = keyof typeof BYTES;

/** Of a number. */
export const BYTES = { bfloat16: 2, float32: 4, float64: 8 };
/** Copies of weights for decoding take at most this (native/rollout/request.h). */
const REPACKED = 2 ** 31;

type Settings = Pick<RunConfig, 'model' | 'rollout'>;

export function stepMemory(config: NativeModelConfig, settings: Settings, work: MemoryWork): StepMemory {
  const { dtype } = settings.model;
  const size = BYTES[dtype];
  const { training, cpu, gpu } = trainingMemory(config, work.updates, size, threadsOf(work.devices));
  return {
    held: held(config, work, size),
    rollout: rollout(config, settings, work.decode),
    training,
    cpu: { decoding: decodingWeights(config, work.policies, dtype), training: cpu },
    gpu: { held: adapterRows(config, work.policies, size), training: gpu },
  };
}

/** Each of `devices` ranks on one CPU has its share of the cores. */
export const threadsOf = (devices: number): number =>
  Math.max(1, Math.floor(availableParallelism() / devices));

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

/** Behind the weights that all adapters share there is room for their A, from which their products are computed as one. */
function adapterRows(
  config: NativeModelConfig,
  policies: readonly ResolvedPolicy[],
  size: number,
): MemoryNeed[] {
  const rows = adapterRoom(adapterRanks(policies));
  return rows === 0 ? [] : [one("adapters' A beside the weights", adapterRowWeights(config, rows) * size)];
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

function decodingWeights(
  config: NativeModelConfig,
  policies: readonly ResolvedPolicy[],
  dtype: DType,
): DecodingWeights {
  const { q, k, v, o, gate, up, down } = linears(config) as Record<string, { in: number; out: number }>;
  // As the engine multiplies: q, k and v by one matrix, gate and up by one.
  const fused = [[q, k, v], [o], [gate, up], [down]].map((parts) => ({
    outputs: parts.reduce((sum, part) => sum + (part?.out ?? 0), 0),
    inputs: parts[0]?.in ?? 0,
    head: false,
    count: config.layers,
  }));
  const head = { outputs: config.vocabularySize, inputs: config.hiddenSize, head: true, count: 1 };
  return {
    weights: [...fused, head].map((weight) => ({ dtype, ...weight })),
    base: modelParameters(config) * BYTES[dtype],
    frozen: policies.some(onBase) ? 1 : 0,
    trained: policies.filter((policy) => !onBase(policy)).length,
  };
}

/**
 * Copies of weights as a processor lays them out for decoding: held all the time those of a base that does not train, during
 * the rollout those of others. The engine makes each base's as long as all of them take no more than they may
 * (native/rollout/engine.cc). `packedBytes`: of the copy that the processor's kernels make of a weight, 0 where they make none.
 */
export function weightCopies(
  { weights, base, frozen, trained }: DecodingWeights,
  packedBytes: (weight: DecodingWeight) => number,
): { held: MemoryNeed[]; rollout: MemoryNeed[] } {
  const tensors = weights
    .map((weight) => ({ bytes: packedBytes(weight), count: weight.count }))
    .filter(({ bytes }) => bytes > 0);
  const copy = { name: 'weights laid out for decoding', tensors };
  const each = bytesOf(copy, Math.ceil);
  const most = each === 0 ? 0 : Math.floor((REPACKED - base) / each) + 1;
  const kept = Math.max(0, Math.min(frozen, most));
  const times = (n: number) =>
    n === 0 ? [] : [{ ...copy, tensors: tensors.map((one) => ({ ...one, count: n * one.count })) }];
  return { held: times(kept), rollout: times(Math.max(0, Math.min(trained, most - kept))) };
}
