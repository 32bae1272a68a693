/**
 * What the main thread and the engine worker say to each other. Plain data only: everything here survives a
 * structured clone.
 */
import type { Importance } from './importance.js';
import type { Regularisation } from './regularisers.js';

/** How tokens are drawn. */
export interface Sampling {
  /** 0 is greedy. */
  temperature: number;
  /** 0: off. */
  topK: number;
  /** 1: off. */
  topP: number;
  /** 0: off. */
  minP: number;
  /** Response tokens at most. */
  maxTokens: number;
  /** Text that ends a response (kept in it). The chat template's end tokens always end it. */
  stop: string[];
}

/** One call of a role to its policy, in tokens. */
export interface CompletionRequest {
  policy: string;
  prompt: Int32Array;
  sampling: Sampling;
  /** step, episode, role, slot, turn: makes a sample independent of what else was in its batch. */
  counter: readonly [number, number, number, number, number];
  /** Runs to maxTokens whatever is sampled: for benchmarks with forced lengths. */
  ignoreStop?: boolean;
  /** Tokens are told of as they come, too. */
  stream?: boolean;
}

/** Tokens of a completion that is still running: those that came since the last ones. */
export type CompletionPart = Pick<Completion, 'ids' | 'logprobs'>;

/** Of each response token of a call: log p, and what was likeliest in its place. One softmax over the vocabulary. */
export interface LikeliestTokens {
  /** Natural log p of the response tokens at the call's temperature, [response]. */
  logprobs: Float32Array;
  /** The likeliest tokens and their log p, likeliest first, [response, count] row-major. */
  ids: Int32Array;
  values: Float32Array;
}

/** What a policy answered, in tokens. */
export interface Completion {
  /** Sampled tokens, the end token included where one ended it. */
  ids: Int32Array;
  /** Natural log p of each token at the sampling temperature, [ids]. */
  logprobs: Float32Array;
  finish: 'stop' | 'length' | 'cancelled';
  policy: string;
  /** Optimizer steps of the policy when its sampling began. */
  version: number;
  /** Prompt tokens that were found in the KV cache. */
  cachedTokens: number;
}

/** One call as the training step sees it. */
export interface TrainCall {
  prompt: Int32Array;
  response: Int32Array;
  /** Log p of the response at sampling time, [response]. */
  rolloutLogprobs: Float32Array;
  /** At which the response was sampled: log p, entropy and the loss are of the distribution at this temperature. */
  temperature: number;
  advantage: number;
  /** Weight of each response token in the loss, the normaliser included: loss = Σ weight · term. */
  weight: number;
  /** Index into `TrainRequest.groups`. */
  group: number;
  /** Coefficient of the KL term of its tokens; left out: 0. */
  kl?: number;
  /** What the loss's ratio compares with, where that is the trainer's and an update came between, [response]. */
  oldLogprobs?: Float32Array;
}

/** How one role's gradient is changed before the optimizer gets it (intervention.ts). */
export interface RoleIntervention {
  role: string;
  /** Its gradient groups. */
  groups: number[];
  /** Factor on its gradient, before all else: 1/N or 1/√N for slot averaging. */
  slotFactor: number;
  /** Part (0 to 1) of its gradient along its average that is taken out. */
  damping: number;
  /** Part of the average that stays in each update. */
  averageDecay: number;
  /** Factor on its gradient, after all else. */
  rate: number;
}

/** Every group belongs to one of the roles. */
export interface InterventionRequest {
  roles: RoleIntervention[];
  balance: 'none' | 'mass' | 'conflicts';
  /** Indices of the roles in the order in which conflicts are removed. */
  order: number[];
}

/** How group gradients are measured; `sketch` as in native/model/gradient_sketch.h. */
export interface StatisticsRequest {
  method: 'auto' | 'exact' | 'sketch';
  sketch: { replicates: number; size: number | 'auto'; seed: number };
}

