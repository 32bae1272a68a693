/**
 * The optimizer's step in one pass over the accumulators, against the reference and against AdamW's formula in float64: what it
 * does to parameters and moments, and what it says that each vector did.
 */
import { describe, expect, it } from 'vitest';
import type { DType } from '../../src/engine/native-model.js';
import { scope } from '../../src/engine/scope.js';
import { operator, Tensor } from '../../src/engine/tensor.js';
import { contiguous, fast, generator, integers, type Kernels, random, slow } from './kernels.js';

interface Inputs {
  vectors: Tensor[];
  theta: Tensor;
  copy: Tensor | undefined;
  averages: Tensor[];
  squares: Tensor[];
}

interface Case {
  dtype: DType;
  count: number;
  step: number;
  clip: number;
  eps: number;
  keepTotal: boolean;
  /** Sizes of the parameters with and without weight decay. */
  decayed: number[];
  plain: number[];
}

const SETTINGS = { learningRate: 0.02, beta1: 0.9, beta2: 0.99, weightDecay: 0.3 };

/** Ranges with gaps between them, as triples; of a parameter with weight decay or without. */
function layout({ decayed, plain }: Case) {
  const ranges: number[] = [];
  let end = 0;
  const add = (sizes: number[], decays: number) => {
    for (const size of sizes) {
      ranges.push(end, size, decays);
      end += Math.ceil((size + 1) / 32) * 32;
    }
    return end;
  };
  const decaySize = add(decayed, 1);
  return { ranges, decaySize, size: add(plain, 0) };
}

/** 0 outside of the ranges; every third element never had a gradient. */
function inputs(given: Case, seed: number): Inputs {
  const next = generator(seed);
  const { ranges, decaySize, size } = layout(given);
  const inside = new Set<number>();
  for (let r = 0; r < ranges.length; r += 3)
    for (let i = 0; i < (ranges[r + 1] ?? 0); i++) inside.add((ranges[r] ?? 0) + i);
  const masked = (values: Tensor, keep: (i: number) => boolean) => {
    const kept = values.toArray().map((value, i) => (keep(i) ? value : 0));
    return Tensor.from(Float64Array.from(kept), [size], { dtype: given.dtype });
  };
  const hasGradient = (i: number) => inside.has(i) && i % 3 !== 0;
  const flat = (scale: number, keep: (i: number) => boolean) =>
    masked(random(next, [size], given.dtype, scale), keep);
  const parts = (whole: Tensor) => [
    contiguous(whole.narrow(0, 0, decaySize)),
    contiguous(whole.narrow(0, decaySize, size - decaySize)),
  ];
  const started = (i: number) => given.step > 1 && hasGradient(i);
  const theta = flat(1, (i) => inside.has(i));
  return {
    vectors: Array.from({ length: given.count }, () => flat(1, hasGradient)),
    theta,
    copy: given.dtype === 'float32' ? operator('aten::zeros_like', '', theta.to('bfloat16')) : undefined,
    averages: parts(flat(0.3, started)),
    squares: parts(flat(0.1, started).abs()),
  };
}

const coefficientsOf = (count: number) => Float64Array.from({ length: count }, (_, j) => 1 - 0.4 * (j % 5));

function stepOf(kernels: Kernels, given: Case, at: Inputs, measure = true) {
  const { ranges, decaySize } = layout(given);
  const natives = (tensors: Tensor[]) => tensors.map(({ native }) => native);
  return kernels.adamwStep(natives(at.vectors), coefficientsOf(given.count), ranges, {
    ...SETTINGS,
    theta: at.theta.native,
    ...(at.copy && { copy: at.copy.native }),
    averages: natives(at.averages),
    squares: natives(at.squares),
    decaySize,
    eps: given.eps,
    clip: given.clip,
    step: given.step,
    measure,
    keepTotal: given.keepTotal,
  });
}

