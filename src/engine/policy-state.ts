/** A policy inside the engine worker: its native parameters, optimizer, and what is written of them to disk. */
import { createHash } from 'node:crypto';
import { TroupeError } from '../config/errors.js';
import { loadAdapter } from './adapters.js';
import { GradientMemory } from './gradient-memory.js';
import { AVERAGE, KlReference, type ReferenceSource } from './kl-reference.js';
import { RowLimit } from './memory.js';
import { native, type StepOptions } from './native.js';
import type { DType, NativeModelConfig, NativeParameterSet, NativePolicy } from './native-model.js';
import { AdamW, clipGradNorm } from './optimizer.js';
import { ProcessGroup } from './process-group.js';
import type { CreatePolicyRequest, StartingParameters } from './protocol.js';
import { scope } from './scope.js';
import { type Range, Sharding } from './sharding.js';
import { noGrad, Tensor } from './tensor.js';
import { readState, type StateHeader, type StatePart, writeState } from './training-state.js';

/** Bytes of a number that models compute with. */
const COMPUTE_BYTES = { bfloat16: 2, float32: 4, float64: 8 };
/** Numbers that a digest takes at a time. */
const DIGEST_PIECE = 2 ** 22;

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
  readonly rowLimit: RowLimit;
  /** That its parameters lie on. */
  readonly device: string;
  /** The ranks that train it, each with a part of its masters, moments and averages. */
  readonly group: ProcessGroup;
  readonly #sharding: Sharding;
  readonly #optimizer: AdamW | undefined;
  #hasMoments = false;
  /** Whether an update or a restore broke off when something had changed, and something had not. */
  #brokenOff = false;
  readonly #reference: KlReference;
  /** The native version without any optimizer step. */
  #firstVersion: number;

  /**
   * `base`: shared and frozen for an adapter, the policy's own for full parameters. `reference` gives the
   * model with its starting parameters, for KL terms. `group`: the ranks that train it, whose shard `base` has.
   */
  constructor(
    request: CreatePolicyRequest,
    config: NativeModelConfig,
    base: NativeParameterSet,
    device: string,
    reference: ReferenceSource,
    group = new ProcessGroup(),
  ) {
    this.group = request.trainable ? group : new ProcessGroup();
    this.name = request.name;
    this.device = device;
    this.model = request.model;
    this.settings = request;
    if (request.parameters.kind === 'lora') {
      const adapterConfig = request.parameters;
      this.trained = native().createAdapter(
        config,
        adapterConfig,
        computeDtype(base),
        device,
        shardOf(this.group),
      );
      native().initialize(this.trained, request.seed, 0);
      this.native = native().createPolicy(config, base, this.trained, adapterConfig);
    } else {
      this.trained = base;
      this.native = native().createPolicy(config, base);
    }
    this.rowLimit = new RowLimit(this.native.treeLevels);
    this.#sharding = new Sharding(this.trained, this.group);
    const { name, trained } = this;
    const compared = { name, trained, sharding: this.#sharding, exact: () => this.#exact() };
    const decay = request.reference?.kind === 'average' ? request.reference.decay : undefined;
    this.#reference = new KlReference(compared, decay, reference);
    this.memory = new GradientMemory(this.trained, (gradient) => this.normOf(gradient));
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
    const check = (header: StateHeader) => this.#checkFits(header, file);
    readState(file, this.#sharding, check, ({ read }) => {
      scope(() => noGrad(() => this.#exact().copy_(read('master', this.#sharding.whole, this.#exact()))));
    });
    this.#commit();
  }

  /** The parameters that everything else is computed from: this rank's part of them. */
  #exact(): Tensor {
    return Tensor.wrap(this.trained.trainable ? this.trained.master() : this.trained.compute());
  }

  /** A new version, of which every rank has all. A collective. */
  #commit(): void {
    this.trained.commit();
    this.#share();
  }

  /** Every rank's part of the parameters, to all. A collective. */
  #share(): void {
    if (this.group.size === 1) return;
    scope(() => this.group.allGather(`parameters of ${this.name}`, [Tensor.wrap(this.trained.buffer())]));
  }

  /** All parameters, flat, at least as exact as `dtype`. A collective. */
  exactParameters(dtype: DType): Tensor {
    const computed = Tensor.wrap(this.trained.compute());
    const exact = this.#exact();
    const isEnough = [exact.dtype, dtype].includes(computed.dtype);
    return isEnough ? computed : this.#sharding.gathered(`parameters of ${this.name}`, exact);
  }

  /** Optimizer steps behind a native version of the parameters, those before a restart included. */
  updatesAt(nativeVersion: number): number {
    return nativeVersion - this.#firstVersion;
  }

  /** Makes the moments that the first step would make. */
  prepareOptimizer(): void {
    this.#optimizer?.prepare();
    this.#hasMoments = true;
  }

  /** Bytes that updates are going to take and keep: moments, averages of roles' gradients, what a KL term compares with. */
  get bytesToCome(): number {
    if (this.#optimizer === undefined) return 0;
    const { keeps = { reference: false, averages: 0 } } = this.settings;
    const { from, to } = this.#sharding.whole;
    const shard = (to - from) * this.masterBytes;
    const averages = Math.max(0, keeps.averages - this.memory.kept);
    const flat = averages + (this.#hasMoments ? 0 : 2);
    return flat * shard + this.#reference.bytesToCome(keeps.reference, shard);
  }

  /** Bytes of one number of the master weights and of an accumulator. */
  get masterBytes(): number {
    const master = this.trained.master();
    const bytes = master.dtype === 'float64' ? 8 : 4;
    master.dispose();
    return bytes;
  }

  /** Bytes of the parameters that it computes with. */
  get computeBytes(): number {
    return this.trained.size * COMPUTE_BYTES[computeDtype(this.trained)];
  }

  get parameterCount(): number {
    return this.trained.parameters.reduce((sum, parameter) => sum + parameter.size, 0);
  }

  /** What a KL term compares with, loaded when first asked for: the starting parameters, others, or their average. */
  reference(): NativePolicy {
    return this.#reference.native;
  }

  /** Takes the place of its parameters. */
  copy(parameters: Tensor): void {
    scope(() => noGrad(() => this.#exact().narrow(0, 0, this.trained.size).copy_(parameters)));
    this.#commit();
  }

  /** Inner products of the groups' gradients and the averages (native.ts), of all ranks' shards. A collective. */
  gram(averages: readonly Tensor[]): Float64Array {
    const partial = this.trained.gram(averages.map(({ native }) => native));
    return this.group.sum(`Gram matrices of ${this.name}`, partial);
  }

  /** Combines the groups' gradients and averages, in the first accumulator. Returns the norm. A collective. */
  formTotal(coefficients: Float64Array, averages: readonly Tensor[]): number {
    const extras = averages.map(({ native }) => native);
    return scope(() => this.normOf(Tensor.wrap(this.trained.totalGradient(coefficients, extras))));
  }

  /** Adds an update's gradient of that norm, where it has to be read in the first accumulator, to the step's. A collective. */
  remember(norm: number, read: boolean, more: boolean): void {
    const gradient = read ? Tensor.wrap(this.trained.gradientShard(0)) : undefined;
    this.memory.add(gradient, norm, more);
    gradient?.dispose();
  }

  /** Of a vector whose shard this is. A collective. */
  normOf(shard: Tensor): number {
    const norm = clipGradNorm([shard], Number.POSITIVE_INFINITY);
    const [squares = 0] = this.group.sum(`norm of ${this.name}`, Float64Array.of(norm * norm));
    return Math.sqrt(squares);
  }

  /** Runs what makes another version of the parameters, counted before they change. Where it throws behind that, `save` refuses. */
  changing<T>(body: () => T): T {
    const { version } = this.trained;
    try {
      return body();
    } catch (error) {
      this.#brokenOff ||= this.trained.version !== version;
      throw error;
    }
  }

  /**
   * One optimizer step with clip · (Σ a_k g_k + Σ a_x e_x), formed on the way, and a new version of the parameters. Returns
   * what groups, averages, momentum and decay added to the parameters' change, and the norm of the sum, where they are to be
   * measured. A collective.
   */
  step(
    coefficients: Float64Array,
    averages: readonly Tensor[],
    learningRate: number,
    options: StepOptions,
  ): { products: Float64Array; norm: number } {
    const optimizer = this.#optimizerOrThrow();
    optimizer.setLearningRate(learningRate);
    const { products, squaredNorm } = this.#reference.averaged(() => {
      const measured = optimizer.stepParameters(this.trained, coefficients, averages, options);
      this.#share();
      return measured;
    });
    if (!options.measure) return { products, norm: 0 };
    const own = new Float64Array(products.length + 1);
    own.set(products);
    own[products.length] = squaredNorm;
    const all = this.group.sum(`step of ${this.name}`, own);
    return { products: all.subarray(0, products.length), norm: Math.sqrt(all[products.length] ?? 0) };
  }

  /** Where a tensor of the state belongs. */
  #rangeOf(name: string): Range | undefined {
    const [decayed, plain] = this.#sharding.ranges;
    if (name === 'master' || isFlat(name)) return this.#sharding.whole;
    if (/^0\.exp_avg(_sq)?$/.test(name)) return decayed;
    return /^1\.exp_avg(_sq)?$/.test(name) ? plain : undefined;
  }

  /**
   * Master weights, optimizer state and gradient averages, exact to the bit. A collective; rank 0 writes the file. Throws
   * where an update or a restore broke off in the middle: going on from what it left would be another run.
   */
  save(file: string): void {
    const optimizer = this.#optimizerOrThrow();
    if (this.#brokenOff)
      throw new TroupeError(`policy ${this.name} is between two updates: the last one broke off`);
    scope(() => {
      const averages = { ...this.memory.tensors(), ...this.#reference.tensors() };
      const tensors = { master: this.#exact(), ...optimizer.state(), ...averages };
      const parts = Object.entries(tensors).map(([name, tensor]): [string, StatePart] => {
        return [name, { range: this.#rangeOf(name), tensor }];
      });
      writeState(file, this.#sharding, new Map(parts), optimizer.stepCount);
    });
  }

  /**
   * Takes back what `save` wrote; a policy without training takes the parameters alone. Throws a TroupeError for a file
   * that does not fit, and then parameters, optimizer and version are as they were. A collective; rank 0 reads the file.
   */
  restore(file: string): void {
    const check = (header: StateHeader) => this.#checkFits(header, file);
    readState(file, this.#sharding, check, ({ tensors, steps, read }) => {
      const names = tensors.map(({ name }) => name);
      const take = (name: string) => read(name, this.#rangeOf(name), this.#exact());
      scope(() => {
        if (this.#optimizer !== undefined) {
          const moments = names.filter((name) => name !== 'master' && !isFlat(name));
          const state = Object.fromEntries(moments.map((name) => [name, take(name)]));
          loadOptimizer(this.#optimizer, state, steps, file);
          this.#hasMoments = moments.length > 0;
        }
        this.#brokenOff = true;
        noGrad(() => this.#exact().copy_(take('master')));
      });
      // Outside of the scope: the averages outlive it.
      if (this.#optimizer !== undefined) {
        this.memory.restore(names, take);
        this.#reference.restore(names, take);
      }
      this.#firstVersion = this.trained.version + 1 - steps;
    });
    this.#commit();
    this.#reference.share();
    this.#brokenOff = false;
  }

  /** Of the bits that it computes with: equal parameters have equal digests. */
  digest(): string {
    const hash = createHash('sha256');
    const { size } = this.trained;
    for (let start = 0; start < size; start += DIGEST_PIECE) {
      scope(() => {
        const length = Math.min(DIGEST_PIECE, size - start);
        const piece = Tensor.wrap(this.trained.compute()).narrow(0, start, length);
        hash.update(native().read(piece.native) as Float32Array | Float64Array);
      });
    }
    return hash.digest('hex');
  }

  /** Everything that is checked here cannot fail later, when a part has been copied. */
  #checkFits({ tensors }: StateHeader, file: string): void {
    for (const { name, shape } of tensors) {
      const range = this.#rangeOf(name);
      if (range === undefined || shape.join() === String(range.to - range.from)) continue;
      const held = isFlat(name) || name === 'master' ? 'parameters' : `numbers of ${name}`;
      throw new TroupeError(
        `holds ${shape.join(' × ')} ${held}, policy ${this.name} has ${range.to - range.from}`,
        {
          where: file,
          hint: 'Resume with the configuration that the checkpoint was made with.',
        },
      );
    }
  }

  /** Frees its memory; the shared base of an adapter stays. */
  dispose(): void {
    this.#reference.dispose();
    this.#optimizer?.dispose();
    this.memory.dispose();
    this.native.dispose();
    if (this.settings.parameters.kind === 'lora' || ownsBase(this.settings)) this.trained.dispose();
  }

  #optimizerOrThrow(): AdamW {
    if (this.#optimizer !== undefined) return this.#optimizer;
    throw new TroupeError(`policy ${this.name} was created without training`, { hint: 'Set trainable.' });
  }

  #createOptimizer(): AdamW {
    const { betas, eps, weightDecay } = this.settings.optimizer;
    return scope(() => {
      const [decayed, plain] = this.#sharding.parts(Tensor.wrap(this.trained.master()));
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

/** A group's part of what it trains together. */
export const shardOf = ({ rank, size }: ProcessGroup) => ({ index: rank, count: size });

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

function computeDtype(parameters: NativeParameterSet): keyof typeof COMPUTE_BYTES {
  const compute = Tensor.wrap(parameters.compute());
  try {
    return compute.dtype as keyof typeof COMPUTE_BYTES;
  } finally {
    compute.dispose();
  }
}
