/** How long a step's parts take by a device's rates: operations and bytes of each, and what bounds it. */
import type { NativeModelConfig } from '../../engine/native-model.js';
import type { BaseSequences, DecodeWork } from './decode-schedule.js';
import { type Device, isGpu } from './devices.js';
import {
  adapterRowWeights,
  cachedOfToken,
  headWeights,
  linears,
  linearWeights,
  trainedParameters,
} from './model-size.js';
import type { Bound, PhasePlan } from './phase-plan.js';
import { BYTES } from './step-memory.js';
import type { PolicyWork, StepWork } from './step-work.js';

/** A part of the step. Everything is for all of its repetitions together. */
export interface Work {
  /** Floating-point operations of matrix products, and of attention. */
  products: number;
  attention: number;
  /** Bytes that are moved as fast as copies are, and by the small kernels between products. */
  bytes: number;
  elementwise: number;
  /** Bytes of weights that products of few rows wait for: what bounds them instead where that takes longer. */
  weightBytes: number;
  /** Kernels that a device runs one after another. */
  launches: number;
}

export function ratedPhases(
  config: NativeModelConfig,
  { decode: rollout, policies, adapterRows, devices }: StepWork,
  device: Device,
  dtype: keyof Device['flops'],
): PhasePlan[] {
  const size = BYTES[dtype];
  // Products of the rollout on the base that adapters share compute the columns of all of them for every row, whoever's it
  // is: a recorded step is anybody's. A CPU has its products of adapters apart.
  const beside = isGpu(device) ? adapterRowWeights(config, adapterRows) : 0;
  const weights = ({ shared }: { shared: boolean }) => linearWeights(config) + (shared ? beside : 0);
  const rated = (name: string, work: readonly Work[]) =>
    together(
      name,
      work.map((one) => phase(one, device, dtype)),
    );
  return [
    rated('prefill', prefill(config, rollout, weights, size)),
    rated('decode', decode(config, rollout, weights, size)),
    ...policies.map((one) => rated(`training ${one.policy.name}`, [training(config, one, size)])),
    ...policies.map((one) => rated(`update ${one.policy.name}`, [updating(config, one, size, devices)])),
  ];
}

const sum = <T>(items: readonly T[], of: (item: T) => number) =>
  items.reduce((total, item) => total + of(item), 0);

/** Elements that the memory-bound kernels of a row and layer move, forward (norms, rotation, SwiGLU, residuals). */
function forwardElements({
  hiddenSize,
  heads,
  kvHeads,
  headDim,
  intermediateSize,
}: NativeModelConfig): number {
  return 10 * hiddenSize + 2 * (heads + 2 * kvHeads) * headDim + 3 * intermediateSize;
}
/** The same of the backward pass, what it computes again included. */
function backwardElements({
  hiddenSize,
  heads,
  kvHeads,
  headDim,
  intermediateSize,
}: NativeModelConfig): number {
  return 12 * hiddenSize + 4 * (heads + 2 * kvHeads) * headDim + 8 * intermediateSize;
}
const attentionOf = ({ layers, heads, headDim }: NativeModelConfig) => layers * heads * headDim;
/** Kernels of a layer in an iteration of the rollout, which take adapters along (docs/cuda-measurements.md). */
const ROLLOUT_LAUNCHES = 9;
/** The same in a micro-batch's two passes, and with adapters. */
const TRAINING_LAUNCHES = { plain: 50, adapted: 69 };

/** What adapters of all linear layers read and write of a row beside its own products: x and y by both of their products. */
const adapterElements = (config: NativeModelConfig) =>
  Object.values(linears(config)).reduce((total, linear) => total + linear.in + linear.out, 0);

function prefill(
  config: NativeModelConfig,
  { prefills, prefillRows, prefillKeys }: DecodeWork,
  weights: (base: { shared: boolean }) => number,
  size: number,
): Work[] {
  return prefills.map((pass) => ({
    products: 2 * weights(pass) * pass.rows,
    attention: 4 * attentionOf(config) * prefillKeys * (pass.rows / prefillRows),
    bytes: 0,
    elementwise: config.layers * forwardElements(config) * size * pass.rows,
    weightBytes: weights(pass) * size,
    launches: config.layers * ROLLOUT_LAUNCHES,
  }));
}

