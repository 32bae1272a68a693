/**
 * Types of the addon's models: tensors, parameter sets, packed batches and policies, with what they are made of (native/model,
 * native/batch). native.ts has the functions.
 */

/** Kinds of numbers that a tensor may have. */
export type DType = 'float64' | 'float32' | 'bfloat16' | 'float16' | 'int64' | 'int32' | 'uint8' | 'bool';

/** A handle on one at::Tensor. Wrapped for use by `Tensor` (tensor.ts). */
export interface NativeTensor {
  readonly shape: number[];
  readonly dtype: DType;
  readonly device: string;
  readonly requiresGrad: boolean;
  dispose(): void;
}

/** As `ModelConfig` in native/model/config.h; made from config.json by configuration.ts. */
export interface NativeModelConfig {
  hiddenSize: number;
  layers: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  intermediateSize: number;
  vocabularySize: number;
  maxPositions: number;
  rmsNormEps: number;
  tiedEmbeddings: boolean;
  qkvBias: boolean;
  outputBias: boolean;
  mlpBias: boolean;
  qkNorm: boolean;
  inverseFrequencies: Float64Array;
  ropeScaling: number;
}

export type ModuleKind = 'embedding' | 'q' | 'k' | 'v' | 'o' | 'gate' | 'up' | 'down' | 'norm' | 'head';

export interface ParameterInfo {
  name: string;
  shape: number[];
  /** Elements from the start of the flat buffer. */
  offset: number;
  size: number;
  kind: ModuleKind;
  /** −1: belongs to no layer. */
  layer: number;
  decay: boolean;
}

/** A flat set of parameters: a base model or one adapter (native/model/parameters.h). */
export interface NativeParameterSet {
  readonly parameters: ParameterInfo[];
  readonly size: number;
  readonly decaySize: number;
  readonly version: number;
  readonly trainable: boolean;
  /** Elements of the flat buffers that this process has the masters of: all of them, where it trains alone. */
  readonly shardBegin: number;
  readonly shardSize: number;
  /** Flat fp32/fp64 master [shardSize]; throws on a frozen set. */
  master(): NativeTensor;
  /** Flat compute copy [size]. */
  compute(): NativeTensor;
  /** The same with its padding, [shards · shardSize]. */
  buffer(): NativeTensor;
  /** View of parameter `name`: of the master where this process has all of it, else of the compute copy. */
  view(name: string): NativeTensor;
  /** Parameter `name` ← values, of its shape. To be followed by commit(). */
  write(name: string, values: NativeTensor): void;
  /** The shard's master → compute, and a new version. */
  commit(): void;
  beginGradients(groups: number): void;
  /** One accumulator for all groups and a sketch of each (native/model/gradient_sketch.h). */
  beginSketch(groups: number, options: { replicates: number; size: number; seed: number }): void;
  /** Estimates of the groups' inner products: [replicates, parameters, groups, groups], row-major. */
  sketchGram(): Float64Array;
  endGradients(): void;
  /** Flat gradient of one group, like buffer(). */
  gradient(group: number): NativeTensor;
  gradientView(group: number, name: string): NativeTensor;
  /** Every group's flat gradient; with sketches, the one of all. */
  accumulators(): NativeTensor[];
  /** This process's part of a group's gradient [shardSize]. */
  gradientShard(group: number): NativeTensor;
  /** What gradients are added to beside the accumulators. */
  sketchSums(): NativeTensor[];
  // What follows is about the shard: sums over all elements are sums of the processes' results.
  /**
   * Σ a_k g_k + Σ a_x e_x in group 0's accumulator, returned flat [shardSize]; the groups' gradients are gone after it.
   * `coefficients`: of the groups, then of the extras; left out: all 1. `extras`: flat [shardSize].
   */
  totalGradient(coefficients?: Float64Array, extras?: NativeTensor[]): NativeTensor;
  /** Inner products of the groups' gradients and the extras, fp64 sums: [parameters, groups + extras, same], row-major. */
  gram(extras?: NativeTensor[]): Float64Array;
  /** target ← decay · target + Σ a_k g_k, flat [shardSize]. */
  addGradients(target: NativeTensor, decay: number, coefficients: Float64Array): void;
  dispose(): void;
}

/** Which of `count` equal parts of the flat buffers a process has the masters of. */
export interface NativeShard {
  index: number;
  count: number;
}

/**
 * A base's `adapterRanks` (createBase) for adapters of these ranks: each takes its own, rounded up to a multiple of 8. Of more
 * than a base can have, some find no room.
 */
export const adapterRoom = (ranks: readonly number[]): number =>
  Math.min(
    2 ** 16,
    ranks.reduce((sum, rank) => sum + 8 * Math.ceil(rank / 8), 0),
  );

export interface AdapterConfig {
  rank: number;
  alpha: number;
  targets: ModuleKind[];
}

/** What a packed batch holds; rows, nodes and entries as in native/batch/packed_batch.h. */
export interface NativePackedBatch {
  readonly rows: number;
  readonly tokensSeen: number;
  readonly entries: number;
  /** groups + 1 row offsets. */
  readonly groupRows: number[];
  /** Entry index of each response token, call after call: [entries] int64, calls + 1 offsets. */
  readonly callStarts: number[];
  /** Of its deepest prefix tree. */
  readonly levels: number;
  readonly trees: number;
  /** Rows of each node: an unbranched run of a tree. */
  readonly nodeRows: number[];
  /** Keys that the rows meet in attention: each its own position and those before it. */
  readonly keys: number;
  dispose(): void;
}

export interface PackCall {
  prompt: Int32Array;
  response: Int32Array;
  group: number;
  /** At which the response was sampled, and its log-probabilities are taken; left out: tokenLogprobs' own. */
  temperature?: number;
}

/** A part of some calls, as native/batch/micro_batches.h cuts them. */
export interface NativeMicroBatch {
  /** Indices; those of one group follow one another. */
  calls: number[];
  /** That pack() makes of them. */
  rows: number;
}

export interface NativePolicy {
  readonly version: number;
  /** What its device computes more slowly for it than others do, a sentence each. */
  readonly slowPaths: string[];
  /** Levels that a batch's prefix trees should have at most, for each costs its device calls of attention; 0: any number. */
  readonly treeLevels: number;
  /**
   * Log-probability and entropy of every response token of the batch, [entries] in the order of the calls
   * (call by call, token by token), fp32/fp64. With gradients begun on the trained parameters, `logprobs` and
   * `entropy` carry an autograd node whose backward adds every group's gradient to its accumulator; it runs
   * once. Where the activations would take more than `activationBytes` (default: half of the memory that is free on
   * the policy's device), each layer's are computed again in the backward pass: the same numbers for a third more work.
   */
  tokenLogprobs(
    batch: NativePackedBatch,
    temperature: number,
    gradients: boolean,
    activationBytes?: number,
  ): { logprobs: NativeTensor; entropy: NativeTensor };
  /**
   * Without gradients, of the same distributions: log-probabilities [entries], and the `count` likeliest tokens in
   * each one's place with theirs, likeliest first: [entries, count] int64 and fp32/fp64.
   */
  likeliestTokens(
    batch: NativePackedBatch,
    temperature: number,
    count: number,
  ): { logprobs: NativeTensor; ids: NativeTensor; values: NativeTensor };
  dispose(): void;
}
