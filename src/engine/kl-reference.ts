/**
 * What a policy's KL term compares with: its starting parameters, others, or a moving average of its own, of which each
 * rank holds the part of its masters and checkpoints hold the whole.
 */
import type { NativeParameterSet, NativePolicy } from './native-model.js';
import { scope } from './scope.js';
import type { Sharding } from './sharding.js';
import { noGrad, Tensor } from './tensor.js';

/** Parameters that a policy is compared with. */
export interface Reference {
  readonly native: NativePolicy;
  /** Takes other parameters, flat. */
  copy?(parameters: Tensor): void;
  dispose(): void;
}

/** Where a reference comes from. */
export interface ReferenceSource {
  make(): Reference;
  /** Bytes of the device's memory that `make` would take now. */
  bytes(): number;
}

/** The policy that is compared. */
export interface Compared {
  /** For messages. */
  name: string;
  trained: NativeParameterSet;
  sharding: Sharding;
  /** This rank's part of the parameters that everything else is computed from: a new handle each time. */
  exact(): Tensor;
}

/** Name of the moving average among the tensors of a checkpoint. */
export const AVERAGE = 'reference_average';

export class KlReference {
  readonly #policy: Compared;
  readonly #decay: number | undefined;
  readonly #source: ReferenceSource;
  #reference: Reference | undefined;
  /** From the first optimizer step on; undefined before, and where none is kept. */
  #average: Tensor | undefined;
  /** The native version whose average the reference holds. */
  #averagedVersion: number | undefined;

  /** `decay`: of the moving average; undefined: the reference stays as it was made. */
  constructor(policy: Compared, decay: number | undefined, source: ReferenceSource) {
    this.#policy = policy;
    this.#decay = decay;
    this.#source = source;
  }

  /** Bytes that it is going to take, where a KL term asks for it or each step averages it; `shard`: of this rank's part. */
  bytesToCome(asked: boolean, shard: number): number {
    const averages = this.#decay !== undefined;
    const copy = this.#reference === undefined && (asked || averages) ? this.#source.bytes() : 0;
    return copy + (averages && this.#average === undefined ? shard : 0);
  }

  /** Loaded when first asked for. */
  get native(): NativePolicy {
    const reference = this.#made();
    const { trained } = this.#policy;
    if (this.#decay !== undefined && this.#averagedVersion !== trained.version) {
      // Before the first step.
      scope(() => reference.copy?.(Tensor.wrap(trained.compute())));
      this.#averagedVersion = trained.version;
    }
    return reference.native;
  }

  /** Runs an optimizer step: before it the average is there, after it the step is in it. A collective. */
  averaged<Result>(step: () => Result): Result {
    const decay = this.#decay;
    if (decay === undefined) return step();
    const average = this.#average ?? cloned(this.#policy.exact());
    this.#average = average;
    const result = step();
    scope(() => noGrad(() => average.mul_(decay).add_(this.#policy.exact(), 1 - decay)));
    this.share();
    return result;
  }

  /** The reference takes over the average, where all ranks are: who asks for it later may be alone. A collective. */
  share(): void {
    const average = this.#average;
    if (average === undefined) return;
    const { name, sharding, trained } = this.#policy;
    scope(() => this.#made().copy?.(sharding.gathered(`average of ${name}`, average)));
    this.#averagedVersion = trained.version;
  }

  /** This rank's part of the average by its name, for a checkpoint. */
  tensors(): Record<string, Tensor> {
    return this.#average === undefined ? {} : { [AVERAGE]: this.#average };
  }

  /** Takes the average among a checkpoint's tensors in place of its own; `share` follows, when the parameters are restored. */
  restore(names: readonly string[], read: (name: string) => Tensor): void {
    this.#average?.dispose();
    const average = names.includes(AVERAGE) ? cloned(this.#policy.exact()) : undefined;
    if (average !== undefined) scope(() => noGrad(() => average.copy_(read(AVERAGE))));
    this.#average = average;
    this.#averagedVersion = undefined;
  }

  dispose(): void {
    this.#reference?.dispose();
    this.#average?.dispose();
  }

  #made(): Reference {
    this.#reference ??= this.#source.make();
    return this.#reference;
  }
}

/** A copy that outlives the scope; the handle that it is of is freed. */
function cloned(tensor: Tensor): Tensor {
  try {
    return noGrad(() => tensor.clone());
  } finally {
    tensor.dispose();
  }
}
