/**
 * Linear layers with an adapter against the same in float64: on the CUDA kernels the base's product is added to the
 * adapter's part, elsewhere that to it. What memory held before must not show in the columns that no adapter has.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { native } from '../../src/engine/native.js';
import type { DType } from '../../src/engine/native-model.js';
import { scope } from '../../src/engine/scope.js';
import { liveTensors, Tensor } from '../../src/engine/tensor.js';
import { each, expectClose, fast, generator, type Kernels, random, slow, wrap } from './kernels.js';

const emulated = (native() as unknown as { kernels(name: string): Kernels }).kernels('emulated');
afterAll(() => emulated.dispose());

let before = 0;
beforeAll(() => {
  before = liveTensors();
});
afterAll(() => {
  expect(liveTensors()).toBe(before);
});

const INPUTS = 72;
const OUTPUTS = 120;

/** Columns of terms, begin and end, with the rank of each. */
const ADAPTERS = {
  'on all columns, of three ranks': [
    [0, 50, 4],
    [50, 83, 2],
    [83, OUTPUTS, 5],
  ],
  'on all columns, of one term': [[0, OUTPUTS, 3]],
  'without the columns in the middle': [
    [0, 50, 4],
    [83, OUTPUTS, 2],
  ],
  'without the first columns': [[50, OUTPUTS, 4]],
  'without the last columns': [
    [0, 50, 3],
    [50, 83, 3],
  ],
} satisfies Record<string, number[][]>;

function adapterOf(next: () => number, dtype: DType, terms: number[][]) {
  const ranks = terms.map(([, , rank = 0]) => rank);
  const a = random(next, [ranks.reduce((sum, rank) => sum + rank, 0), INPUTS], dtype);
  const b = terms.map(([begin = 0, end = 0, rank = 0]) => random(next, [end - begin, rank], dtype));
  const firsts = ranks.map((_, i) => ranks.slice(0, i).reduce((sum, rank) => sum + rank, 0));
  const handles = {
    scale: 0.5,
    begins: terms.map(([begin = 0]) => begin),
    a: firsts.map((first, i) => a.narrow(0, first, ranks[i] ?? 0).native),
    b: b.map((one) => one.native),
  };
  return { a, b, firsts, ranks, handles };
}

/** The memory that a tensor of this shape gets next held NaN. */
function poison(shape: number[], dtype: DType): void {
  const tensors = Array.from({ length: 4 }, () => Tensor.full(shape, Number.NaN, { dtype }));
  for (const tensor of tensors) tensor.dispose();
}

const exact = (x: Tensor) => x.to('float64');
const product = (x: Tensor, y: Tensor) => exact(x).matmul(exact(y).transpose(0, 1));

describe.each([
  ['the reference', slow],
  ['the backend', fast],
  ['the CUDA kernels', emulated],
])('%s', (_, kernels) => {
  describe.each(Object.entries(ADAPTERS))('an adapter %s', (_, terms) => {
    describe.each([700, 1, 0])('%i rows', (rows) => {
      each('the product, with and without a bias', (dtype, next) => {
        const { a, b, firsts, ranks, handles } = adapterOf(next, dtype, terms);
        const x = random(next, [rows, INPUTS], dtype);
        const weight = random(next, [OUTPUTS, INPUTS], dtype);
        const wanted = product(x, a).mul(0.5);
        for (const bias of [undefined, random(next, [OUTPUTS], dtype, 20)]) {
          poison([rows, OUTPUTS], dtype);
          const { y, projected } = wrap(
            kernels.adaptedLinear(x.native, weight.native, handles, bias?.native),
          );
          const sum = bias ? product(x, weight).add(exact(bias)) : product(x, weight);
          for (const [i, [begin = 0, end = 0]] of terms.entries()) {
            const part = wanted.narrow(1, firsts[i] ?? 0, ranks[i] ?? 0);
            sum.narrow(1, begin, end - begin).add_(product(part, b[i] as Tensor));
          }
          expectClose(y, sum.to(dtype), dtype, bias ? 'with a bias' : 'without a bias');
          expectClose(projected, wanted.to(dtype), dtype, 'x times A');
        }
      });

      each('the gradient of the input', (dtype, next) => {
        const { a, handles } = adapterOf(next, dtype, terms);
        const weight = random(next, [OUTPUTS, INPUTS], dtype);
        const delta = random(next, [rows, OUTPUTS], dtype);
        const inner = random(next, [rows, a.shape[0] ?? 0], dtype);
        const gradient = Tensor.wrap(
          kernels.adaptedLinearBackward(delta.native, inner.native, weight.native, handles),
        );
        const wanted = exact(delta)
          .matmul(exact(weight))
          .add(exact(inner).matmul(exact(a)));
        expectClose(gradient, wanted.to(dtype), dtype);
      });
    });
  });
});

it('on the CUDA kernels the base’s product, the larger part, is rounded with the sum only', () =>
  scope(() => {
    const next = generator(3);
    const { a, b, handles } = adapterOf(next, 'bfloat16', ADAPTERS['on all columns, of one term']);
    const x = random(next, [200, INPUTS], 'bfloat16', 0.1);
    const weight = random(next, [OUTPUTS, INPUTS], 'bfloat16', 10);
    const wanted = product(x, weight).add(product(product(x, a).mul(0.5), b[0] as Tensor));
    const error = (kernels: Kernels) => {
      const { y } = wrap(kernels.adaptedLinear(x.native, weight.native, handles));
      return exact(y).sub(wanted).pow(2).mean().item();
    };
    // One rounding and not two of about the same size.
    expect(error(emulated)).toBeLessThan(0.6 * error(slow));
  }));

it('an adapter that does not fit its layer is an error that says why', () =>
  scope(() => {
    const next = generator(1);
    const x = random(next, [4, INPUTS], 'float32').native;
    const weight = random(next, [OUTPUTS, INPUTS], 'float32').native;
    const run = (terms: number[][]) =>
      fast.adaptedLinear(x, weight, adapterOf(next, 'float32', terms).handles);
    expect(() => run([])).toThrow(/at least one term/);
    expect(() => run([[50, OUTPUTS + 1, 2]])).toThrow(
      /at column 50 do not fit 72 inputs and the outputs from 0 to 120/,
    );
    // Of two terms that overlap the second would be written over the first, or added to it.
    const overlapping = [
      [0, 50, 2],
      [49, OUTPUTS, 2],
    ];
    expect(() => run(overlapping)).toThrow(
      /at column 49 do not fit 72 inputs and the outputs from 50 to 120/,
    );
    const { handles } = adapterOf(next, 'float32', [[0, OUTPUTS, 3]]);
    const ofRank = (rank: number) => random(next, [4, rank], 'float32').native;
    const delta = random(next, [4, OUTPUTS], 'float32').native;
    expect(() => fast.adaptedLinearBackward(delta, ofRank(2), weight, handles)).toThrow(
      /gradients \[4, 120\] and \[4, 2\] of a linear layer \[120, 72\] with an adapter of 3 ranks/,
    );
    expect(() => fast.adaptedLinearBackward(ofRank(3), ofRank(3), weight, handles)).toThrow(/\[4, 3\]/);
  }));
