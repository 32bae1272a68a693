/** What the counts of operators that tests and bench/stages.mjs rely on say of operators whose bytes are known. */
import { expect, test } from 'vitest';
import { native } from '../../src/engine/native.js';
import { scope } from '../../src/engine/scope.js';
import { operator, Tensor } from '../../src/engine/tensor.js';
import type { OperatorCounts } from './counting.js';
import { int64, type Kernels, random } from './kernels.js';

const addon = native() as unknown as {
  countOperators(counting: boolean): OperatorCounts;
  kernels(name: string): Kernels;
};

const tensor = (shape: number[], dtype: 'bfloat16' | 'float32' = 'bfloat16') =>
  random(() => 0.5, shape, dtype);

/** What one operator's call is counted as. */
function counted(name: string, work: () => unknown) {
  addon.countOperators(true);
  scope(work);
  return addon.countOperators(false)[name];
}

test('operators are counted by the bytes that they read and write, and products by their operations', () => {
  scope(() => {
    const a = tensor([3, 5]);
    const b = tensor([5, 7]);
    const y = tensor([3, 7]);
    const row = tensor([1, 7]);
    const wide = tensor([3, 5], 'float32');
    const table = tensor([100, 5]);
    const ids = int64([1, 2, 3, 4]);
    const operations = 2 * 3 * 5 * 7;
    expect(counted('aten::mm', () => operator('aten::mm', '', a, b))).toEqual({
      calls: 1,
      bytes: 2 * (15 + 35 + 21),
      operations,
    });
    expect(counted('aten::addmm_', () => operator('aten::addmm_', '', y, a, b, 1, 1))).toEqual({
      calls: 1,
      bytes: 2 * (21 + 15 + 35 + 21),
      operations,
    });
    // A table's rows, and not the table.
    expect(
      counted('aten::embedding', () => operator('aten::embedding', '', table, ids, -1, false, false))?.bytes,
    ).toBe(8 * 4 + 2 * 2 * 20);
    expect(counted('aten::copy_', () => operator('aten::copy_', '', wide, a, false))?.bytes).toBe(
      2 * 15 + 4 * 15,
    );
    expect(counted('aten::zero_', () => operator('aten::zero_', '', wide))).toEqual({
      calls: 1,
      bytes: 4 * 15,
      operations: 0,
    });
    // What is expanded has the elements that it had.
    const expanded = operator('aten::expand', '', row, [3, 7], false);
    expect(counted('aten::add', () => operator('aten::add', 'Tensor', y, expanded, 1))?.bytes).toBe(2 * 49);
  });
});

test('a product that the emulation makes of several operators is one, of bf16 factors and a wide result', () => {
  scope(() => {
    const hidden = tensor([3, 5]);
    const weight = tensor([7, 5]);
    const kernels = addon.kernels('emulated');
    const product = () => Tensor.wrap(kernels.logits(hidden.native, weight.native, false));
    expect(counted('troupe::product', product)).toEqual({
      calls: 1,
      bytes: 2 * (15 + 35) + 4 * 21,
      operations: 2 * 3 * 5 * 7,
    });
    expect(counted('aten::mm', product)).toBeUndefined();
  });
});
