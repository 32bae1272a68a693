/**
 * The addon's typed face. The only file that loads the .node file; only the engine worker imports it at run
 * time (types may be imported anywhere). Loading is lazy: `--help` must not pay for libtorch.
 */
import { loadAddon } from './load.js';
import type {
  AdapterConfig,
  DType,
  NativeMicroBatch,
  NativeModelConfig,
  NativePackedBatch,
  NativeParameterSet,
  NativePolicy,
  NativeShard,
  NativeTensor,
  PackCall,
} from './native-model.js';

/** `code` of an error that says that a device's memory ran out. */
export const OUT_OF_MEMORY = 'OUT_OF_MEMORY';

export interface RolloutOptions {
  /** Bytes that the KV cache may take; 0: the device's free memory decides, whenever it is made anew (CacheBudget). */
  cacheBytes: number;
  /** Sequences decoded in one step at most. */
  maxBatch: number;
  /** Prompt tokens prefilled in one step at most. */
  prefillTokens: number;
  /** Bytes that weights repacked for small batches may take in all; bases beyond it run unpacked. Default 2 GiB. */
  packedBytes?: number;
  /** The run's seed: one part of every random number's counter. */
  seed: number;
  deterministic: boolean;
  /** Decode steps are recorded once and replayed where the kernels can (CUDA graphs). Default true. */
  recordSteps?: boolean;
  /**
   * A decode step is launched before the tokens of the one before it are read, where the device works while the host goes
   * on (a GPU) and the run is not deterministic: the same tokens. Default true.
   */
  runAhead?: boolean;
  /**
   * Of recorded steps each product is computed by the way that was measured to be the fastest, where the kernels know several
   * (a GPU) and the run is not deterministic. Default true.
   */
  measureProducts?: boolean;
  /** Bytes of every token id, concatenated, with vocabulary + 1 offsets: for stop strings. */
  tokenBytes?: Uint8Array;
  tokenOffsets?: Int32Array;
}

export interface RolloutRequest {
  id: number;
  policy: NativePolicy;
  prompt: Int32Array;
  maxTokens: number;
  /** 0: greedy. */
  temperature: number;
  /** 0: off. */
  topK: number;
  /** 1: off. */
  topP: number;
  /** 0: off. */
  minP: number;
  stopTokens: Int32Array;
  stopStrings: string[];
  /** step, episode, role, slot, turn: with the seed and the position, the counter of the random numbers. */
  counter: readonly [number, number, number, number, number];
  /** Forced length: stop tokens are ignored until maxTokens. For benchmarks. */
  ignoreStop?: boolean;
  /** Every token is a result of its own ('running') as it comes; the last result has them all. */
  stream?: boolean;
}

export interface RolloutResult {
  id: number;
  /** Sampled tokens; the stop token included where one ended it. */
  ids: Int32Array;
  /**
   * log p of each at the sampling temperature, full softmax before top-k, top-p and min-p; of greedy samples at
   * temperature 1.
   */
  logprobs: Float32Array;
  finish: 'running' | 'stop' | 'length' | 'cancelled' | 'error';
  /** For 'error': what was wrong and what it takes. */
  error?: string;
  version: number;
  /** Prompt tokens found in the cache. */
  cachedTokens: number;
}

export interface RolloutStatistics {
  running: number;
  waiting: number;
  /** Bytes that cached keys and values take now. */
  cacheBytes: number;
  /** Tokens that the cache can hold; 0 before the first request. */
  cacheTokens: number;
  /** Since the engine was made: prompt tokens computed (recomputed ones included), samples computed … */
  prefillTokens: number;
  decodeTokens: number;
  /** … and prompt tokens found in the cache. */
  cachedTokens: number;
  /** Times that a running request gave up its place because memory was short. */
  preemptions: number;
  /**
   * Times that memory ran out, and a smaller slab for the cache, or half the sequences and prompt tokens of a step, were taken,
   * no step was recorded any more, or one was not launched ahead.
   */
  memoryRestarts: number;
  /** Decode steps that were replays of a recorded one: on kernels that record (CUDA graphs). */
  replayedSteps: number;
}

