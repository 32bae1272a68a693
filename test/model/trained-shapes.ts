/**
 * Models in bfloat16 of the widths that users train (heads of 64 and 128, groups of query heads, rows of 1,024), where the
 * CUDA backend takes kernels that the tiny models never reach. What it computes must lie no further from fp32 than plain
 * operators in bfloat16 do.
 */
import { expect } from 'vitest';
import type {
  AdapterConfig,
  DType,
  NativeModelConfig,
  NativeParameterSet,
  NativePolicy,
  PackCall,
} from '../../src/engine/native-model.js';
import { request, run, text, tinyConfig } from '../rollout/tiny.js';
import { addon, backward, type Floats, keep, read, relativeError, rootMeanSquare, write } from './support.js';

const VOCABULARY = 512;

export const shapes = {
  // Four query heads to a key head, with norms.
  qwen3: wide({ headDim: 128, heads: 8, kvHeads: 2 }),
  // Three to one, 64 wide, without.
  smollm2: wide({
    headDim: 64,
    heads: 9,
    kvHeads: 3,
    hiddenSize: 576,
    qkNorm: false,
    inverseFrequencies: Float64Array.from({ length: 32 }, (_, i) => 100000 ** (-i / 32)),
  }),
};

function wide(changes: Partial<NativeModelConfig>): NativeModelConfig {
  return tinyConfig({
    hiddenSize: 1024,
    intermediateSize: 1536,
    vocabularySize: VOCABULARY,
    maxPositions: 1024,
    ...changes,
  });
}

/** prompts: lengths; the first is several samples' prompt, the others are one's each. */
export interface Work {
  layers: number;
  prompts: number[];
  rounds: number;
}

/**
 * A prompt of more than one part of the cache; decode steps that are recorded, replayed, and of another policy's rows. 162 and
 * 288 tokens are measured: of 54 a mean error varied by a third from run to run on a GPU.
 */
export const wholeWork: Work = { layers: 2, prompts: [400, 20, 130, 5], rounds: 6 };

const lora: AdapterConfig = { rank: 16, alpha: 32, targets: ['q', 'k', 'v', 'o', 'gate', 'up', 'down'] };
const SCALE = 0.03; // of random weights: log-probabilities of a few nats

export type Parameters = 'adapters' | 'full';

interface Model {
  policies: NativePolicy[];
  /** What the first policy trains. */
  trained: NativeParameterSet;
}

type Values = Map<string, { shape: number[]; data: Float32Array }>;

/** Numbers that bfloat16 holds exactly. */
function weightsOf(parameters: NativeParameterSet): Values {
  return new Map(
    parameters.parameters.map(({ name, shape }) => {
      const data = Float32Array.from(read(keep(parameters.view(name))), Number);
      return [name, { shape: [...shape], data }];
    }),
  );
}

function adapterValues(parameters: NativeParameterSet, seed: number): Values {
  return new Map(
    parameters.parameters.map(({ name, shape, size }) => {
      const values = text(seed + size, size, 255);
      return [name, { shape: [...shape], data: Float32Array.from(values, (value) => (value - 127) / 4096) }];
    }),
  );
}

function model(config: NativeModelConfig, what: Parameters, dtype: DType, device: string): Model {
  const source = keep(addon.createBase(config, 'bfloat16', 'cpu', false));
  addon.initialize(source, 5, SCALE);
  const base = keep(addon.createBase(config, dtype, device, what === 'full'));
  write(base, weightsOf(source));
  if (what === 'full') return { policies: [keep(addon.createPolicy(config, base))], trained: base };
  const adapters = [1, 2].map((seed) => {
    const adapter = keep(addon.createAdapter(config, lora, dtype, device));
    write(adapter, adapterValues(adapter, seed));
    return adapter;
  });
  const policies = adapters.map((adapter) => keep(addon.createPolicy(config, base, adapter, lora)));
  return { policies, trained: adapters[0] as NativeParameterSet };
}

interface Drawn {
  policy: number;
  call: PackCall;
  logprobs: number[];
}

function draw({ policies }: Model, config: NativeModelConfig, work: Work): Drawn[] {
  const prompts = work.prompts.map((length, i) => text(i + 1, length, VOCABULARY));
  const engine = keep(
    addon.createRolloutEngine(config, {
      cacheBytes: 64 << 20,
      maxBatch: 64,
      prefillTokens: 512,
      seed: 7,
      deterministic: false,
    }),
  );
  const wanted = [0, 0, 0, ...prompts.keys()].map((prompt, i) => ({ prompt, policy: i % policies.length }));
  return Array.from({ length: work.rounds }, (_, round) => round).flatMap((round) => {
    const requests = wanted.map(({ prompt, policy }, i) =>
      request(policies[policy] as NativePolicy, prompts[prompt] as number[], {
        maxTokens: 6 + (i % 3),
        counter: [round, i, 0, 0, 0],
      }),
    );
    return run(engine, requests).map(({ ids, logprobs }, i) => ({
      policy: wanted[i]?.policy ?? 0,
      call: {
        prompt: Int32Array.from(prompts[wanted[i]?.prompt ?? 0] ?? []),
        response: ids,
        group: (i >> 1) & 1,
      },
      logprobs: [...logprobs],
    }));
  });
}

interface Computed {
  logprobs: Float64Array;
  gradients: Map<string, Floats>;
}

/** The training pass of the first policy's calls, and its gradients in two groups. */
function computed({ policies, trained }: Model, calls: readonly PackCall[]): Computed {
  trained.beginGradients(2);
  const batch = keep(addon.pack([...calls], 2, true));
  const tokens = calls.reduce((sum, { response }) => sum + response.length, 0);
  const weights = Float64Array.from({ length: tokens }, (_, i) => (i % 5) - 2.5);
  const logprobs = Float64Array.from(backward(policies[0] as NativePolicy, batch, weights));
  const gradients = new Map(
    trained.parameters.flatMap(({ name }) =>
      [0, 1].map((group) => [`${name} of group ${group}`, read(keep(trained.gradientView(group, name)))]),
    ),
  );
  trained.endGradients();
  return { logprobs, gradients };
}

/** kernels: how `addon.useKernels` calls the backend under test. */
export function checkShape(
  shape: NativeModelConfig,
  work: Work,
  what: Parameters,
  device: string,
  kernels: string,
): void {
  const config = { ...shape, layers: work.layers };
  const use = (name: string) => (addon as unknown as { useKernels(name: string): void }).useKernels(name);
  use(kernels);
  const ours = model(config, what, 'bfloat16', device);
  const drawn = draw(ours, config, work).filter(({ policy }) => policy === 0);
  const calls = drawn.map(({ call }) => call);
  const own = computed(ours, calls);
  use('reference');
  const exact = computed(model(config, what, 'float32', 'cpu'), calls);
  const plain = computed(model(config, what, 'bfloat16', 'cpu'), calls);
  use(kernels);

  const error = rootMeanSquare(plain.logprobs, exact.logprobs);
  expect(error).toBeGreaterThan(0);
  expect(rootMeanSquare(own.logprobs, exact.logprobs), 'training pass').toBeLessThan(1.3 * error);
  const rollout = Float64Array.from(drawn.flatMap(({ logprobs }) => logprobs));
  expect(rootMeanSquare(rollout, exact.logprobs), 'rollout').toBeLessThan(1.3 * error);
  for (const [name, gradient] of exact.gradients) {
    const found = relativeError(own.gradients.get(name) as Floats, gradient);
    const theirs = relativeError(plain.gradients.get(name) as Floats, gradient);
    expect(found, name).toBeLessThan(1.5 * theirs + 1e-4);
  }
}
