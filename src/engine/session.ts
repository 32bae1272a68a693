/** The engine worker's state: models, policies, and one method a command (protocol.ts). */
import { TroupeError } from '../config/errors.js';
import { mergedWith, saveAdapter } from './adapters.js';
import type { Told } from './generation.js';
import type { Reference } from './kl-reference.js';
import { likeliestTokens } from './likeliest.js';
import { LoadedModel } from './loaded-model.js';
import type { LossFunction } from './loss.js';
import type { NextTurn } from './memory.js';
import { native } from './native.js';
import { ownsBase, PolicyState, shardOf } from './policy-state.js';
import { ProcessGroup } from './process-group.js';
import type {
  CommandName,
  Commands,
  CreatePolicyRequest,
  EngineStatistics,
  ExportPolicyRequest,
  JoinRequest,
  LikeliestRequest,
  LoadModelRequest,
  LogprobsRequest,
  ModelDescription,
  PolicyDescription,
  ScoreRequest,
} from './protocol.js';
import { scope } from './scope.js';
import { liveTensors } from './tensor.js';
import { measureAll, train } from './training.js';
import type { CompletionRequest, LikeliestTokens, TrainCall, TrainRequest, TrainResult } from './types.js';
import { importLoss } from './user-loss.js';
import { savedDtype, saveWeights } from './weights.js';

export type Handlers = {
  [Name in Exclude<CommandName, 'complete' | 'count'>]: (
    argument: Commands[Name][0],
  ) => Commands[Name][1] | Promise<Commands[Name][1]>;
};

