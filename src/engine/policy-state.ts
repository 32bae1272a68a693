/** A policy inside the engine worker: its native parameters, optimizer, and what is written of them to disk. */
import { createHash } from 'node:crypto';
import { deserialize, serialize } from 'node:v8';
import { TroupeError } from '../config/errors.js';
import { loadAdapter } from './adapters.js';
import { GradientMemory } from './gradient-memory.js';
import {
  type NativeModelConfig,
  type NativeParameterSet,
  type NativePolicy,
  type NativeSafetensors,
  native,
} from './native.js';
import { AdamW, clipGradNorm } from './optimizer.js';
import type { ProcessGroup } from './process-group.js';
import type { CreatePolicyRequest, StartingParameters } from './protocol.js';
import { openSafetensors, saveSafetensors } from './safetensors.js';
import { noGrad, scope, Tensor } from './tensor.js';

/** Numbers that a digest takes at a time. */
const DIGEST_PIECE = 2 ** 22;

/** What a checkpoint, or another rank, holds of a policy that is trained. */
interface TrainingState {
  /** "master", the optimizer's state and the gradient averages. */
  names: readonly string[];
  /** Optimizer steps behind it. */
  steps: number;
  read(name: string): Tensor;
  /** Where it comes from, for errors. */
  where: string;
}

/** Name of the moving average among the tensors of a checkpoint. */
const AVERAGE = 'reference_average';

/** Parameters that a policy is compared with. */
export interface Reference {
  readonly native: NativePolicy;
  /** Takes other parameters, flat. */
  copy?(parameters: Tensor): void;
  dispose(): void;
}

export class PolicyState {
  readonly name: string;
  readonly model: string;
  readonly native: NativePolicy;
  /** What training updates: the adapter, or the policy's own base. */
  readonly trained: NativeParameterSet;
  readonly settings: CreatePolicyRequest;
  readonly kinds: string[];
  readonly layers: Int32Array;
  readonly memory: GradientMemory;
  /** Rows of a micro-batch that the device's memory holds, as far as it has shown that it holds no more. */
  rowsThatFit = Number.POSITIVE_INFINITY;
  readonly #optimizer: AdamW | undefined;
  readonly #makeReference: () => Reference;
  #reference: Reference | undefined;
  /** Moving average of the parameters [size], from the first optimizer step on; undefined before, and where none is kept. */
  #average: Tensor | undefined;
  /** The native version whose average the reference holds. */
  #averagedVersion: number | undefined;
  /** The native version without any optimizer step. */
  #firstVersion: number;

  /**
   * `base`: shared and frozen for an adapter, the policy's own for full parameters. `makeReference` gives the
   * model with its starting parameters, for KL terms.
   */
  constructor(
    request: CreatePolicyRequest,
    config: NativeModelConfig,
    base: NativeParameterSet,
    device: string,
    makeReference: () => Reference,
  ) {
    this.#makeReference = makeReference;
    this.name = request.name;
    this.model = request.model;
    this.settings = request;
    if (request.parameters.kind === 'lora') {
      const adapterConfig = request.parameters;
      this.trained = native().createAdapter(config, adapterConfig, baseDtype(base), device);
      native().initialize(this.trained, request.seed, 0);
      this.native = native().createPolicy(config, base, this.trained, adapterConfig);
    } else {
      this.trained = base;
      this.native = native().createPolicy(config, base);
    }
    this.memory = new GradientMemory(this.trained);
    this.kinds = this.trained.parameters.map((parameter) => parameter.kind);
    this.layers = Int32Array.from(this.trained.parameters, (parameter) => parameter.layer);
    this.#optimizer = request.trainable ? this.#createOptimizer() : undefined;
    this.#firstVersion = this.trained.version;
    if (request.start !== undefined) this.#begin(request.start);
  }

