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
  oldLogprobs: Tensor;
  /** Log p of the same tokens under the policy's starting parameters, if a KL term needs it. [E] */
  referenceLogprobs: Tensor | undefined;
  /** Coefficient of the KL term of each token, where roles have their own. [E] */
  anchors?: Tensor | undefined;
  /** Advantage of the token's call. [E] */
  advantages: Tensor;
  /** Weight of each token; the normaliser of the whole update is in it. [E] */
  weights: Tensor;
  /** Index of the token's call in the micro-batch, int64. [E] */
  calls: Tensor;
  /** Calls of this micro-batch. */
  callCount: number;
}

/**
 * Returns a scalar: Σ weights · term over the entries. It must be a sum, never a mean: micro-batches add up.
 * `options` is the configuration's `learning.loss` entry.
 */
export type LossFunction = (inputs: LossInputs, options: Record<string, unknown>) => Tensor;

/** What a loss's file has to export. */
export const LOSS_EXPORT = {
  what: 'loss',
  takes: 'a function (inputs, options) => Tensor',
  is: (value: unknown): value is LossFunction => typeof value === 'function',
};
