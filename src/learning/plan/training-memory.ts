/** The memory of an update: accumulators, what a micro-batch keeps for its backward pass, what a layer works with. */
import type { NativeModelConfig } from '../../engine/native-model.js';
import type { PolicyParameters } from '../../engine/protocol.js';
import { cpuBlock, type MemoryNeed, one, type Tensors, totalOf } from './memory-need.js';
import { keptWidths, trainedParameters } from './model-size.js';
import { BLOCK, type Rows } from './tree-rows.js';

/** Of an update of one policy on this device. */
export interface UpdateWork {
  parameters: PolicyParameters;
  groups: number;
  batches: readonly TrainedBatch[];
}

type TrainedBatch = Omit<Rows, 'keys'> & { entries: number };

/** Loss entries whose logits exist at a time. */
const CHUNK = 1024;
/** Partial sums of a CPU's attention are kept below this (native/kernels/cpu/attention_backward.cc). */
const PARTIAL_SUMS = 2 ** 28;
/** Its heads have a multiple of so many columns. */
const BLOCK_UNIT = 32;

export interface TrainingMemory {
  training: MemoryNeed[];
  /** On a CPU, in the place of `training`. */
  cpu: MemoryNeed[];
  /** Beside `training` on a GPU. */
  gpu: MemoryNeed[];
}

/** Of the update that needs most; `size`: bytes of a number, `threads`: that a CPU computes with. */
export function trainingMemory(
  config: NativeModelConfig,
  updates: readonly UpdateWork[],
  size: number,
  threads: number,
): TrainingMemory {
  const needs = updates.map((update): TrainingMemory => {
    const { parameters, groups, batches } = update;
    const accumulator = trainedParameters(config, parameters) * Math.max(4, size);
    const gradients = { name: 'gradients', tensors: [{ bytes: accumulator, count: groups }] };
    const inMlp = batches.map(({ rows }) => [gradients, ...atMlp(config, parameters, rows * size)]);
    const inAttention = batches.map((batch) => [
      gradients,
      ...atAttention(config, parameters, batch, size, threads),
    ]);
    const chunk = Math.min(CHUNK, Math.max(...batches.map(({ entries }) => entries)));
    return {
      training: largest(inMlp, Math.ceil),
      cpu: largest([...inMlp, ...inAttention], cpuBlock),
      gpu: [one('logits of a chunk', chunk * config.vocabularySize * (4 + size))],
    };
  });
  const [most] = needs.toSorted((a, b) => totalOf(b.training, Math.ceil) - totalOf(a.training, Math.ceil));
  const onCpu = largest(
    needs.map(({ cpu }) => cpu),
    cpuBlock,
  );
  return { training: most?.training ?? [], cpu: onCpu, gpu: most?.gpu ?? [] };
}

const largest = (needs: readonly MemoryNeed[][], block: (bytes: number) => number): MemoryNeed[] =>
  needs.toSorted((a, b) => totalOf(b, block) - totalOf(a, block))[0] ?? [];

/** Tensors of these widths, `column` bytes for each number of it. */
const ofWidths = (widths: readonly number[], column: number, count: number): Tensors[] =>
  widths.map((width) => ({ bytes: width * column, count }));

const qkvWidth = ({ heads, kvHeads, headDim }: NativeModelConfig) => (heads + 2 * kvHeads) * headDim;

/** The backward pass in the last layer's MLP, where all activations are still there. */
function atMlp(config: NativeModelConfig, parameters: PolicyParameters, column: number): MemoryNeed[] {
  const { hiddenSize, intermediateSize, layers } = config;
  const atWork = [3 * hiddenSize, 2 * qkvWidth(config), 4 * intermediateSize];
  return [
    { name: 'activations', tensors: ofWidths(keptWidths(config, parameters), column, layers) },
    { name: 'a layer at work', tensors: ofWidths(atWork, column, 1) },
  ];
}

/** In its attention, where those of its MLP are gone, on a CPU. */
function atAttention(
  config: NativeModelConfig,
  parameters: PolicyParameters,
  batch: TrainedBatch,
  size: number,
  threads: number,
): MemoryNeed[] {
  const { hiddenSize, heads, headDim, layers } = config;
  const column = batch.rows * size;
  const [input = 0, product = 0, mixed = 0, middle = 0, gateUp = 0, ...ranks] = keptWidths(
    config,
    parameters,
  );
  const atWork = [hiddenSize, heads * headDim, qkvWidth(config), qkvWidth(config)];
  return [
    {
      name: 'activations',
      tensors: [
        ...ofWidths([input, product, mixed, ...ranks], column, layers),
        ...ofWidths([middle, gateUp], column, layers - 1),
      ],
    },
    {
      name: 'attention at work',
      tensors: [...ofWidths(atWork, column, 1), ...attentionBlocks(config, batch, size, threads)],
    },
  ];
}

/**
 * Keys, values and transposed keys in blocks, and partial sums of each query head's gradients where there are few trees for the
 * threads (native/kernels/cpu/attention_backward.cc).
 */
function attentionBlocks(
  { heads, kvHeads, headDim }: NativeModelConfig,
  { trees, blocks }: TrainedBatch,
  size: number,
  threads: number,
): Tensors[] {
  const block = BLOCK * BLOCK_UNIT * Math.ceil(headDim / BLOCK_UNIT);
  const laidOut = { bytes: blocks * kvHeads * block * size, count: 3 };
  const sums = 2 * blocks * heads * block * Math.max(4, size);
  const split = heads > kvHeads && trees * kvHeads < 4 * threads && sums < PARTIAL_SUMS;
  return split ? [laidOut, { bytes: sums, count: 1 }] : [laidOut];
}