export interface NativeRolloutEngine {
  /**
   * What can't be served comes back from the next step as an 'error' result. Throws if `id` is in use or an
   * argument has the wrong type.
   */
  submit(request: RolloutRequest): void;
  /** The next step returns it as 'cancelled' with the tokens so far; an id that is not known is ignored. */
  cancel(id: number): void;
  /**
   * One iteration: admits, prefills, decodes one token for every running sequence. Returns what finished. In
   * deterministic runs requests are admitted in the order of their counters among those submitted so far, so the
   * caller steps when every live episode waits.
   */
  step(): RolloutResult[];
  /**
   * Drops cache entries of versions that no policy holds any more; with `everything`, all that no running request
   * uses, and the repacked copies of weights that training will change.
   */
  clearCache(everything: boolean): void;
  /**
   * So many bytes of the device's memory, which training is going to make and keep, are not for a cache that nobody sized:
   * from the next one on, which is made for the first request after `clearCache(true)`.
   */
  reserve(bytes: number): void;
  readonly idle: boolean;
  statistics(): RolloutStatistics;
  dispose(): void;
}

/** As native/training/optimizer.h. State tensors are saved and loaded by name. */
export interface NativeOptimizer {
  /** `gradients`: one for every parameter, group after group; left out: each parameter's grad. */
  step(gradients?: NativeTensor[]): void;
  /** Makes the state of every parameter that has none. */
  prepare(): void;
  /**
   * One AdamW step of a set's masters, whose parts with and without weight decay are the optimizer's two parameters, with
   * clip · (Σ a_k g_k + Σ a_x e_x), and a new version of the set (native/training/observer.h). `extras`: flat [shardSize].
   */
  stepParameters(
    parameters: NativeParameterSet,
    coefficients: Float64Array,
    extras: NativeTensor[],
    options: StepOptions,
  ): MeasuredStep;
  zeroGrad(): void;
  setLearningRate(group: number, rate: number): void;
  readonly stepCount: number;
  state(): Record<string, NativeTensor>;
  loadState(state: Record<string, NativeTensor>, stepCount: number): void;
  dispose(): void;
}

export interface StepOptions {
  /** Factor on the gradient. */
  clip: number;
  /** Whether a MeasuredStep is wanted. */
  measure: boolean;
  /** The accumulator of group 0 is the sum afterwards, not clipped. If not, what the groups' hold is not specified. */
  keepTotal: boolean;
}

/** Of a rank's shard: sums over all elements are sums of the ranks' results. Empty and 0 where it was not measured. */
export interface MeasuredStep {
  /** ⟨u_j, Δθ⟩ for groups, extras, momentum and weight decay: [parameters, groups + extras + 2], row-major. */
  products: Float64Array;
  /** Of the gradient that was formed, before clipping. */
  squaredNorm: number;
}

export interface OptimizerGroup {
  parameters: NativeTensor[];
  learningRate: number;
  weightDecay: number;
}

/** As SafetensorsWriter in native/io/safetensors.h. */
export interface NativeSafetensorsWriter {
  /** The next elements of the tensor that is being written. */
  write(piece: NativeTensor): void;
  finish(): void;
  /** Without finish() there is no file then. */
  dispose(): void;
}

export interface NativeSafetensors {
  readonly names: string[];
  readonly metadata: Record<string, string>;
  /** `dtype` is a `DType`, or the file's own name ("F8_E4M3") where there is none for it. */
  info(name: string): { dtype: string; shape: number[] };
  /** Memory-mapped view, good after dispose() too; but a file that is cut short meanwhile kills the process. */
  tensor(name: string): NativeTensor;
  dispose(): void;
}

