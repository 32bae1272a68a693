/** What the kernel tests share: the addon's kernels with their twins, random tensors, comparison by dtype. */
import { expect, it } from 'vitest';
import { type MeasuredStep, native } from '../../src/engine/native.js';
import type { DType, NativeTensor } from '../../src/engine/native-model.js';
import { scope } from '../../src/engine/scope.js';
import { operator, Tensor } from '../../src/engine/tensor.js';
import { withWrongArguments } from './wrong-arguments.js';

type Native = NativeTensor;

export interface LossEntries {
  rows: number[];
  targets: number[];
  temperatures: Float64Array;
}

export interface HeadLayout {
  queryHeads: number;
  keyHeads: number;
  dim: number;
}

/** A step of the rollout engine, as kernels::RowPlan. sampling: temperature, top-k, top-p, min-p of each draw. */
export interface RowPlan {
  positions: Int32Array;
  slots: Int32Array;
  tables: Int32Array;
  pages: Int32Array;
  tableWidth: number;
  /** Pages that are copied before the step, from and to in turn; none if not given. */
  copies?: Int32Array;
  /** Query heads of one key head; 1 if not given. */
  queryGroup?: number;
  /** Work items of round numbers, so that steps of about the same size launch the same; false if not given. */
  repeatable?: boolean;
  outputs: Int32Array;
  draws: Int32Array;
  uniforms: Float64Array;
  sampling: Float64Array;
}

export interface Adapter {
  scale: number;
  begins: number[];
  a: Native[];
  b: Native[];
}

/** As kernels::AdamWStep. Theta, its copy, moments and, with `keepTotal`, the first vector change. */
export interface AdamWStep {
  theta: Native;
  copy?: Native;
  averages: Native[];
  squares: Native[];
  decaySize: number;
  learningRate: number;
  beta1: number;
  beta2: number;
  eps: number;
  weightDecay: number;
  clip: number;
  step: number;
  measure: boolean;
  keepTotal: boolean;
}

/** As native/binding/kernels.cc defines them. Nodes and ranges are flat triples: start, length, parent or decays. */
export interface Kernels {
  readonly name: string;
  embedding(tokens: Native, weight: Native): Native;
  embeddingBackward(grad: Native, tokens: Native, groups: number[], gradWeight: Native[]): void;
  rmsNorm(x: Native, weight: Native, eps: number): { y: Native; rstd: Native };
  addRmsNorm(x: Native, residual: Native, weight: Native, eps: number): { y: Native; rstd: Native };
  rmsNormBackward(
    grad: Native,
    x: Native,
    weight: Native,
    rstd: Native,
    groups: number[],
    gradWeight: Native[],
    add?: Native,
    out?: Native,
  ): Native;
  swiglu(gateUp: Native): Native;
  swigluBackward(grad: Native, gateUp: Native): Native;
  attention(request: {
    qkv: Native;
    layout: HeadLayout;
    qNorm?: Native;
    kNorm?: Native;
    cos: Native;
    sin: Native;
    nodes: number[];
    positions: number[];
    scale: number;
    grad?: Native;
    groups?: number[];
    gradQNorm?: Native[];
    gradKNorm?: Native[];
  }): { out: Native; qkv?: Native };
  treeAttention(
    q: Native,
    k: Native,
    v: Native,
    nodes: number[],
    scale: number,
    grad?: Native,
  ): { out: Native; q?: Native; k?: Native; v?: Native };
  tokenLogprobs(
    hidden: Native,
    weight: Native,
    entries: LossEntries,
  ): { logprobs: Native; entropy: Native; logsumexp: Native };
  tokenLogprobsBackward(gradient: {
    gradLogprobs: Native;
    gradEntropy?: Native;
    logprobs: Native;
    entropy: Native;
    logsumexp: Native;
    hidden: Native;
    weight: Native;
    entries: LossEntries;
    groups: number[];
    gradHidden: Native;
    gradWeight: Native[];
    fresh?: number[];
    matrix?: Native;
    projected?: Native;
  }): void;
  accumulateWeightGradient(
    accumulators: Native[],
    delta: Native,
    x: Native,
    groups: number[],
    fresh?: number[],
  ): void;
  adaptedLinear(x: Native, weight: Native, adapter: Adapter, bias?: Native): { y: Native; projected: Native };
  adaptedLinearBackward(delta: Native, projectedGrad: Native, weight: Native, adapter: Adapter): Native;
  addLora(y: Native, x: Native, adapters: Adapter[], rows: number[]): void;
  adaptedRmsNorm(
    stream: Native,
    y: Native,
    x: Native,
    adapters: Adapter[],
    rows: number[],
    weight: Native,
    eps: number,
  ): Native;
  adaptedSwiglu(gateUp: Native, x: Native, adapters: Adapter[], rows: number[]): Native;
  linear(x: Native, weight: Native, bias?: Native): Native;
  logits(hidden: Native, weight: Native, repack: boolean): Native;
  pagedAttention(steps: {
    qkvs: Native[];
    plans: RowPlan[];
    layout: HeadLayout;
    qNorm?: Native;
    kNorm?: Native;
    cos: Native;
    sin: Native;
    pages: number;
    scale: number;
    /** Inputs of the products' adapters, and the begin and end of each one's rows, of all steps one behind the other. */
    xs?: Native[];
    adapters?: Adapter[];
    adapterRows?: number[];
  }): Native;
  sample(logits: Native, plan: RowPlan): Native;
  takeDrawn(samples: Native, tokens: Native): void;
  /** Whether a step of the plan may be recorded, where that was asked for. */
  repeatable(plan: RowPlan): boolean;
  gram(vectors: Native[], ranges: number[]): Float64Array;
  adamwStep(vectors: Native[], coefficients: Float64Array, ranges: number[], step: AdamWStep): MeasuredStep;
  squaredNorm(vectors: Native[]): number;
  dispose(): void;
}