export class Session {
  readonly #models = new Map<string, LoadedModel>();
  readonly #policies = new Map<string, PolicyState>();
  readonly #losses = new Map<string, LossFunction>();
  readonly #nextTurn: NextTurn;
  /** The ranks of the run. */
  #group = new ProcessGroup();
  #localRank: number | undefined;
  /** GPUs have to exchange by NCCL. */
  #needsNccl = false;
  /** The command that runs, and whether it was cancelled. */
  #running: { id: number; cancelled: boolean } | undefined;
  readonly #handlers: Handlers = {
    describe: () => ({ libtorch: native().torchVersion, devices: native().cudaDevices() }),
    loadModel: (request) => this.#loadModel(request),
    createPolicy: (request) => this.#createPolicy(request),
    train: (request) => this.#train(request),
    score: (request) => this.#score(request),
    logprobs: (request) => this.#logprobs(request),
    likeliest: (request) => this.#likeliest(request),
    exportPolicy: (request) => this.#exportPolicy(request),
    savePolicy: ({ policy, file }) => {
      this.#policy(policy).save(file);
      return null;
    },
    restorePolicy: ({ policy, file }) => {
      const state = this.#policy(policy);
      state.restore(file);
      return describe(state, this.#model(state.model));
    },
    clearCache: () => {
      for (const model of this.#models.values()) model.generation?.clearCache();
      return null;
    },
    statistics: () => this.#statistics(),
    join: (request) => this.#join(request),
    gather: ({ name, bytes }) => this.#group.gather(name, bytes),
    digestPolicy: ({ policy }) => this.#policy(policy).digest(),
    ncclProblem: () => native().ncclProblem(),
    takeNccl: ({ device }) => this.#group.takeNccl(device),
    dropNccl: () => {
      this.#group.dropNccl();
      return null;
    },
    leave: ({ together }) => {
      if (together) this.#group.barrier('end of the run');
      this.#group.dispose();
      this.#group = new ProcessGroup();
      return null;
    },
  };

  constructor(nextTurn: NextTurn) {
    this.#nextTurn = async () => {
      await nextTurn();
      if (this.#running?.cancelled) throw new TroupeError('the update was cancelled.');
    };
  }

  /** Runs command number `id`; completions go through `submit`. */
  async run(command: keyof Handlers, argument: unknown, id: number): Promise<Commands[CommandName][1]> {
    const handler = this.#handlers[command] as (argument: unknown) => Commands[CommandName][1];
    this.#running = { id, cancelled: false };
    try {
      return await handler(argument);
    } finally {
      this.#running = undefined;
    }
  }

  count({ name, amount }: Commands['count'][0]): number {
    return this.#group.count(name, amount);
  }

  get decoding(): boolean {
    for (const model of this.#models.values()) if (model.generation?.busy) return true;
    return false;
  }

  submit(id: number, request: CompletionRequest): void {
    const policy = this.#policy(request.policy);
    const generation = this.#model(policy.model).openGeneration();
    if (!generation.busy) generation.reserve(this.#bytesToCome(policy.device));
    generation.submit(id, policy, request);
  }

  /** What training is going to make and keep on a device. */
  #bytesToCome(device: string): number {
    let bytes = 0;
    for (const policy of this.#policies.values()) if (policy.device === device) bytes += policy.bytesToCome;
    return bytes;
  }

  /** A completion in flight, or the command that runs. */
  cancel(id: number): void {
    if (this.#running?.id === id) this.#running.cancelled = true;
    for (const model of this.#models.values()) model.generation?.cancel(id);
  }

  decodeOnce(): Told[] {
    const told: Told[] = [];
    for (const model of this.#models.values()) {
      if (model.generation?.busy) told.push(...model.generation.step());
    }
    return told;
  }

  #model(name: string): LoadedModel {
    const model = this.#models.get(name);
    if (model !== undefined) return model;
    throw new TroupeError(`the engine holds no model "${name}"`, { hint: 'Load it first.' });
  }

  #policy(name: string): PolicyState {
    const policy = this.#policies.get(name);
    if (policy !== undefined) return policy;
    throw new TroupeError(`the engine holds no policy "${name}"`, { hint: 'Create it first.' });
  }

  #join({ localRank, ...options }: JoinRequest): null {
    this.#group.dispose();
    this.#group = new ProcessGroup();
    this.#group = new ProcessGroup(options);
    this.#localRank = localRank;
    this.#needsNccl = options.nccl;
    return null;
  }

  #loadModel(request: LoadModelRequest): ModelDescription {
    const model = new LoadedModel(request, this.#localRank);
    const { config, device } = model;
    if (this.#needsNccl && device === 'cpu') refuseNccl();
    this.#freeModel(request.name);
    this.#models.set(request.name, model);
    return {
      device,
      emulated: device === 'cpu' && request.dtype === 'bfloat16' && !native().bf16Kernels(),
      vocabularySize: config.vocabularySize,
      maxPositions: config.maxPositions,
      layers: config.layers,
    };
  }

  /** A model that is loaded under a name of another takes its place, with all that was made of that one. */
  #freeModel(name: string): void {
    const model = this.#models.get(name);
    if (model === undefined) return;
    for (const policy of this.#policies.values()) {
      if (policy.model !== name) continue;
      policy.dispose();
      this.#policies.delete(policy.name);
    }
    model.dispose();
    this.#models.delete(name);
  }

  #createPolicy(request: CreatePolicyRequest): PolicyDescription {
    const model = this.#model(request.model);
    const policy = this.#newPolicy(request, model);
    this.#policies.get(request.name)?.dispose();
    this.#policies.set(request.name, policy);
    return describe(policy, model);
  }

  #newPolicy(request: CreatePolicyRequest, model: LoadedModel): PolicyState {
    const shard = request.trainable ? shardOf(this.#group) : undefined;
    const base = ownsBase(request) ? model.loadBase(shard) : model.sharedBase();
    const { reference: kept = request.start, ...rest } = request;
    const make = (): Reference => {
      const asPolicy = { ...rest, trainable: false };
      // The average is written into it before it is asked.
      if (kept?.kind === 'average') return this.#newPolicy({ ...asPolicy, restored: true }, model);
      // Where a policy begins elsewhere, that is what it is kept near.
      if (kept !== undefined) return this.#newPolicy({ ...asPolicy, start: kept }, model);
      const reference = native().createPolicy(model.config, model.sharedBase());
      return { native: reference, dispose: () => reference.dispose() };
    };
    // Without parameters of its own it is the model's base, which may be there.
    const bytes = () => (kept === undefined && model.holdsSharedBase ? 0 : state.computeBytes);
    const state = new PolicyState(request, model.config, base, model.device, { make, bytes }, this.#group);
    return state;
  }

  async #train(request: TrainRequest): Promise<TrainResult> {
    const policy = this.#policy(request.policy);
    const { module } = request.loss;
    const loss = this.#losses.get(module) ?? (await importLoss(module));
    this.#losses.set(module, loss);
    return await train(policy, request, loss, this.#nextTurn);
  }

  async #score({ policy: name, sequences, temperature }: ScoreRequest): Promise<Float32Array[]> {
    const policy = this.#policy(name);
    const scores: Float32Array[] = [];
    for (const sequence of sequences) {
      const limits = { limit: policy.rowLimit, maxRows: 1 };
      const calls = [asCall(sequence, temperature)];
      const [scored] = await measureAll(policy.native, calls, limits, this.#nextTurn);
      scores.push(scored?.logprobs ?? new Float32Array());
    }
    return scores;
  }

  async #logprobs({ policy: name, calls, under, microBatchRows }: LogprobsRequest): Promise<Float32Array[]> {
    const policy = this.#policy(name);
    const parameters = under === 'policy' ? policy.native : policy.reference();
    const limits = { limit: policy.rowLimit, maxRows: microBatchRows };
    const measured = await measureAll(parameters, calls, limits, this.#nextTurn);
    return measured.map(({ logprobs }) => logprobs);
  }

  async #likeliest({ policy: name, calls, count }: LikeliestRequest): Promise<LikeliestTokens[]> {
    const policy = this.#policy(name);
    return await likeliestTokens(policy.native, calls, { count, limit: policy.rowLimit }, this.#nextTurn);
  }

  /** A collective; rank 0 writes the folder. */
  #exportPolicy({ policy: name, merged, base, ...saved }: ExportPolicyRequest): null {
    const { folder, dtype, files } = saved;
    const policy = this.#policy(name);
    const model = this.#model(policy.model);
    const source = model.request.folder;
    const { parameters } = policy.settings;
    const wanted = parameters.kind === 'lora' ? 'float32' : (dtype ?? savedDtype(policy.trained));
    scope(() => {
      const exact = policy.exactParameters(wanted);
      if (this.#group.rank > 0) return;
      if (parameters.kind === 'full') {
        saveWeights(policy.trained, source, { ...saved, dtype: wanted, exact });
      } else if (merged === true) {
        const change = mergedWith(policy.trained, parameters);
        saveWeights(model.sharedBase(), source, { ...saved, change });
      } else saveAdapter(policy.trained, parameters, base ?? source, { folder, files, exact });
    });
    return null;
  }

  #statistics(): EngineStatistics {
    const totals = {
      tokensPrefilled: 0,
      tokensDecoded: 0,
      tokensCached: 0,
      cacheBytes: 0,
      cacheTokens: 0,
      memoryRestarts: 0,
    };
    for (const { rowLimit } of this.#policies.values()) totals.memoryRestarts += rowLimit.restarts;
    for (const model of this.#models.values()) {
      const statistics = model.generation?.statistics();
      if (statistics === undefined) continue;
      totals.tokensPrefilled += statistics.prefillTokens;
      totals.tokensDecoded += statistics.decodeTokens;
      totals.tokensCached += statistics.cachedTokens;
      totals.cacheBytes += statistics.cacheBytes;
      totals.cacheTokens += statistics.cacheTokens;
      totals.memoryRestarts += statistics.memoryRestarts;
    }
    const devices = new Set([...this.#models.values()].map(({ device }) => device));
    const memory = [...devices].map((device) => native().deviceMemory(device));
    const peaks = memory.filter(({ shared }) => !shared).map(({ peak }) => peak);
    const devicePeak = peaks.length === 0 ? null : Math.max(...peaks);
    const peakMemory = process.resourceUsage().maxRSS * 1024;
    const traffic = this.#group.traffic;
    return { ...totals, peakMemory, devicePeak, liveTensors: liveTensors(), traffic };
  }
}

/** A rank on a GPU would wait for it in NCCL. */
function refuseNccl(): never {
  throw new TroupeError('TROUPE_NCCL=1 asks for NCCL between GPUs, and this rank computes on the CPU', {
    hint: 'Unset TROUPE_NCCL on all ranks, or set model.device: cuda.',
  });
}

function describe(policy: PolicyState, { ignored, request, device }: LoadedModel): PolicyDescription {
  const notices = ignored.length === 0 ? [] : [`${request.folder}: not read: ${ignored.join(', ')}.`];
  const { kernels } = native().cudaProblems();
  if (device.startsWith('cuda') && kernels !== undefined) notices.push(kernels);
  notices.push(...policy.native.slowPaths.map((slow) => `${device}: ${slow}`));
  return { trainable: policy.parameterCount, version: policy.updatesAt(policy.trained.version), notices };
}

/** A sequence of which every token but the first is scored. */
function asCall(sequence: Int32Array, temperature: number): TrainCall {
  const response = sequence.slice(1);
  const rolloutLogprobs = new Float32Array(response.length);
  const prompt = sequence.slice(0, 1);
  return { prompt, response, rolloutLogprobs, temperature, advantage: 0, weight: 0, group: 0 };
}