/** As `GroupOptions` in native/distributed/process_group.h. */
export interface NativeGroupOptions {
  rank: number;
  size: number;
  /** Of the store at which the ranks meet. */
  host: string;
  port: number;
  /** This process keeps the store. */
  serve: boolean;
  /** Of the group's keys in the store. */
  prefix: string;
  /** This machine's address, as the other ranks reach it; or the name of a network interface instead, else ''. */
  address: string;
  interface: string;
  timeoutSeconds: number;
  /**
   * GPUs exchange tensors by NCCL; where it cannot be used, there is no group. False: by way of the CPUs' memory, until
   * takeNccl() is called.
   */
  nccl: boolean;
  /** [128], memory of all threads (`Shared` in native/distributed/watch.h). */
  shared?: Int32Array;
}

/** What went through collectives since the start. */
export interface NativeTraffic {
  seconds: number;
  /** For other ranks to come to a collective. */
  waitingSeconds: number;
  bytes: number;
  /** Of them by NCCL. */
  ncclBytes: number;
}

/** As native/distributed/process_group.h: each call but `count` is a collective, and blocks. `name` is for messages. */
export interface NativeProcessGroup {
  readonly rank: number;
  readonly size: number;
  readonly traffic: NativeTraffic;
  allReduce(name: string, tensors: NativeTensor[], reduction: 'sum' | 'max'): void;
  reduceScatter(name: string, tensors: NativeTensor[]): void;
  allGather(name: string, tensors: NativeTensor[]): void;
  broadcast(name: string, tensors: NativeTensor[], root: number): void;
  barrier(name: string): void;
  /**
   * Connects the ranks' GPUs by NCCL, by which they exchange tensors from here on: all ranks call it at the same place. Why it
   * could not be, or ''.
   */
  takeNccl(device: string): string;
  /** GPUs exchange tensors by way of the CPUs' memory again. */
  dropNccl(): void;
  /** Adds to the group's count of that name, which begins at 0; returns what it comes to. */
  count(name: string, amount: number): number;
  gather(name: string, bytes: Uint8Array): Uint8Array[];
  dispose(): void;
}

/** What is missing for GPUs to be used, or used in full: a sentence each (native/cuda/library.h). */
export interface CudaProblems {
  /** No GPU can be used. */
  readonly device?: string;
  /** GPUs are used by plain ATen operators, many times slower than Troupe's kernels. */
  readonly kernels?: string;
  /** NCCL cannot be used: GPUs exchange tensors by way of the CPUs' memory. */
  readonly nccl?: string;
}

export interface NativeAddon {
  readonly torchVersion: string;
  readonly compiledTorchVersion: string;
  cudaDevices(): string[];
  cudaProblems(): CudaProblems;
  /** Why ranks' GPUs cannot exchange by NCCL here, a sentence; '' where they can. */
  ncclProblem(): string;
  threads(): number;
  bf16Kernels(): boolean;
  /** Whether the device's kernels decode with an adapter's A behind the base's weights. */
  stacksAdapters(device: string): boolean;
  /** Bytes of the copy in which a device's kernels lay a weight out for decoding; 0: it stays as it is. `head`: the output projection's. */
  packedBytes(device: string, dtype: DType, outputs: number, inputs: number, head: boolean): number;
  liveTensors(): number;
  /**
   * A device's memory in bytes: what can be allocated now, what the process may ever use; and of tensors (on the CPU, of
   * those of 64 KiB and more) what is in use, what is kept for reuse (native/memory), and the most that was in use.
   * `shared`: everything else on the machine lives in it too.
   */
  deviceMemory(device: string): {
    free: number;
    limit: number;
    used: number;
    cached: number;
    peak: number;
    shared: boolean;
  };
  /** `peak` of a device's memory begins again with what is in use now. */
  resetPeakMemory(device: string): void;
  /** Gives the memory kept for reuse back to the system, of the CPU and of GPUs. */
  releaseMemory(): void;
  /**
   * Bytes of the storages that live tensors hold, each storage counted once: what V8 was told of. Not those that a
   * parameter set holds as well, which collecting garbage would not free.
   */
  liveTensorBytes(): number;
  /** One boxed dispatcher call: any ATen operator with autograd, e.g. call('aten::add', 'Tensor', [a, b, 1]). */
  call(operator: string, overload: string, args: unknown[]): unknown;
  tensor(data: ArrayBufferView, shape: number[], dtype: DType, device: string): NativeTensor;
  /** Copies: Float64Array, Float32Array (bf16 and fp16 too), BigInt64Array, Int32Array, Uint8Array. */
  read(tensor: NativeTensor): Float64Array | Float32Array | BigInt64Array | Int32Array | Uint8Array;
  backward(tensor: NativeTensor, gradient?: NativeTensor): void;
  grad(tensor: NativeTensor): NativeTensor | undefined;
  requiresGrad(tensor: NativeTensor, value: boolean): void;
  withGradMode(enabled: boolean): boolean;