const addon = native() as unknown as { kernels(name: string): Kernels; useKernels(name: string): void };

/** TROUPE_KERNELS names the implementation that is compared with the reference. */
const tested = addon.kernels(process.env.TROUPE_KERNELS ?? 'cpu');
export const fast: Kernels = process.env.TROUPE_WRONG_ARGUMENTS ? withWrongArguments(tested) : tested;
export const slow: Kernels = addon.kernels('reference');

/** Runs with the kernels of that name for everyone. */
export function withKernels<T>(name: string, run: () => T): T {
  addon.useKernels(name);
  try {
    return run();
  } finally {
    addon.useKernels('');
  }
}

/** Both implementations, applied to the same inputs. */
export function both<T>(run: (kernels: Kernels) => T): [T, T] {
  return [run(fast), run(slow)];
}

export const dtypes: DType[] = ['float64', 'float32', 'bfloat16'];

/** The dtype of sums and statistics. */
export const accumulate = (dtype: DType): DType => (dtype === 'float64' ? 'float64' : 'float32');

/** Takes over a record of handles. */
export function wrap<R extends object>(record: R): { [K in keyof R]-?: Tensor } {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, Tensor.wrap(value)])) as {
    [K in keyof R]-?: Tensor;
  };
}

/** A small generator (mulberry32), so that a failure repeats. */
export function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Roughly normal values (the sum of four uniform ones), rounded to `dtype`. */
export function random(next: () => number, shape: number[], dtype: DType, scale = 1): Tensor {
  const size = shape.reduce((product, n) => product * n, 1);
  const values = Float64Array.from(
    { length: size },
    () => scale * 1.7 * (next() + next() + next() + next() - 2),
  );
  return Tensor.from(values, shape, { dtype });
}

export function integers(next: () => number, count: number, below: number): number[] {
  return Array.from({ length: count }, () => Math.floor(next() * below));
}

export const int64 = (values: number[]) => Tensor.from(BigInt64Array.from(values, BigInt));

/** Loss entries at one temperature, or at one each. */
export function entriesOf(rows: number[], targets: number[], temperature: number | number[]): LossEntries {
  const temperatures = typeof temperature === 'number' ? rows.map(() => temperature) : temperature;
  return { rows, targets, temperatures: Float64Array.from(temperatures) };
}

/** A slice along `dim`: a strided view. */
export const slice = (x: Tensor, dim: number, start: number, length: number) => x.narrow(dim, start, length);

/** A deep copy that keeps nothing of the original's strides. */
export const contiguous = (x: Tensor) => operator('aten::clone', '', x, 0);

const tolerances: Partial<Record<DType, number>> = { float64: 1e-12, float32: 1e-5, bfloat16: 2e-2 };

/** Largest difference, relative to the largest expected value (1 at least), within the tolerance of `dtype`. */
export function expectClose(actual: Tensor, expected: Tensor, dtype: DType, what = ''): void {
  expect(actual.shape).toEqual(expected.shape);
  expect(actual.dtype).toBe(expected.dtype);
  const a = actual.toArray();
  const b = expected.toArray();
  const scale = b.reduce((most, value) => Math.max(most, Math.abs(value)), 1);
  let worst = 0;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs((a[i] as number) - (b[i] as number));
    worst = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : Math.max(worst, difference);
  }
  expect(worst / scale, `${what} in ${dtype}`).toBeLessThan(tolerances[dtype] as number);
}

/** A test for each dtype whose tensors are freed at its end. */
export function each(name: string, body: (dtype: DType, next: () => number) => void): void {
  for (const dtype of dtypes) {
    it(`${name} (${dtype})`, () => scope(() => body(dtype, generator(7))));
  }
}
