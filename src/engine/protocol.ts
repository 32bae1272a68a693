/**
 * The commands that the main thread sends to the engine worker: one entry a command, what goes in and what
 * comes out. Plain data: everything survives a structured clone.
 */
import type { NativeGroupOptions, NativeTraffic } from './native.js';
import type { ModuleKind } from './native-model.js';
import type {
  Completion,
  CompletionPart,
  CompletionRequest,
  LikeliestTokens,
  TrainCall,
  TrainRequest,
  TrainResult,
} from './types.js';

export interface LoadModelRequest {
  name: string;
  /** Hugging Face folder. */
  folder: string;
  /** Dtype that forward and backward compute in; masters are fp32 (fp64 for float64). */
  dtype: 'float32' | 'bfloat16' | 'float64';
  /** "auto", "cpu" or "cuda". */
  device: string;
  /** Of each adapter that is going to decode on it; by default there is none. */
  adapterRanks?: readonly number[];
  rollout: {
    /** Bytes of the KV cache; 0: the device's free memory decides. */
    cacheBytes: number;
    maxBatch: number;
    prefillTokens: number;
    seed: number;
    deterministic: boolean;
  };
}

export interface ModelDescription {
  device: string;
  /** The processor has no instructions for the dtype: slower than float32. */
  emulated: boolean;
  vocabularySize: number;
  maxPositions: number;
  layers: number;
}

export type PolicyParameters =
  | { kind: 'full' }
  | { kind: 'lora'; rank: number; alpha: number; targets: ModuleKind[] };

export interface OptimizerSettings {
  betas: [number, number];
  eps: number;
  weightDecay: number;
}

export interface CreatePolicyRequest {
  name: string;
  model: string;
  parameters: PolicyParameters;
  /** false: no optimizer, no gradients, no master weights. */
  trainable: boolean;
  /** Of one that is not trained: it gets a checkpoint's parameters, so it needs its own. */
  restored?: boolean;
  start?: StartingParameters | undefined;
  /** What its KL term compares it with; left out: the parameters that it begins with. */
  reference?: StartingParameters | MovingAverage | undefined;
  keeps?: KeptByTraining;
  optimizer: OptimizerSettings;
  /** Of the adapter's initial weights. */
  seed: number;
}

/**
 * What updates make beside the moments, each of about the policy's size, and keep: the first rollout's cache leaves room for it.
 */
export interface KeptByTraining {
  /** A KL term compares it with its reference. */
  reference: boolean;
  /** Roles whose gradients are averaged, for damping. */
  averages: number;
}

/** Where a policy's parameters begin, other than at the model's and an adapter that changes nothing. */
export type StartingParameters =
  /** A folder in PEFT's layout. */
  | { kind: 'adapter'; folder: string }
  /** A file of `savePolicy`, of a policy of the same shape: its parameters, not its optimizer. */
  | { kind: 'state'; file: string };

/** The policy's own parameters, averaged: a ← decay · a + (1 − decay) · θ after each of its optimizer steps. */
export interface MovingAverage {
  kind: 'average';
  decay: number;
}

/** Writes a Hugging Face folder (full parameters, in `dtype` or the model's) or a PEFT folder (adapter, float32). */
export interface ExportPolicyRequest {
  policy: string;
  folder: string;
  dtype?: 'float32' | 'bfloat16';
  /** Of an adapter: write the model with the adapter in it. */
  merged?: boolean;
  /** What an adapter's configuration calls its model; default: the model's folder. */
  base?: string;
  /** Other files of the folder, by name. */
  files?: Record<string, string>;
  /** Bytes of one file of weights at most; default: 5 GB. */
  shardBytes?: number | undefined;
}

export interface PolicyDescription {
  /** Parameters that training updates. */
  trainable: number;
  version: number;
  /** What a person should know of the model's files, a sentence each: heads that were not read. */
  notices: string[];
}

export interface ScoreRequest {
  policy: string;
  /** Lists of token ids; each token after a list's first is scored. */
  sequences: Int32Array[];
  temperature: number;
}