  /**
   * `adapterRanks`: of a base that does not train, rows that stay free behind each of its matrices for adapters' A, so that
   * one product computes x Wᵀ and their x Aᵀ where kernels want that (stacksAdapters). An adapter takes its rank, rounded up
   * to a multiple of 8; one that finds no room decodes all the same, more slowly.
   */
  createBase(
    config: NativeModelConfig,
    compute: DType,
    device: string,
    trainable: boolean,
    shard?: NativeShard,
    adapterRanks?: number,
  ): NativeParameterSet;
  createAdapter(
    config: NativeModelConfig,
    adapter: AdapterConfig,
    compute: DType,
    device: string,
    shard?: NativeShard,
  ): NativeParameterSet;
  createPolicy(
    config: NativeModelConfig,
    base: NativeParameterSet,
    adapter?: NativeParameterSet,
    adapterConfig?: AdapterConfig,
  ): NativePolicy;
  /**
   * From a counter on `seed`, then commit(). A base: Normal(0, std) for matrices, 1 for norm weights, 0 for
   * biases. An adapter, as PEFT does: A uniform in ±1/√in whatever `std` is, B = 0.
   */
  initialize(parameters: NativeParameterSet, seed: number, std: number): void;
  /**
   * Calls as prefix trees, of each group its own, of at most `levels` levels (a policy's `treeLevels`; 0, the default: any
   * number). Without `share`, a chain for each call.
   */
  pack(calls: PackCall[], groups: number, share: boolean, levels?: number): NativePackedBatch;
  /**
   * All of the calls in parts of at most `maxRows` rows, as `pack` lays them out on trees of so many levels; a call that has more
   * is alone. Calls that share most are together, and what they share is computed again in as few parts as can be.
   */
  microBatches(calls: PackCall[], maxRows: number, levels: number): NativeMicroBatch[];
  createRolloutEngine(config: NativeModelConfig, options: RolloutOptions): NativeRolloutEngine;

  createAdamW(groups: OptimizerGroup[], betas: [number, number], eps: number): NativeOptimizer;
  createSgd(groups: OptimizerGroup[], momentum: number): NativeOptimizer;
  /** Scales the gradients in place to `maxNorm` at most; returns the norm before. */
  clipGradNorm(gradients: NativeTensor[], maxNorm: number): number;

  /** Returns when all ranks have come; throws a sentence where they do not, within the timeout. */
  createProcessGroup(options: NativeGroupOptions): NativeProcessGroup;

  openSafetensors(path: string): NativeSafetensors;
  /** Tensors are written in the order of `entries`, to `path` directly; the caller renames. */
  createSafetensors(
    path: string,
    entries: { name: string; dtype: DType; shape: readonly number[] }[],
    metadata: Record<string, string>,
  ): NativeSafetensorsWriter;
  /** Written to `path` directly; the caller renames. */
  saveSafetensors(
    path: string,
    tensors: Record<string, NativeTensor>,
    metadata: Record<string, string>,
  ): void;
}

let addon: NativeAddon | undefined;

/** The addon, loaded on first use. */
export function native(): NativeAddon {
  addon ??= loadAddon() as NativeAddon;
  return addon;
}
