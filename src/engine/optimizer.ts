/**
 * SGD, AdamW and clipping over tensors. The update rules are native (native/training/optimizer.h); schedules are
 * the caller's.
 *
 * A bfloat16 or float16 parameter keeps a float32 master inside the optimizer, which takes the updates; the
 * parameter is the master, rounded, after every step.
 */
import { TroupeError } from '../config/errors.js';
import { type OptimizerGroup as NativeGroup, type NativeOptimizer, native } from './native.js';
import { Tensor } from './tensor.js';

/** Parameters that share a learning rate and a weight decay. */
export interface ParameterGroup {
  /** Contiguous leaves. */
  parameters: readonly Tensor[];
  learningRate: number;
  /** Default 0. */
  weightDecay?: number;
}

export interface AdamWOptions {
  /** Decay of the averages of g and g². Default [0.9, 0.999]. */
  betas?: readonly [number, number];
  /** Default 1e-8. */
  eps?: number;
}

export interface SgdOptions {
  /** Default 0. */
  momentum?: number;
}

abstract class Optimizer implements Disposable {
  readonly #native: NativeOptimizer;
  readonly #groups: number;

  constructor(handle: NativeOptimizer, groups: number) {
    this.#native = handle;
    this.#groups = groups;
  }

  /** Calls of `step` and `stepWith` so far. */
  get stepCount(): number {
    return this.#native.stepCount;
  }

  /** Updates the parameters that have a `grad`, with it. */
  step(): void {
    this.#native.step();
  }

  /** Updates the parameters with these gradients, one for each, group after group. */
  stepWith(gradients: readonly Tensor[]): void {
    if (gradients.length === 0) throw new TroupeError('stepWith needs one gradient for every parameter');
    this.#native.step(gradients.map((gradient) => gradient.native));
  }

  /** Makes the state that the first step would make. */
  prepare(): void {
    this.#native.prepare();
  }

  /** Drops the parameters' `grad`. */
  zeroGrad(): void {
    this.#native.zeroGrad();
  }

  /** Sets the learning rate of one group, or of all. */
  setLearningRate(rate: number, group?: number): void {
    const groups = group === undefined ? Array.from({ length: this.#groups }, (_, i) => i) : [group];
    for (const index of groups) this.#native.setLearningRate(index, rate);
  }

  /**
   * The state by "<parameter>.<name>", parameters counted group after group; empty before the first step and `prepare`. The
   * tensors are the optimizer's own memory, not copies: save them, or clone what must not change.
   */
  state(): Record<string, Tensor> {
    return Object.fromEntries(
      Object.entries(this.#native.state()).map(([name, tensor]) => [name, Tensor.wrap(tensor)]),
    );
  }

  /** Copies a state in. The next step is then, bit for bit, the one that the saved optimizer would have made. */
  loadState(state: Readonly<Record<string, Tensor>>, stepCount: number): void {
    const tensors = Object.entries(state).map(([name, tensor]) => [name, tensor.native] as const);
    this.#native.loadState(Object.fromEntries(tensors), stepCount);
  }

  dispose(): void {
    this.#native.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function nativeGroups(groups: readonly ParameterGroup[]): NativeGroup[] {
  return groups.map(({ parameters, learningRate, weightDecay = 0 }) => ({
    parameters: parameters.map((parameter) => parameter.native),
    learningRate,
    weightDecay,
  }));
}

/** AdamW (Loshchilov & Hutter 2019), decoupled weight decay, as torch.optim.AdamW. */
export class AdamW extends Optimizer {
  constructor(groups: readonly ParameterGroup[], options: AdamWOptions = {}) {
    const { betas = [0.9, 0.999], eps = 1e-8 } = options;
    super(native().createAdamW(nativeGroups(groups), [...betas], eps), groups.length);
  }
}

/** Gradient descent with momentum and L2 weight decay, as torch.optim.SGD without dampening. */
export class SGD extends Optimizer {
  constructor(groups: readonly ParameterGroup[], options: SgdOptions = {}) {
    super(native().createSgd(nativeGroups(groups), options.momentum ?? 0), groups.length);
  }
}

/**
 * Scales the gradients in place so that their common Euclidean norm is at most `maxNorm` (Infinity: never scales).
 * Returns the norm before; one that is not finite scales nothing.
 */
export function clipGradNorm(gradients: readonly Tensor[], maxNorm: number): number {
  return native().clipGradNorm(
    gradients.map((gradient) => gradient.native),
    maxNorm,
  );
}
