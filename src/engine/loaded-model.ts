/** A model that the engine worker has loaded: its files, its device, its frozen parameters, and what decodes with it. */
import { TroupeError } from '../config/errors.js';
import { readModelConfig } from './configuration.js';
import { refuseDeterministic } from './deterministic.js';
import { Generation } from './generation.js';
import { native } from './native.js';
import {
  adapterRoom,
  type NativeModelConfig,
  type NativeParameterSet,
  type NativeShard,
} from './native-model.js';
import type { LoadModelRequest } from './protocol.js';
import { Tokenizer } from './tokenizer.js';
import { checkSize, loadWeights } from './weights.js';

export class LoadedModel {
  readonly request: LoadModelRequest;
  readonly config: NativeModelConfig;
  readonly device: string;
  /** Tensors of its files that a language model does not have; known once its parameters are loaded. */
  ignored: string[] = [];
  #generation: Generation | undefined;
  #sharedBase: NativeParameterSet | undefined;

  /** Reads no parameters yet. `localRank`: of several ranks on this machine, which have a GPU each. */
  constructor(request: LoadModelRequest, localRank: number | undefined) {
    this.request = request;
    this.config = readModelConfig(request.folder);
    this.device = chooseDevice(request.device, localRank);
    if (request.rollout.deterministic) refuseDeterministic(this.device);
  }

  /** Undefined before the first completion. */
  get generation(): Generation | undefined {
    return this.#generation;
  }

  /** Made when it is first asked for. */
  openGeneration(): Generation {
    if (this.#generation !== undefined) return this.#generation;
    const tokenizer = Tokenizer.load(this.request.folder);
    const { bytes, offsets } = tokenizer.tokenBytes(this.config.vocabularySize);
    const engine = native().createRolloutEngine(this.config, {
      ...this.request.rollout,
      tokenBytes: bytes,
      tokenOffsets: offsets,
    });
    this.#generation = new Generation(engine, tokenizer.endTokens);
    return this.#generation;
  }

  get holdsSharedBase(): boolean {
    return this.#sharedBase !== undefined;
  }

  /** The model's frozen parameters: under every adapter, and the reference of KL terms. Loaded when first asked for. */
  sharedBase(): NativeParameterSet {
    this.#sharedBase ??= this.#load(undefined, this.#adapterRanks());
    return this.#sharedBase;
  }

  /** The model's parameters once more, which belong to the caller. `shard`: of those that train; without it, frozen ones. */
  loadBase(shard?: NativeShard): NativeParameterSet {
    return this.#load(shard, 0);
  }

  #load(shard: NativeShard | undefined, adapterRanks: number): NativeParameterSet {
    const { dtype, folder } = this.request;
    checkSize(this.config, folder);
    const trainable = shard !== undefined;
    const base = forWant(folder, () =>
      native().createBase(this.config, dtype, this.device, trainable, shard, adapterRanks),
    );
    try {
      this.ignored = loadWeights(base, folder);
    } catch (error) {
      base.dispose();
      throw error;
    }
    return base;
  }

  /** Rows behind the frozen base's matrices for adapters, where its device decodes with them there. */
  #adapterRanks(): number {
    return native().stacksAdapters(this.device) ? adapterRoom(this.request.adapterRanks ?? []) : 0;
  }

  dispose(): void {
    this.#generation?.dispose();
    this.#sharedBase?.dispose();
  }
}

/** The largest allocation there is: what fails here is memory, the user's or the device's. */
function forWant<T>(folder: string, allocate: () => T): T {
  try {
    return allocate();
  } catch (cause) {
    throw new TroupeError(`no memory for the parameters (${(cause as Error).message}).`, {
      where: folder,
      cause,
    });
  }
}

/** `localRank`: of several ranks on this machine, which have a GPU each. */
function chooseDevice(wanted: string, localRank: number | undefined): string {
  const devices = native().cudaDevices();
  if (wanted === 'auto' && devices.length === 0) return 'cpu';
  if (wanted === 'auto' || (wanted === 'cuda' && localRank !== undefined && devices.length > 0)) {
    const index = localRank ?? 0;
    if (index < devices.length) return `cuda:${index}`;
    throw new TroupeError(`there are ${devices.length} CUDA devices, and none for LOCAL_RANK ${index}`, {
      hint: 'Start as many ranks on a machine as it has GPUs, or set model.device: cpu.',
    });
  }
  if (wanted.startsWith('cuda') && devices.length === 0) {
    const why = native().cudaProblems().device ?? 'libtorch sees no GPU';
    throw new TroupeError(`device ${wanted} was asked for, but ${why.replace(/\.$/, '')}`, {
      hint: 'Use device: cpu or auto, or what troupe doctor says.',
    });
  }
  if (wanted !== 'cpu' && !/^cuda(:\d+)?$/.test(wanted)) {
    throw new TroupeError(`there is no device "${wanted}"; it can be auto, cpu, cuda or cuda:N.`);
  }
  return wanted;
}
