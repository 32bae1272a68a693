/**
 * What a loss is: a function over tensors, in a file of its own, imported by the engine worker. The engine
 * differentiates it; gradients by role come out of the same backward pass.
 */
import type { Tensor } from './tensor.js';

/** One micro-batch, one entry per response token of its calls. E entries. */
export interface LossInputs {
  /** Log p of each response token under the current parameters, at the sampling temperature. [E], gradient. */
  logprobs: Tensor;
  /** Entropy of the distribution that each token was drawn from, nats. [E], gradient. */
  entropy: Tensor;
  /** Log p of the same tokens when they were sampled. [E] */
  rolloutLogprobs: Tensor;
  /** What the ratio compares with: those, or log p in the trainer before the step's first update. [E] */
  oldLogprobs: Tensor;
  /** Log p of the same tokens under the reference, if a KL term needs it. [E] */
  referenceLogprobs: Tensor | undefined;
  /** Advantage of the token's call, times its importance weight where there is one (importance.ts). [E] */
  advantages: Tensor;
  /** Weight of each token; the normaliser of the whole update is in it. [E] */
  weights: Tensor;
  /** Index of the token's call in the micro-batch, int64. [E] */
  calls: Tensor;
  /** Calls of this micro-batch. Each is whole in it. */
  callCount: number;
  /** Response tokens of each call. [callCount] */
  lengths: Tensor;
}

/**
 * Returns a scalar: Σ weights · term over the entries. It must be a sum, never a mean: micro-batches add up.
 * KL term and entropy bonus are added to it (regularisers.ts). `settings`: of the loss, in `learning.loss`.
 */
export type LossFunction = (inputs: LossInputs, settings: Record<string, unknown>) => Tensor;

/** What a loss's file has to export. */
export const LOSS_EXPORT = {
  what: 'loss',
  takes: 'a function (inputs, settings) => Tensor',
  is: (value: unknown): value is LossFunction => typeof value === 'function',
};