export interface TrainRequest {
  policy: string;
  calls: TrainCall[];
  /** Names of the gradient groups, e.g. "generator/0". */
  groups: string[];
  /** Calls whose mismatch is measured although they have no gradient. Not part of the loss. */
  mismatchOnly: TrainCall[];
  /** File whose default export is a `LossFunction` (loss.ts), and its options. */
  loss: { module: string; options: Record<string, unknown> };
  /** What is added to the loss; left out: nothing. */
  regularisation?: Regularisation;
  /** Log p under the reference is computed too: a KL term needs it. */
  reference: boolean;
  /** What the loss's ratio compares with; trainer: the calls' `oldLogprobs`, or log p as it is. Left out: rollout. */
  old?: 'rollout' | 'trainer';
  /** Factors on the advantages; left out: none. */
  importance?: Importance;
  learningRate: number;
  /** Global norm that gradients are scaled down to; 0: no clipping. */
  clipNorm: number;
  /** Rows of one micro-batch at most. */
  microBatchRows: number;
  /** false: gradients and statistics only, parameters untouched. */
  update: boolean;
  intervention?: InterventionRequest;
  /** Left out: exact. Interventions need exact gradients. */
  statistics?: StatisticsRequest;
  /** Which of the policy's updates in this step of the run it is, from 0, and of how many. */
  position?: { index: number; of: number };
}

/** Gradient statistics of one update, straight from the accumulators. */
export interface GradientStatistics {
  method: 'exact' | 'sketch';
  groups: string[];
  /** Parameters' module kind and layer, [parameters]. */
  kinds: string[];
  layers: Int32Array;
  /** [parameters, groups, groups] fp64, row-major. Of sketches, the mean over the replicates. */
  gram: Float64Array;
  /** Of sketches: what each replicate says, [count, parameters, groups, groups]. */
  replicates?: { count: number; gram: Float64Array };
  /** Norm of the gradient that the optimizer gets, after interventions and before clipping. */
  totalNorm: number;
  /** Gram matrices of the roles' gradients after interventions, [parameters, roles, roles] fp64, row-major. */
  applied?: { roles: string[]; gram: Float64Array };
  /**
   * ⟨u, Δθ⟩ of the groups' parts of the parameters' change and of what momentum (gradient averages included) and
   * weight decay add, [parameters, groups + 2] fp64; their sum is ‖Δθ‖². Left out if nothing was updated.
   */
  optimizer?: Float64Array;
  /** Response tokens per group. */
  tokens: number[];
  /** Rows computed per group. */
  rows: number[];
}

/** Token-level numbers of one call, for mismatch and loss statistics. */
export interface CallStatistics {
  /** Log p of the response in the trainer, at the call's temperature, [response]. */
  logprobs: Float32Array;
  entropy: Float32Array;
}

export interface TrainResult {
  loss: number;
  gradients: GradientStatistics;
  /** One per call of the request, then one per `mismatchOnly` call. */
  calls: CallStatistics[];
  /** Factor that clipping scaled the gradient by; 1 where it did not. */
  clipFactor: number;
  /** Optimizer steps of the policy, this one included. */
  version: number;
  tokensSeen: number;
  tokensComputed: number;
  /** Rows among them that would have been shared if all calls were of one group. */
  extraRows: number;
  /** Times that memory ran out and the update began again with micro-batches of half the rows, and their rows now. */
  memoryRestarts: number;
  microBatchRows: number;
  /**
   * ‖Σ g_u‖ / Σ ‖g_u‖ over the updates of this step so far; null where all are zero, and for several sketched ones,
   * whose sum would be a second gradient in memory.
   */
  updateCoherence: number | null;
  /** Seconds. */
  forwardSeconds: number;
  backwardSeconds: number;
  optimizerSeconds: number;
  statisticsSeconds: number;
  /** Set if the step was not applied: which policy, layer and group had non-finite gradients. */
  skipped?: string;
}
