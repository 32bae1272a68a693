/**
 * Products that recur, on the CUDA kernels' emulation: the way that is taken gives the usual result, and whatever is wrong with
 * one leaves the product to the usual way. Which is taken by what they took: test/kernels/cuda/product_choice_test.cc.
 */
import { afterEach, describe, expect, it } from 'vitest';
import type { DType } from '../../src/engine/native-model.js';
import { scope } from '../../src/engine/scope.js';
import { Tensor } from '../../src/engine/tensor.js';
import { expectClose, generator, random } from './kernels.js';
import { measured, type PlantedProduct, plantedRuns, plantProducts, productKernels } from './products.js';

afterEach(() => {
  plantProducts();
});

const right = (microseconds: number): PlantedProduct => ({ kind: 'right', microseconds });

/** Multiplies so often; each result is compared with the usual one's. */
function multiply(times: number, { rows = 6, dtype = 'bfloat16' as DType, scale = 1 } = {}): void {
  const kernels = productKernels('emulated');
  scope(() => {
    const next = generator(5);
    const x = random(next, [rows, 32], dtype, scale);
    const weights = Array.from({ length: 3 }, () => random(next, [48, 32], dtype, scale));
    for (let i = 0; i < times; i++) {
      const weight = weights[i % weights.length] as Tensor;
      const wanted = Tensor.wrap(kernels.linear(x.native, weight.native));
      const alike = weights.map(({ native }) => native);
      expectClose(Tensor.wrap(kernels.recurringLinear(x.native, weight.native, alike)), wanted, dtype);
    }
  });
  kernels.dispose();
}

/** What was measured of the one product that there was. */
function seen() {
  const [product, ...others] = measured('emulated');
  expect(others).toEqual([]);
  return product;
}

/** What measuring takes: one call by itself, and one with each of three weights. */
const MEASURING = 4;

it('takes the fastest of those that are right, and measures once', () => {
  plantProducts(right(99), right(80), { kind: 'wrong', microseconds: 20 }, right(60), right(70));
  multiply(7);
  expect(seen()).toEqual({
    inputs: 32,
    outputs: 48,
    rows: 6,
    offered: 5,
    refused: 0,
    wrong: 1,
    chosen: 3,
    usual: 100,
    taken: 60,
  });
  expect(plantedRuns()).toEqual([MEASURING, MEASURING, 1, MEASURING + 7, MEASURING]);
});

it('stays with the usual way where none is faster', () => {
  plantProducts(right(98), right(120));
  multiply(4);
  expect(seen()).toMatchObject({ offered: 2, chosen: -1, usual: 100, taken: 100 });
  expect(plantedRuns()).toEqual([MEASURING, MEASURING]);
});

it('measures each number of rows for itself', () => {
  plantProducts(right(50));
  for (const rows of [1, 2, 2, 8, 1]) multiply(1, { rows });
  expect(measured('emulated').map(({ rows }) => rows)).toEqual([1, 2, 8]);
  expect(plantedRuns()).toEqual([3 * MEASURING + 5]);
});

describe('does not take one', () => {
  it.each<[string, PlantedProduct, object]>([
    ['that is wrong in one number', { kind: 'wrong', microseconds: 10 }, { wrong: 1 }],
    ['that leaves one unwritten', { kind: 'incomplete', microseconds: 10 }, { wrong: 1 }],
    ['that refuses', { kind: 'refuses', microseconds: 10 }, { refused: 1 }],
    [
      'that refuses while it is measured',
      { kind: 'refuses later', microseconds: 10, calls: 3 },
      { refused: 1 },
    ],
  ])('%s', (_, product, what) => {
    plantProducts(product);
    multiply(3);
    expect(seen()).toMatchObject({ offered: 1, chosen: -1, ...what });
  });

  it('any more that refuses afterwards', () => {
    plantProducts({ kind: 'refuses later', microseconds: 10, calls: MEASURING + 3 });
    multiply(4);
    expect(seen()).toMatchObject({ refused: 0, chosen: -1, taken: 100 });
    expect(plantedRuns()).toEqual([MEASURING + 2]);
  });
});

it('compares nothing where the results are not finite', () => {
  plantProducts(right(10));
  const kernels = productKernels('emulated');
  scope(() => {
    const x = Tensor.from(new Float32Array(64).fill(Number.NaN), [2, 32], { dtype: 'bfloat16' });
    const weight = random(generator(1), [48, 32], 'bfloat16');
    Tensor.wrap(kernels.recurringLinear(x.native, weight.native, [weight.native]));
  });
  kernels.dispose();
  expect(seen()).toMatchObject({ offered: 1, wrong: 0, chosen: -1, usual: 0 });
});

it('is for bf16 and up to 1,024 rows', () => {
  plantProducts(right(10));
  multiply(1, { rows: 1025 });
  multiply(1, { dtype: 'float32' });
  expect(measured('emulated')).toEqual([]);
  multiply(1, { rows: 1024 });
  expect(seen()).toMatchObject({ rows: 1024, chosen: 0 });
});

it('measures nothing where the library offers nothing', () => {
  multiply(2);
  expect(seen()).toMatchObject({ offered: 0, chosen: -1, usual: 0 });
});
