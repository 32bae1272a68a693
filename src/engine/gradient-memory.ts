/**
 * What a policy remembers of its gradients: an average for each role that is damped, which checkpoints hold, and the
 * sum over the updates of one step of the run.
 */
import type { NativeParameterSet } from './native-model.js';
import { scope } from './scope.js';
import { noGrad, Tensor } from './tensor.js';
import type { InterventionRequest, TrainRequest } from './types.js';

const PREFIX = 'average.';

export class GradientMemory {
  readonly #trained: NativeParameterSet;
  readonly #normOf: (shard: Tensor) => number;
  readonly #averages = new Map<string, Tensor>();
  #sum: Tensor | undefined;
  #normSum = 0;
  /** Norm of the sum so far. */
  #sumNorm = 0;

  /** Vectors here are this rank's shards; `normOf`: of the whole. */
  constructor(trained: NativeParameterSet, normOf: (shard: Tensor) => number) {
    this.#trained = trained;
    this.#normOf = normOf;
  }

  /** The roles' averages, flat, in the order of the request; zero at first. None unless a role is damped. */
  averages(request: InterventionRequest | undefined): Tensor[] {
    if (!request?.roles.some(({ damping }) => damping > 0)) return [];
    return request.roles.map(({ role }) => this.#average(role));
  }

  /** decay · average + (1 − decay) · g of each role, in `copies` of `averages`. Before the accumulators are added up. */
  advance(copies: readonly Tensor[], { intervention, groups }: TrainRequest): void {
    for (const [i, { groups: own, averageDecay, damping }] of (intervention?.roles ?? []).entries()) {
      const copy = copies[i];
      if (copy === undefined || damping === 0) continue;
      const coefficients = new Float64Array(groups.length);
      for (const k of own) coefficients[k] = 1 - averageDecay;
      this.#trained.addGradients(copy.native, averageDecay, coefficients);
    }
  }

  /** Averages that exist. */
  get kept(): number {
    return this.#averages.size;
  }

  /** Before the first update of a step of the run. */
  beginStep(): void {
    this.#normSum = 0;
    this.#sumNorm = 0;
  }

  /** Whether `add` is going to read the gradient: of a step's only update the norm is enough. */
  reads(more: boolean): boolean {
    return more || this.#normSum > 0;
  }

  /** Takes an update's gradient, where it reads it, with its norm; `more`: updates of this step follow. */
  add(gradient: Tensor | undefined, norm: number, more: boolean): void {
    const first = this.#normSum === 0;
    this.#normSum += norm;
    if (gradient === undefined) {
      this.#sumNorm = norm;
      return;
    }
    this.#sum ??= this.#zeros();
    const sum = this.#sum;
    if (first) sum.copy_(gradient);
    else sum.add_(gradient);
    // Of one update the two are one number: kernels that add up in different orders would tell them apart.
    this.#sumNorm = first ? norm : this.#normOf(sum);
    if (more) return;
    sum.dispose();
    this.#sum = undefined;
  }

  /** ‖Σ g_u‖ / Σ ‖g_u‖ over the updates of the step so far; null where all are zero. */
  get coherence(): number | null {
    return this.#normSum === 0 ? null : Math.min(1, this.#sumNorm / this.#normSum);
  }

  /** The averages by name, for a checkpoint. */
  tensors(): Record<string, Tensor> {
    return Object.fromEntries([...this.#averages].map(([role, average]) => [PREFIX + role, average]));
  }

  /** Whether a tensor of a checkpoint is one of the averages. */
  static isAverage(name: string): boolean {
    return name.startsWith(PREFIX);
  }

  /** Takes the averages among a checkpoint's tensors in place of its own. */
  restore(names: readonly string[], read: (name: string) => Tensor): void {
    this.#disposeAverages();
    for (const name of names.filter(GradientMemory.isAverage)) {
      const average = this.#average(name.slice(PREFIX.length));
      noGrad(() => scope(() => average.copy_(read(name))));
    }
  }

  dispose(): void {
    this.#disposeAverages();
    this.#sum?.dispose();
  }

  #disposeAverages(): void {
    for (const average of this.#averages.values()) average.dispose();
    this.#averages.clear();
  }

  #average(role: string): Tensor {
    let average = this.#averages.get(role);
    if (average === undefined) {
      average = this.#zeros();
      this.#averages.set(role, average);
    }
    return average;
  }

  #zeros(): Tensor {
    const master = Tensor.wrap(this.#trained.master());
    try {
      return Tensor.zeros(master.shape, { dtype: master.dtype, device: master.device });
    } finally {
      master.dispose();
    }
  }
}
