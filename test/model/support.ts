/** Helpers of the model tests: golden files, models from them, losses, and handles that are freed at the end. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect } from 'vitest';
import { native } from '../../src/engine/native.js';
import type {
  AdapterConfig,
  DType,
  NativeModelConfig,
  NativePackedBatch,
  NativeParameterSet,
  NativePolicy,
  NativeTensor,
  PackCall,
} from '../../src/engine/native-model.js';

export const addon = native();

const held: { dispose(): void }[] = [];

/** Disposed after the file's tests. */
export function keep<T extends { dispose(): void }>(handle: T): T {
  held.push(handle);
  return handle;
}

/** Every test file ends with as many tensors as it began with. */
export function checkTensorsAreFreed(): void {
  const before = addon.liveTensors();
  afterAll(() => {
    for (const handle of held) handle.dispose();
    expect(addon.liveTensors()).toBe(before);
  });
}

export function call(name: string, overload: string, ...args: unknown[]): NativeTensor {
  return keep(addon.call(`aten::${name}`, overload, args) as NativeTensor);
}

export type Floats = Float32Array | Float64Array;

export function read(tensor: NativeTensor): Floats {
  return addon.read(tensor) as Floats;
}

/** Faster than toEqual, which walks the elements in JavaScript. */
export function sameBits(a: Floats, b: Floats): boolean {
  const bytes = (values: Floats) => Buffer.from(values.buffer, values.byteOffset, values.byteLength);
  return bytes(a).equals(bytes(b));
}

/** Σ term(value, index). */
export function sumOf(values: Floats, term: (value: number, i: number) => number): number {
  let sum = 0;
  for (const [i, value] of values.entries()) sum += term(value, i);
  return sum;
}

/** ‖a − b‖ / ‖b‖. */
export function relativeError(actual: Floats, expected: Floats): number {
  expect(actual.length).toBe(expected.length);
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < expected.length; i++) {
    difference += ((actual[i] as number) - (expected[i] as number)) ** 2;
    norm += (expected[i] as number) ** 2;
  }
  return Math.sqrt(difference / (norm || 1));
}

/** Root of the mean squared difference. */
export function rootMeanSquare(actual: Floats, expected: Floats): number {
  expect(actual.length).toBe(expected.length);
  const squares = sumOf(expected, (value, i) => ((actual[i] as number) - value) ** 2);
  return Math.sqrt(squares / expected.length);
}

export interface StoredTensor {
  shape: number[];
  data: Float32Array;
}

/** The tensors of a safetensors file, F32 and BF16. */
export function readSafetensors(path: string): Map<string, StoredTensor> {
  const file = readFileSync(path);
  const headerLength = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString('utf8', 8, 8 + headerLength)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const tensors = new Map<string, StoredTensor>();
  for (const [name, info] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    const [begin, end] = info.data_offsets;
    const bytes = Uint8Array.from(file.subarray(8 + headerLength + begin, 8 + headerLength + end)).buffer;
    let data: Float32Array;
    if (info.dtype === 'F32') {
      data = new Float32Array(bytes);
    } else {
      expect(info.dtype).toBe('BF16');
      data = new Float32Array(Uint32Array.from(new Uint16Array(bytes), (half) => half << 16).buffer);
    }
    tensors.set(name, { shape: info.shape, data });
  }
  return tensors;
}

/** What test/golden/models.py wrote for one model. */
export interface Golden {
  config: NativeModelConfig;
  adapter?: AdapterConfig;
  calls: PackCall[];
  temperature: number;
  entropyWeight: number;
  lossWeights: number[];
  weights: Map<string, StoredTensor>;
  adapterWeights?: Map<string, StoredTensor>;
  expected: Map<string, StoredTensor>;
}

const goldenFolder = fileURLToPath(new URL('../golden/models/', import.meta.url));

export function golden(name: string): Golden {
  const folder = join(goldenFolder, name);
  const description = JSON.parse(readFileSync(join(folder, 'expected.json'), 'utf8')) as {
    config: Omit<NativeModelConfig, 'inverseFrequencies'> & { inverseFrequencies: number[] };
    adapter?: AdapterConfig;
    prompt: number;
    sequences: number[][];
    temperature: number;
    entropyWeight: number;
    lossWeights: number[];
  };
  const { config, prompt, sequences, ...rest } = description;
  return {
    ...rest,
    config: { ...config, inverseFrequencies: Float64Array.from(config.inverseFrequencies) },
    calls: sequences.map((ids) => ({
      prompt: Int32Array.from(ids.slice(0, prompt)),
      response: Int32Array.from(ids.slice(prompt)),
      group: 0,
    })),
    weights: readSafetensors(join(folder, 'model.safetensors')),
    ...(rest.adapter && { adapterWeights: readSafetensors(join(folder, 'adapter.safetensors')) }),
    expected: readSafetensors(join(folder, 'expected.safetensors')),
  };
}

/** Copies stored weights into a parameter set; every parameter must be there, and nothing else. */
export function write(parameters: NativeParameterSet, weights: Map<string, StoredTensor>): void {
  expect(parameters.parameters.map((parameter) => parameter.name).sort()).toEqual([...weights.keys()].sort());
  for (const [name, { shape, data }] of weights) {
    const view = keep(parameters.view(name));
    expect(view.shape).toEqual(shape);
    call('copy_', '', view, keep(addon.tensor(data, shape, 'float32', 'cpu')));
  }
  parameters.commit();
}

/** A trainable random model. */
export function randomBase(
  config: NativeModelConfig,
  dtype: DType,
  seed = 1,
  trainable = true,
): NativeParameterSet {
  const base = keep(addon.createBase(config, dtype, 'cpu', trainable));
  addon.initialize(base, seed, 0.2);
  return base;
}

/** Σ weights · log p + entropyWeight · Σ entropy, backward. Returns the log-probabilities. */
export function backward(
  policy: NativePolicy,
  batch: NativePackedBatch,
  weights: ArrayLike<number>,
  options: { temperature?: number; entropyWeight?: number; activationBytes?: number } = {},
): Floats {
  const { temperature = 1, entropyWeight = 0, activationBytes } = options;
  const result = policy.tokenLogprobs(batch, temperature, true, activationBytes);
  const logprobs = keep(result.logprobs);
  const entropy = keep(result.entropy);
  const factors = keep(
    addon.tensor(Float64Array.from(weights), [weights.length], logprobs.dtype, logprobs.device),
  );
  let loss = call('sum', '', call('mul', 'Tensor', logprobs, factors));
  if (entropyWeight !== 0) {
    loss = call('add', 'Tensor', loss, call('sum', '', entropy), entropyWeight);
  }
  addon.backward(loss);
  return read(logprobs);
}

/** A tiny shape for tests without golden values; fields of `changes` replace its own. */
export function tinyConfig(changes: Partial<NativeModelConfig> = {}): NativeModelConfig {
  const headDim = changes.headDim ?? 8;
  return {
    hiddenSize: 32,
    layers: 3,
    heads: 6,
    kvHeads: 2,
    headDim,
    intermediateSize: 40,
    vocabularySize: 101,
    maxPositions: 256,
    rmsNormEps: 1e-6,
    tiedEmbeddings: true,
    qkvBias: false,
    outputBias: false,
    mlpBias: false,
    qkNorm: true,
    inverseFrequencies: Float64Array.from({ length: headDim / 2 }, (_, i) => 10000 ** ((-2 * i) / headDim)),
    ropeScaling: 1,
    ...changes,
  };
}