/** What a step makes of copies of the inputs, as plain numbers. */
function stepped(kernels: Kernels, given: Case, before: Inputs) {
  const copies = (tensors: Tensor[]) => tensors.map(contiguous);
  const at = {
    vectors: copies(before.vectors),
    theta: contiguous(before.theta),
    copy: before.copy && contiguous(before.copy),
    averages: copies(before.averages),
    squares: copies(before.squares),
  };
  const { products, squaredNorm } = stepOf(kernels, given, at);
  return {
    products: Array.from(products),
    norm: [squaredNorm],
    theta: at.theta.toArray(),
    ...(at.copy && { copy: at.copy.toArray() }),
    average: at.averages.flatMap((part) => part.toArray()),
    square: at.squares.flatMap((part) => part.toArray()),
    ...(given.keepTotal && { total: (at.vectors[0] as Tensor).toArray() }),
  };
}
type Outcome = ReturnType<typeof stepped>;

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

/** The formula of Loshchilov & Hutter 2019 in float64, one element after the other. */
function byFormula(given: Case, before: Inputs): Outcome {
  const { ranges, decaySize } = layout(given);
  const { learningRate, beta1, beta2, weightDecay } = SETTINGS;
  const vectors = before.vectors.map((vector) => vector.toArray());
  const coefficients = coefficientsOf(given.count);
  const theta = before.theta.toArray();
  const average = before.averages.flatMap((part) => part.toArray());
  const square = before.squares.flatMap((part) => part.toArray());
  const total = theta.map((_, i) => sum(vectors.map((v, j) => (coefficients[j] ?? 0) * (v[i] ?? 0))));
  const products: number[] = [];
  for (let r = 0; r < ranges.length; r += 3) {
    const [begin = 0, size = 0] = [ranges[r], ranges[r + 1]];
    const row = new Array<number>(given.count + 2).fill(0);
    for (let i = begin; i < begin + size; i++) {
      const g = given.clip * (total[i] ?? 0);
      const [m, v] = [average[i] ?? 0, beta2 * (square[i] ?? 0) + (1 - beta2) * g * g];
      const root = Math.sqrt(v / (1 - beta2 ** given.step)) + given.eps;
      const scale = root === 0 ? 0 : -learningRate / (1 - beta1 ** given.step) / root;
      const decay = begin < decaySize ? -learningRate * weightDecay * (theta[i] ?? 0) : 0;
      const own = vectors.map(
        (x, j) => scale * (1 - beta1) * given.clip * (coefficients[j] ?? 0) * (x[i] ?? 0),
      );
      const sources = [...own, scale * beta1 * m, decay];
      const change = sum(sources);
      for (const [j, source] of sources.entries()) row[j] = (row[j] ?? 0) + source * change;
      theta[i] = (theta[i] ?? 0) + change;
      average[i] = beta1 * m + (1 - beta1) * g;
      square[i] = v;
    }
    products.push(...row);
  }
  return {
    products,
    norm: [sum(total.map((value) => value * value))],
    theta,
    ...(before.copy && { copy: theta }),
    average,
    square,
    ...(given.keepTotal && { total }),
  };
}

const TOLERANCES: Record<string, number> = { float64: 1e-11, float32: 3e-6 };

/** What differs by more than rounding, of the largest number of its kind. */
function differences(actual: Outcome, expected: Outcome, dtype: DType): string[] {
  return Object.entries(expected).flatMap(([name, want]) => {
    const got = actual[name as keyof Outcome] as number[];
    const scale = Math.max(1e-30, ...want.map(Math.abs));
    const tolerance = name === 'copy' ? 2 ** -8 : (TOLERANCES[dtype] ?? 0);
    const worst = Math.max(...want.map((value, i) => Math.abs(value - (got[i] ?? Number.NaN)) / scale));
    return got.length === want.length && worst <= tolerance ? [] : [`${name} by ${worst}`];
  });
}

describe.each(['float32', 'float64'] as const)('%s', (dtype) => {
  it.each([1, 2, 4, 5, 8, 9, 33])('of %i vectors, on random shapes', (count) =>
    scope(() => {
      const next = generator(count);
      const sizes = () => integers(next, 1 + Math.floor(3 * next()), 700);
      for (const step of [1, 5]) {
        const given: Case = {
          ...{ dtype, count, step, decayed: sizes(), plain: sizes() },
          ...{ clip: step === 1 ? 1 : 0.3, eps: step === 1 ? 0 : 1e-6, keepTotal: step === 1 },
        };
        const before = inputs(given, count + step);
        const expected = byFormula(given, before);
        for (const kernels of [fast, slow])
          expect(differences(stepped(kernels, given, before), expected, dtype), kernels.name).toEqual([]);
      }
    }),
  );
});

