/** Tiny random models, engines over them, and the oracle: the training forward pass over whole texts. */
import {
  type NativeRolloutEngine,
  native,
  type RolloutOptions,
  type RolloutRequest,
  type RolloutResult,
} from '../../src/engine/native.js';
import type { AdapterConfig, DType, NativeModelConfig, NativePolicy } from '../../src/engine/native-model.js';

interface Handle {
  dispose(): void;
}

/** Where tests make their tensors: the CPU, but under `npm run test:gpu`. */
export const device = process.env.TROUPE_TEST_DEVICE ?? 'cpu';

/** Room for two adapters of the largest rank that a test has. */
const ADAPTER_RANKS = 256;

/** Everything made through a workshop is disposed by it: a test ends with the tensors it began with. */
export class Workshop {
  private readonly things: Handle[] = [];

  keep<T extends Handle>(thing: T): T {
    this.things.push(thing);
    return thing;
  }

  dispose(): void {
    for (const thing of this.things.reverse()) thing.dispose();
    this.things.length = 0;
  }

  base(config: NativeModelConfig, dtype: DType, seed = 1, trainable = true, adapterRanks = 0) {
    const made = native().createBase(config, dtype, device, trainable, undefined, adapterRanks);
    const base = this.keep(made);
    native().initialize(base, seed, 0.3);
    return base;
  }

  /** A base under adapters, with room for them. */
  frozenBase(config: NativeModelConfig, dtype: DType, seed = 1) {
    return this.base(config, dtype, seed, false, ADAPTER_RANKS);
  }

  /** An adapter whose B is not zero, so that it differs from its base. */
  adapter(config: NativeModelConfig, options: AdapterConfig, dtype: DType, seed: number) {
    const addon = native();
    const adapter = this.keep(addon.createAdapter(config, options, dtype, device));
    addon.initialize(adapter, seed, 0.2);
    for (const { name, shape, size } of adapter.parameters) {
      if (!name.includes('lora_B')) continue;
      const values = Float32Array.from(text(seed + size, size, 1000), (value) => (value - 500) / 1500);
      const from = addon.tensor(values, shape, 'float32', device);
      const view = adapter.view(name);
      const copied = addon.call('aten::copy_', '', [view, from, false]) as { dispose(): void };
      for (const one of [copied, view, from]) one.dispose();
    }
    adapter.commit();
    return adapter;
  }

  /** A policy with parameters of its own. */
  policy(config: NativeModelConfig, dtype: DType, seed = 1): NativePolicy {
    return this.keep(native().createPolicy(config, this.base(config, dtype, seed)));
  }

  engine(config: NativeModelConfig, options: Partial<RolloutOptions> = {}): NativeRolloutEngine {
    return this.keep(
      native().createRolloutEngine(config, {
        cacheBytes: 64 << 20,
        maxBatch: 64,
        prefillTokens: 512,
        seed: 7,
        deterministic: false,
        ...options,
      }),
    );
  }
}

export function tinyConfig(overrides: Partial<NativeModelConfig> = {}): NativeModelConfig {
  const headDim = overrides.headDim ?? 16;
  return {
    hiddenSize: 48,
    layers: 2,
    heads: 6,
    kvHeads: 2,
    headDim,
    intermediateSize: 64,
    vocabularySize: 40,
    maxPositions: 512,
    rmsNormEps: 1e-6,
    tiedEmbeddings: true,
    qkvBias: false,
    outputBias: false,
    mlpBias: false,
    qkNorm: true,
    inverseFrequencies: Float64Array.from({ length: headDim / 2 }, (_, i) => 10000 ** ((-2 * i) / headDim)),
    ropeScaling: 1,
    ...overrides,
  };
}

let nextId = 1;

export function request(
  policy: NativePolicy,
  prompt: ArrayLike<number>,
  rest: Partial<RolloutRequest> = {},
): RolloutRequest {
  const id = nextId++;
  return {
    id,
    policy,
    prompt: Int32Array.from(prompt),
    maxTokens: 12,
    temperature: 1,
    topK: 0,
    topP: 1,
    minP: 0,
    stopTokens: new Int32Array(),
    stopStrings: [],
    counter: [0, id, 0, 0, 0],
    ...rest,
  };
}

/** Submits all, steps until idle, returns the results in the order of the requests. */
export function run(
  engine: NativeRolloutEngine,
  requests: RolloutRequest[],
  maxSteps = 5000,
): RolloutResult[] {
  for (const one of requests) engine.submit(one);
  const results = new Map<number, RolloutResult>();
  for (let step = 0; !engine.idle; step++) {
    if (step === maxSteps) throw new Error(`not idle after ${maxSteps} steps: the engine makes no progress`);
    for (const result of engine.step()) results.set(result.id, result);
  }
  return requests.map((one) => {
    const result = results.get(one.id);
    if (!result) throw new Error(`no result for request ${one.id}`);
    return result;
  });
}

/** Natural log-probabilities of each response after its prompt, by the training forward pass. */
export function trainingLogprobs(
  policy: NativePolicy,
  calls: { prompt: ArrayLike<number>; response: ArrayLike<number> }[],
  temperature: number,
): number[][] {
  const addon = native();
  const batch = addon.pack(
    calls.map(({ prompt, response }) => ({
      prompt: Int32Array.from(prompt),
      response: Int32Array.from(response),
      group: 0,
    })),
    1,
    true,
  );
  const { logprobs, entropy } = policy.tokenLogprobs(batch, temperature, false);
  const flat = Array.from(addon.read(logprobs) as Float32Array | Float64Array, Number);
  for (const one of [logprobs, entropy, batch]) one.dispose();
  let at = 0;
  return calls.map(({ response }) => {
    at += response.length;
    return flat.slice(at - response.length, at);
  });
}

/** Log-probability of every token of the vocabulary after `prompt`. */
export function nextLogprobs(
  policy: NativePolicy,
  prompt: ArrayLike<number>,
  vocabulary: number,
  temperature: number,
): number[] {
  const calls = Array.from({ length: vocabulary }, (_, token) => ({ prompt, response: [token] }));
  return trainingLogprobs(policy, calls, temperature).map(([logprob]) => logprob as number);
}

/** `length` token ids from a small generator, the same for the same seed. */
export function text(seed: number, length: number, vocabulary = 40): number[] {
  let state = seed * 2654435761 + 12345;
  return Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) % vocabulary;
  });
}

export function maxDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  let worst = 0;
  for (let i = 0; i < a.length; i++) worst = Math.max(worst, Math.abs((a[i] as number) - (b[i] as number)));
  return worst;
}