  #begin(start: StartingParameters): void {
    try {
      if (start.kind === 'adapter') loadAdapter(this.trained, start.folder);
      else this.#copyMaster(start.file);
    } catch (error) {
      this.dispose();
      throw error;
    }
    this.#firstVersion = this.trained.version;
  }

  /** The parameters of what `save` wrote. */
  #copyMaster(file: string): void {
    const saved = openSafetensors(file);
    try {
      this.#checkFits(saved, file);
      scope(() => noGrad(() => this.#flat().copy_(Tensor.wrap(saved.tensor('master')))));
    } finally {
      saved.dispose();
    }
    this.trained.commit();
  }

  /** The parameters that everything else is computed from. */
  #flat(): Tensor {
    return Tensor.wrap(this.trained.trainable ? this.trained.master() : this.trained.compute());
  }

  /** Optimizer steps behind a native version of the parameters, those before a restart included. */
  updatesAt(nativeVersion: number): number {
    return nativeVersion - this.#firstVersion;
  }

  /** Bytes of one number of the master weights and of an accumulator. */
  get masterBytes(): number {
    const master = this.trained.master();
    const bytes = master.dtype === 'float64' ? 8 : 4;
    master.dispose();
    return bytes;
  }

  get parameterCount(): number {
    return this.trained.parameters.reduce((sum, parameter) => sum + parameter.size, 0);
  }

  /** What a KL term compares with, loaded when first asked for: the starting parameters, others, or their average. */
  reference(): NativePolicy {
    this.#reference ??= this.#makeReference();
    const isAverage = this.settings.reference?.kind === 'average';
    if (isAverage && this.#averagedVersion !== this.trained.version) {
      scope(() => this.#reference?.copy?.(this.#average ?? this.#flat()));
      this.#averagedVersion = this.trained.version;
    }
    return this.#reference.native;
  }

  /** Takes the place of its parameters. */
  copy(parameters: Tensor): void {
    scope(() => noGrad(() => this.#flat().copy_(parameters)));
    this.trained.commit();
  }

  /** Before an optimizer step the average is there, after it the step is in it. */
  #averaged(step: () => void): void {
    const { reference } = this.settings;
    if (reference?.kind !== 'average') {
      step();
      return;
    }
    const average = this.#average ?? cloned(this.#flat());
    this.#average = average;
    step();
    scope(() => noGrad(() => average.mul_(reference.decay).add_(this.#flat(), 1 - reference.decay)));
  }

  /** Combines the groups' gradients and the averages, flat, in the first accumulator. */
  totalGradient(coefficients: Float64Array, averages: readonly Tensor[]): Tensor {
    return Tensor.wrap(
      this.trained.totalGradient(
        coefficients,
        averages.map(({ native }) => native),
      ),
    );
  }

  normOf(gradient: Tensor): number {
    return clipGradNorm([gradient], Number.POSITIVE_INFINITY);
  }

  /** What the groups, averages, momentum and decay are going to add to the parameters' change (native.ts). */
  optimizerProducts(
    coefficients: Float64Array,
    averages: readonly Tensor[],
    learningRate: number,
    clip: number,
  ): Float64Array {
    const optimizer = this.#optimizerOrThrow();
    const { betas, eps, weightDecay } = this.settings.optimizer;
    return scope(() => {
      const state = optimizer.state();
      const parts = (name: string) => ['0', '1'].flatMap((range) => state[`${range}.${name}`]?.native ?? []);
      return this.trained.optimizerProducts(
        coefficients,
        averages.map(({ native }) => native),
        {
          learningRate,
          beta1: betas[0],
          beta2: betas[1],
          eps,
          weightDecay,
          clip,
          step: optimizer.stepCount + 1,
          averages: parts('exp_avg'),
          squares: parts('exp_avg_sq'),
        },
      );
    });
  }

  /** One optimizer step with the finished gradient, and a new version of the parameters. */
  step(learningRate: number): void {
    const optimizer = this.#optimizerOrThrow();
    optimizer.setLearningRate(learningRate);
    this.#averaged(() => {
      scope(() => optimizer.stepWith(this.#ranges(Tensor.wrap(this.trained.gradient(0)))));
      this.trained.commit();
    });
  }

  /** What a checkpoint holds beside master weights and optimizer. */
  #kept(): Record<string, Tensor> {
    return { ...this.memory.tensors(), ...(this.#average && { [AVERAGE]: this.#average }) };
  }

  /** Master weights, optimizer state and gradient averages, exact to the bit. */
  save(file: string): void {
    const optimizer = this.#optimizerOrThrow();
    scope(() => {
      const state = optimizer.state();
      const kept = { ...state, ...this.#kept() };
      const tensors = { master: this.trained.master(), ...mapValues(kept, (tensor) => tensor.native) };
      saveSafetensors(file, tensors, { optimizer_steps: String(optimizer.stepCount) });
    });
  }

  /**
   * Takes back what `save` wrote; a policy without training takes the parameters alone. Throws a TroupeError for a file
   * that does not fit, and then parameters, optimizer and version are as they were.
   */
  restore(file: string): void {
    const saved = openSafetensors(file);
    try {
      this.#checkFits(saved, file);
      const steps = Number(saved.metadata.optimizer_steps ?? 0);
      this.#take({ names: saved.names, steps, read: (name) => Tensor.wrap(saved.tensor(name)), where: file });
    } finally {
      saved.dispose();
    }
  }

  #take({ names, steps, read, where }: TrainingState): void {
    scope(() => {
      if (this.#optimizer !== undefined) {
        const moments = names.filter((name) => name !== 'master' && !isFlat(name));
        const state = Object.fromEntries(moments.map((name) => [name, read(name)]));
        loadOptimizer(this.#optimizer, state, steps, where);
      }
      noGrad(() => this.#flat().copy_(read('master')));
    });
    // Outside of the scope: the averages outlive it.
    if (this.#optimizer !== undefined) {
      this.memory.restore(names, read);
      this.#average?.dispose();
      const average = names.includes(AVERAGE) ? cloned(this.#flat()) : undefined;
      if (average !== undefined) scope(() => noGrad(() => average.copy_(read(AVERAGE))));
      this.#average = average;
    }
    this.#averagedVersion = undefined;
    this.trained.commit();
    this.#firstVersion = this.trained.version - steps;
  }

  /** Gives every rank what rank 0 would save, to the bit. */
  share(group: ProcessGroup): void {
    const { received, steps } = scope(() => this.#exchange(group));
    if (received === undefined) return;
    try {
      const read = (name: string) => received[name] as Tensor;
      this.#take({ names: Object.keys(received), steps, read, where: 'rank 0' });
    } finally {
      for (const tensor of Object.values(received)) tensor.dispose();
    }
  }

  /** Rank 0 receives nothing. */
  #exchange(group: ProcessGroup): { received?: Record<string, Tensor>; steps: number } {
    const what = `parameters of ${this.name}`;
    const optimizer = this.#optimizerOrThrow();
    const master = Tensor.wrap(this.trained.master());
    const own: Record<string, Tensor> = { master, ...optimizer.state(), ...this.#kept() };
    const places = Object.entries(own).map(([name, { shape, dtype }]) => ({ name, shape, dtype }));
    const [first = new Uint8Array()] = group.gather(what, serialize({ places, steps: optimizer.stepCount }));
    const given = deserialize(first) as { places: typeof places; steps: number };
    const isSource = group.rank === 0;
    const tensors = given.places.map(({ name, shape, dtype }) => {
      return (isSource ? own[name] : Tensor.zeros(shape, { dtype, device: master.device })) as Tensor;
    });
    group.broadcast(what, tensors);
    if (isSource) return { steps: given.steps };
    const entries = given.places.map(({ name }, i) => [name, tensors[i] as Tensor] as const);
    return { received: Object.fromEntries(entries), steps: given.steps };
  }

  /** Of the master weights' bits: equal parameters have equal digests. */
  digest(): string {
    const hash = createHash('sha256');
    const { size } = this.trained;
    for (let start = 0; start < size; start += DIGEST_PIECE) {
      scope(() => {
        const piece = Tensor.wrap(this.trained.master()).narrow(
          0,
          start,
          Math.min(DIGEST_PIECE, size - start),
        );
        hash.update(native().read(piece.native) as Float32Array | Float64Array);
      });
    }
    return hash.digest('hex');
  }

  /** Everything that is checked here cannot fail later, when a part has been copied. */
  #checkFits(saved: NativeSafetensors, file: string): void {
    const steps = Number(saved.metadata.optimizer_steps ?? 0);
    if (!saved.names.includes('master') || !Number.isInteger(steps) || steps < 0) {
      throw new TroupeError('is no training state of a policy.', { where: file });
    }
    const { size } = this.trained;
    for (const name of saved.names.filter((one) => one === 'master' || isFlat(one))) {
      const { shape } = saved.info(name);
      if (shape.length === 1 && shape[0] === size) continue;
      throw new TroupeError(`holds ${shape.join(' × ')} parameters, policy ${this.name} has ${size}`, {
        where: file,
        hint: 'Resume with the configuration that the checkpoint was made with.',
      });
    }
  }

  /** Frees its memory; the shared base of an adapter stays. */
  dispose(): void {
    this.#reference?.dispose();
    this.#average?.dispose();
    this.#optimizer?.dispose();
    this.memory.dispose();
    this.native.dispose();
    if (this.settings.parameters.kind === 'lora' || ownsBase(this.settings)) this.trained.dispose();
  }

  #optimizerOrThrow(): AdamW {
    if (this.#optimizer !== undefined) return this.#optimizer;
    throw new TroupeError(`policy ${this.name} was created without training`, { hint: 'Set trainable.' });
  }

  /** The two ranges of a flat buffer: with weight decay and without. */
  #ranges(flat: Tensor): [Tensor, Tensor] {
    const { decaySize, size } = this.trained;
    return [flat.narrow(0, 0, decaySize), flat.narrow(0, decaySize, size - decaySize)];
  }

  #createOptimizer(): AdamW {
    const { betas, eps, weightDecay } = this.settings.optimizer;
    return scope(() => {
      const [decayed, plain] = this.#ranges(Tensor.wrap(this.trained.master()));
      const groups = [
        { parameters: [decayed], learningRate: 0, weightDecay },
        { parameters: [plain], learningRate: 0, weightDecay: 0 },
      ];
      return new AdamW(groups, { betas, eps });
    });
  }
}

/** Whether a tensor of a checkpoint is as large as the parameters, and no moment of the optimizer. */
const isFlat = (name: string) => name === AVERAGE || GradientMemory.isAverage(name);

/** A copy that outlives the scope; the handle that it is of is freed. */
function cloned(tensor: Tensor): Tensor {
  try {
    return noGrad(() => tensor.clone());
  } finally {
    tensor.dispose();
  }
}

/** Whether a policy has a copy of the base for itself: it trains all of it, or takes other parameters. */
export function ownsBase({ parameters, trainable, restored, start }: CreatePolicyRequest): boolean {
  return parameters.kind === 'full' && (trainable || restored === true || start !== undefined);
}

/** The native side throws before it changes anything. */
function loadOptimizer(optimizer: AdamW, state: Record<string, Tensor>, steps: number, file: string): void {
  try {
    optimizer.loadState(state, steps);
  } catch (cause) {
    throw new TroupeError(`${(cause as Error).message.split('\n')[0]}.`, { where: file, cause });
  }
}

function baseDtype(base: NativeParameterSet) {
  const compute = Tensor.wrap(base.compute());
  try {
    return compute.dtype;
  } finally {
    compute.dispose();
  }
}

function mapValues<From, To>(record: Record<string, From>, map: (value: From) => To): Record<string, To> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, map(value)]));
}