/** Phases of the same sequences: each step of theirs reads the weights, of every base that has some, and the cache. */
function decode(
  config: NativeModelConfig,
  { phases }: DecodeWork,
  weights: (base: BaseSequences) => number,
  size: number,
): Work[] {
  return phases.flatMap(({ steps, sequences, read, bases }) =>
    bases.map((base) => {
      const rows = base.sequences;
      const multiplied = weights(base) + headWeights(config);
      return {
        products: 2 * multiplied * rows * steps,
        attention: 0,
        // Keys and values once for all who share them; logits are written, read and read again by the sampler.
        bytes:
          steps *
          ((cachedOfToken(config) * size * read * rows) / sequences + 12 * config.vocabularySize * rows),
        elementwise: config.layers * forwardElements(config) * size * rows * steps,
        weightBytes: multiplied * size * steps,
        launches: steps * config.layers * ROLLOUT_LAUNCHES,
      };
    }),
  );
}

function training(config: NativeModelConfig, { parameters, batches }: PolicyWork, size: number): Work {
  const rows = sum(batches, (batch) => batch.rows);
  const entries = sum(batches, (batch) => batch.entries);
  const adapted = parameters.kind === 'lora';
  // Forward, the gradient of the input, the gradient of the weight.
  const passes = adapted ? 2 : 3;
  const adapter = adapted ? 3 * trainedParameters(config, parameters) : 0;
  // Forward, backward to the input, and twice for the gradients of both matrices.
  const elements =
    forwardElements(config) + backwardElements(config) + (adapted ? 4 * adapterElements(config) : 0);
  return {
    products:
      2 * (passes * linearWeights(config) + adapter) * rows +
      // The backward pass computes the logits again.
      2 * (passes + 1) * headWeights(config) * entries,
    attention: 14 * attentionOf(config) * sum(batches, (batch) => batch.keys),
    bytes: 24 * config.vocabularySize * entries,
    elementwise: config.layers * elements * size * rows,
    weightBytes: 0,
    launches: batches.length * config.layers * TRAINING_LAUNCHES[adapted ? 'adapted' : 'plain'],
  };
}

/**
 * Statistics and the optimizer, each one pass in the device's part (ZeRO-1): the accumulators read twice, masters and moments
 * read and written, the parameters written. An adapter's accumulators are cleared before; a base's matrices are overwritten
 * by their first products.
 */
function updating(
  config: NativeModelConfig,
  { parameters, groups, updates }: PolicyWork,
  size: number,
  devices: number,
): Work {
  const trained = trainedParameters(config, parameters);
  const wide = Math.max(4, size);
  const cleared = parameters.kind === 'lora' ? wide * groups : 0;
  return {
    products: 0,
    attention: 0,
    bytes: updates * trained * (cleared + (wide * (2 * groups + 6) + size) / devices),
    elementwise: 0,
    weightBytes: 0,
    launches: 0,
  };
}

/** Seconds by what they are for. */
export function phase(work: Work, device: Device, dtype: keyof Device['flops']): Record<Bound, number> {
  const rate = device.flops[dtype];
  const products = work.products / rate;
  const weights = work.weightBytes / device.bandwidth;
  const bytes = work.bytes + work.elementwise / device.elementwise;
  return {
    products: weights > products ? 0 : products,
    attention: work.attention / (rate * device.attention),
    memory: bytes / device.bandwidth + (weights > products ? weights : 0),
    launches: work.launches * device.launch,
    links: 0,
  };
}

function together(name: string, parts: readonly Record<Bound, number>[]): PhasePlan {
  const total: Record<Bound, number> = { products: 0, attention: 0, memory: 0, launches: 0, links: 0 };
  const bounds = Object.keys(total) as Bound[];
  for (const one of parts) for (const bound of bounds) total[bound] += one[bound];
  const [bound = 'products'] = bounds.toSorted((a, b) => total[b] - total[a]);
  return { name, seconds: sum(bounds, (one) => total[one]), bound, parts: total };
}