export interface JoinRequest extends NativeGroupOptions {
  /** Index among the ranks of this machine: which of its GPUs this one computes on. */
  localRank: number;
}

export interface LogprobsRequest {
  policy: string;
  calls: TrainCall[];
  /** Rows of one micro-batch at most. */
  microBatchRows: number;
  /** Under the policy as it is, or under its reference. */
  under: 'policy' | 'reference';
}

export interface LikeliestRequest {
  policy: string;
  calls: Pick<TrainCall, 'prompt' | 'response' | 'temperature'>[];
  /** Tokens told of in each place. */
  count: number;
}

export interface EngineStatistics {
  tokensPrefilled: number;
  tokensDecoded: number;
  tokensCached: number;
  cacheBytes: number;
  /** Tokens that the KV caches can hold; 0 before the first request. */
  cacheTokens: number;
  /** Times that memory ran out in rollouts and in passes without gradients, which went on with less at a time or without recorded steps. */
  memoryRestarts: number;
  /** Peak resident memory of the process so far, bytes. */
  peakMemory: number;
  /** Most bytes of tensors on the GPU so far; null without one. */
  devicePeak: number | null;
  liveTensors: number;
  /** With other ranks; null without any. */
  traffic: NativeTraffic | null;
}

export interface EngineDescription {
  /** Version of libtorch. */
  libtorch: string;
  /** CUDA devices; none on the CPU. */
  devices: string[];
}

/** command: [request, response] */
export interface Commands {
  describe: [null, EngineDescription];
  loadModel: [LoadModelRequest, ModelDescription];
  createPolicy: [CreatePolicyRequest, PolicyDescription];
  complete: [CompletionRequest, Completion];
  train: [TrainRequest, TrainResult];
  score: [ScoreRequest, Float32Array[]];
  /** Log p of each call's response, [response]. */
  logprobs: [LogprobsRequest, Float32Array[]];
  /** Of each call; answered while completions are in flight. */
  likeliest: [LikeliestRequest, LikeliestTokens[]];
  /** Of a policy that several ranks train, all of them have to get this command and the two after it; rank 0 has the files. */
  exportPolicy: [ExportPolicyRequest, null];
  /** Master weights and optimizer state into one safetensors file, exact to the bit. */
  savePolicy: [{ policy: string; file: string }, null];
  restorePolicy: [{ policy: string; file: string }, PolicyDescription];
  /** Drops every KV cache entry. */
  clearCache: [null, null];
  statistics: [null, EngineStatistics];
  /** Meets the other ranks of the run, before a model is loaded. */
  join: [JoinRequest, null];
  /** Why GPUs cannot exchange by NCCL on this rank, a sentence; '' where they can. */
  ncclProblem: [null, string];
  /**
   * Connects this rank's GPU with those of the others by NCCL, all of them at the same place: their tensors go by it from here
   * on. Returns why that could not be, or ''.
   */
  takeNccl: [{ device: string }, string];
  /** Tensors of GPUs go by way of the CPUs' memory again. */
  dropNccl: [null, null];
  /** What every rank gave, in the order of ranks. */
  gather: [{ name: string; bytes: Uint8Array }, Uint8Array[]];
  /** Adds to a count of the group, which begins at 0; what it comes to. Answered while completions are in flight. */
  count: [{ name: string; amount: number }, number];
  /** A digest of the trained parameters' bits: the same on all ranks, or they have come apart. */
  digestPolicy: [{ policy: string }, string];
  /** Leaves the other ranks; `together`: once all have come to it. */
  leave: [{ together: boolean }, null];
}

export type CommandName = keyof Commands;

export interface RequestMessage {
  kind: 'request';
  id: number;
  command: CommandName;
  argument: Commands[CommandName][0];
}

/** Asks to end request `id` early; only `complete`, `train`, `logprobs` and `likeliest` can be cancelled. */
export interface CancelMessage {
  kind: 'cancel';
  id: number;
}

export interface WireError {
  name: string;
  message: string;
  stack?: string;
}

export interface ResponseMessage {
  id: number;
  value?: Commands[CommandName][1];
  /** Of a completion that goes on. */
  part?: CompletionPart;
  error?: WireError;
}
