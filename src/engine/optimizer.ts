/**
 * SGD, AdamW and clipping over tensors. The update rules are native (native/training/optimizer.h); schedules are
 * the caller's.
 *
 * A bfloat16 or float16 parameter keeps a float32 master inside the optimizer, which takes the updates; the
 * parameter is the master, rounded, after every step.
 */
import { TroupeError } from '../config/errors.js';
import {
  type MeasuredStep,
  type OptimizerGroup as NativeGroup,
  type NativeOptimizer,
  native,
  type StepOptions,
} from './native.js';
import type { NativeParameterSet } from './native-model.js';
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
  protected readonly handle: NativeOptimizer;
  readonly #groups: number;

  constructor(handle: NativeOptimizer, groups: number) {
    this.handle = handle;
    this.#groups = groups;
  }

  /** Calls of `step` and `stepWith` so far. */
  get stepCount(): number {
    return this.handle.stepCount;
  }

  /** Updates the parameters that have a `grad`, with it. */
  step(): void {
    this.handle.step();
  }

  /** Updates the parameters with these gradients, one for each, group after group. */
  stepWith(gradients: readonly Tensor[]): void {
    if (gradients.length === 0) throw new TroupeError('stepWith needs one gradient for every parameter');
    this.handle.step(gradients.map((gradient) => gradient.native));
  }

  /** Makes the state that the first step would make. */
  prepare(): void {
    this.handle.prepare();
  }

  /** Drops the parameters' `grad`. */
  zeroGrad(): void {
    this.handle.zeroGrad();
  }

  /** Sets the learning rate of one group, or of all. */
  setLearningRate(rate: number, group?: number): void {
    const groups = group === undefined ? Array.from({ length: this.#groups }, (_, i) => i) : [group];
    for (const index of groups) this.handle.setLearningRate(index, rate);
  }

  /**
   * The state by "<parameter>.<name>", parameters counted group after group; empty before the first step and `prepare`. The
   * tensors are the optimizer's own memory, not copies: save them, or clone what must not change.
   */
  state(): Record<string, Tensor> {
    return Object.fromEntries(
      Object.entries(this.handle.state()).map(([name, tensor]) => [name, Tensor.wrap(tensor)]),
    );
  }

  /** Copies a state in. The next step is then, bit for bit, the one that the saved optimizer would have made. */
  loadState(state: Readonly<Record<string, Tensor>>, stepCount: number): void {
    const tensors = Object.entries(state).map(([name, tensor]) => [name, tensor.native] as const);
    this.handle.loadState(Object.fromEntries(tensors), stepCount);
  }

  dispose(): void {
    this.handle.dispose();
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

  /** One step with gradients that are added up for it, where a set's masters are the two parameters (native.ts). */
  stepParameters(
    parameters: NativeParameterSet,
    coefficients: Float64Array,
    extras: readonly Tensor[],
    options: StepOptions,
  ): MeasuredStep {
    const vectors = extras.map((extra) => extra.native);
    return this.handle.stepParameters(parameters, coefficients, vectors, options);
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