const SMALL: Case = {
  ...{ dtype: 'float32', count: 3, step: 2, clip: 0.5, eps: 1e-8, keepTotal: true },
  ...{ decayed: [70, 5], plain: [33] },
};

it('without one kind of parameters, and over more than one piece', () =>
  scope(() => {
    for (const shape of [
      { decayed: [], plain: [40] },
      { decayed: [66_000], plain: [] },
    ]) {
      const given = { ...SMALL, ...shape };
      const before = inputs(given, 3);
      expect(differences(stepped(fast, given, before), byFormula(given, before), 'float32')).toEqual([]);
    }
  }));

it('an element without any gradient is moved by its decay alone, where ε is 0 as well', () =>
  scope(() => {
    const given = { ...SMALL, eps: 0 };
    const before = inputs(given, 4);
    const { theta, average } = stepped(fast, given, before);
    const old = before.theta.toArray();
    for (const i of [0, 3, 69, 96]) {
      expect(average[i]).toBe(0);
      expect(theta[i]).toBeCloseTo((old[i] ?? 0) * (1 - 0.02 * 0.3), 6);
    }
    const plain = layout(given).decaySize;
    for (let i = plain; i < plain + 33; i++) if (i % 3 === 0) expect(theta[i]).toBe(old[i]);
  }));

it('what is not to be measured is not, and is stepped all the same', () =>
  scope(() => {
    const before = inputs(SMALL, 5);
    const { theta } = stepped(fast, SMALL, before);
    const { products, squaredNorm } = stepOf(fast, SMALL, before, false);
    expect([products.length, squaredNorm]).toEqual([0, 0]);
    expect(before.theta.toArray()).toEqual(theta);
  }));

it('the copy is the parameters, rounded', () =>
  scope(() => {
    const before = inputs(SMALL, 6);
    stepOf(fast, SMALL, before);
    expect((before.copy as Tensor).toArray()).toEqual(before.theta.to('bfloat16').toArray());
  }));

it.each<[string, Partial<Case>]>([
  ['a clip that is left out', { clip: 1 }],
  ['another number of the step', { step: 3 }],
  ['a vector too few', { count: 2 }],
])('%s would be noticed', (_, fault) =>
  scope(() => {
    const before = inputs(SMALL, 7);
    const wrong = { ...before, vectors: before.vectors.slice(0, fault.count) };
    const found = differences(
      stepped(fast, { ...SMALL, ...fault }, wrong),
      byFormula(SMALL, before),
      'float32',
    );
    expect(found.map((text) => text.split(' ')[0])).toEqual(expect.arrayContaining(['products', 'theta']));
  }),
);

it.each<[string, (ranges: number[]) => number[], RegExp]>([
  ['ranges that overlap', ([begin = 0, size = 0]) => [begin, size, 1, begin, size, 1], /do not follow/],
  ['decay of a parameter that does not decay', (ranges) => ranges.with(-1, 1), /among those that decay/],
  ['no decay of one that decays', (ranges) => ranges.with(2, 0), /behind those that decay/],
])('%s is refused', (_, change, message) =>
  scope(() => {
    const at = inputs(SMALL, 8);
    const { ranges, decaySize } = layout(SMALL);
    const [vector] = at.vectors as [Tensor];
    const step = { ...SETTINGS, clip: 1, eps: 1e-8, step: 1, decaySize, measure: true, keepTotal: false };
    const moments = (tensors: Tensor[]) => tensors.map(({ native }) => native);
    expect(() =>
      fast.adamwStep([vector.native], Float64Array.of(1), change(ranges), {
        ...{ ...step, theta: at.theta.native },
        ...{ averages: moments(at.averages), squares: moments(at.squares) },
      }),
    ).toThrow(message);
  }),
);
