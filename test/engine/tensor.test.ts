/** The typed tensors: values against plain JavaScript, gradients against differences, lifetimes by count. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { scope } from '../../src/engine/scope.js';
import { liveTensors, noGrad, Tensor } from '../../src/engine/tensor.js';

let before = 0;
beforeAll(() => {
  before = liveTensors();
});
afterAll(() => {
  expect(liveTensors()).toBe(before);
});

/** A test whose tensors are freed at its end. */
const check = (name: string, body: () => void) => it(name, () => scope(body));
const f64 = (...values: number[]) => Tensor.from(Float64Array.from(values));
const index = (...values: number[]) => Tensor.from(BigInt64Array.from(values, BigInt));

describe('values', () => {
  check('made from numbers and typed arrays, read back in both ways', () => {
    const x = Tensor.from([1, 2, 3, 4, 5, 6], [2, 3]);
    expect([x.shape, x.dtype, x.device, x.size]).toEqual([[2, 3], 'float32', 'cpu', 6]);
    expect(x.data()).toEqual(new Float32Array([1, 2, 3, 4, 5, 6]));
    expect(x.transpose(0, 1).toArray()).toEqual([1, 4, 2, 5, 3, 6]);
    expect(index(5, -6).toArray()).toEqual([5, -6]);
    expect(Tensor.from([1, 2], [2], { dtype: 'bfloat16' }).dtype).toBe('bfloat16');
    expect(Tensor.scalar(3).item()).toBe(3);
    expect(() => x.item()).toThrow(/one element, but there are 6/);
  });

  check('arithmetic with tensors and numbers', () => {
    const x = f64(1, 2, 4);
    const y = f64(4, 2, 1);
    expect(x.add(y).toArray()).toEqual([5, 4, 5]);
    expect(x.sub(1).toArray()).toEqual([0, 1, 3]);
    expect(x.mul(y).toArray()).toEqual([4, 4, 4]);
    expect(x.div(2).toArray()).toEqual([0.5, 1, 2]);
    expect(x.pow(2).toArray()).toEqual([1, 4, 16]);
    expect(x.neg().abs().toArray()).toEqual([1, 2, 4]);
    expect(x.clamp(1.5, 3).toArray()).toEqual([1.5, 2, 3]);
    expect(x.clamp(undefined, 3).toArray()).toEqual([1, 2, 3]);
    expect(x.minimum(y).toArray()).toEqual([1, 2, 1]);
    expect(x.maximum(y).toArray()).toEqual([4, 2, 4]);
    expect(
      x
        .reshape([1, 3])
        .matmul(y.reshape([3, 1]))
        .item(),
    ).toBe(12);
    expect(x.exp().log().toArray()).toEqual([1, 2, 4]);
    expect(f64(4).sqrt().item()).toBe(2);
    expect(f64(0).sigmoid().item()).toBe(0.5);
    expect(f64(0).logSigmoid().item()).toBeCloseTo(-Math.LN2, 12);
    expect(f64(1e-9).expm1().item()).toBe(Math.expm1(1e-9));
    expect(Tensor.from([1, 2]).add(1e-3).dtype).toBe('float32');
    expect(index(1, 2).add(1).dtype).toBe('int64');
    expect(index(1, 2).div(2).toArray()).toEqual([0.5, 1]);
  });

  check('comparison, selection and logic', () => {
    const x = f64(1, 2, 3);
    const two = f64(2, 2, 2);
    const bits = (tensor: Tensor) => [tensor.dtype, ...tensor.toArray()];
    expect(bits(x.gt(2))).toEqual(['bool', 0, 0, 1]);
    expect(bits(x.ge(two))).toEqual(['bool', 0, 1, 1]);
    expect(bits(x.lt(2))).toEqual(['bool', 1, 0, 0]);
    expect(bits(x.le(two))).toEqual(['bool', 1, 1, 0]);
    expect(bits(x.eq(2))).toEqual(['bool', 0, 1, 0]);
    expect(bits(x.ne(two))).toEqual(['bool', 1, 0, 1]);
    expect(bits(x.gt(1).and(x.lt(3)))).toEqual(['bool', 0, 1, 0]);
    expect(bits(x.lt(2).or(x.gt(2)).not())).toEqual(['bool', 0, 1, 0]);
    expect(bits(f64(1, Number.NaN, Number.POSITIVE_INFINITY).isFinite())).toEqual(['bool', 1, 0, 0]);
    expect(Tensor.where(x.gt(1), x, two.neg()).toArray()).toEqual([-2, 2, 3]);
    expect(Tensor.where(x.gt(1), x, 0).toArray()).toEqual([0, 2, 3]);
    expect(Tensor.where(x.gt(1), 9, x).toArray()).toEqual([1, 9, 9]);
    expect(Tensor.where(x.gt(1), 1, 0).toArray()).toEqual([0, 1, 1]);
  });

  check('sums, means and extremes over chosen dimensions', () => {
    const x = Tensor.from(Float64Array.of(1, 2, 3, 4, 5, 6), [2, 3]);
    expect(x.sum().item()).toBe(21);
    expect(x.sum(0).toArray()).toEqual([5, 7, 9]);
    expect(x.sum([0, 1]).shape).toEqual([]);
    expect(x.sum(undefined, true).shape).toEqual([1, 1]);
    expect(x.mean(1, true).shape).toEqual([2, 1]);
    expect(x.mean(1).toArray()).toEqual([2, 5]);
    expect(x.mean().item()).toBe(3.5);
    expect(x.max(0).toArray()).toEqual([4, 5, 6]);
    expect(x.min().item()).toBe(1);
    expect(x.logsumexp(1).toArray()[0]).toBeCloseTo(Math.log(Math.E + Math.E ** 2 + Math.E ** 3), 12);
  });

  check('indices, segments, shapes', () => {
    const x = Tensor.from(Float64Array.of(1, 2, 3, 4, 5, 6), [3, 2]);
    expect(x.indexSelect(0, index(2, 0)).toArray()).toEqual([5, 6, 1, 2]);
    expect(x.gather(1, index(1, 0, 1).reshape([3, 1])).toArray()).toEqual([2, 3, 6]);
    expect(x.segmentSum(index(1, 0, 1), 3).toArray()).toEqual([3, 4, 6, 8, 0, 0]);
    expect(x.indexAdd(0, index(0), Tensor.ones([1, 2], { dtype: 'float64' })).toArray()).toEqual([
      2, 3, 3, 4, 5, 6,
    ]);
    expect(x.narrow(0, 1, 2).toArray()).toEqual([3, 4, 5, 6]);
    expect(Tensor.cat([x, x], 1).shape).toEqual([3, 4]);
    expect(Tensor.stack([x, x]).shape).toEqual([2, 3, 2]);
    expect(x.reshape([-1]).unsqueeze(0).squeeze(0).shape).toEqual([6]);
    expect(x.to('bfloat16').dtype).toBe('bfloat16');
    expect(x.toDevice('cpu').dtype).toBe('float64');
  });

  check('changes in place', () => {
    const x = Tensor.zeros([2]);
    expect(
      x
        .fill_(2)
        .add_(Tensor.ones([2]), 3)
        .mul_(2)
        .toArray(),
    ).toEqual([10, 10]);
    expect(x.copy_(f64(1, 2)).toArray()).toEqual([1, 2]);
    const copy = x.clone();
    x.fill_(0);
    expect(copy.toArray()).toEqual([1, 2]);
  });
});

describe('gradients', () => {
  const point = [0.3, -0.7, 1.9, 0.8];
  const other = () => f64(0.5, 0.4, -1.1, 2);
  const functions: Record<string, (x: Tensor) => Tensor> = {
    add: (x) => x.add(other()).mul(other()),
    sub: (x) => other().sub(x).mul(x),
    mul: (x) => x.mul(x).mul(2),
    div: (x) => other().div(x),
    neg: (x) => x.neg(),
    abs: (x) => x.abs(),
    pow: (x) => x.pow(3),
    exp: (x) => x.exp(),
    expm1: (x) => x.expm1(),
    log: (x) => x.mul(x).log(),
    sqrt: (x) => x.mul(x).sqrt(),
    sigmoid: (x) => x.sigmoid(),
    logSigmoid: (x) => x.logSigmoid(),
    clamp: (x) => x.clamp(-0.5, 1).mul(x),
    minimum: (x) => x.minimum(other()),
    maximum: (x) => x.maximum(other()),
    where: (x) => Tensor.where(x.gt(0.5), x.mul(x), x.exp()),
    sum: (x) => x.reshape([2, 2]).sum(1).pow(2),
    mean: (x) => x.reshape([2, 2]).mean(0, true).pow(2),
    logsumexp: (x) => x.logsumexp(0),
    max: (x) => x.max(),
    matmul: (x) => x.reshape([2, 2]).matmul(x.reshape([2, 2])),
    indexSelect: (x) => x.indexSelect(0, index(3, 3, 0)).pow(2),
    gather: (x) => x.gather(0, index(1, 1, 2)).pow(2),
    segmentSum: (x) => x.segmentSum(index(0, 1, 0, 1), 2).pow(2),
    cat: (x) => Tensor.cat([x, x.exp()]).pow(2),
    narrow: (x) => x.narrow(0, 1, 2).pow(2),
    transpose: (x) =>
      x
        .reshape([2, 2])
        .transpose(0, 1)
        .mul(x.reshape([2, 2])),
  };
  const value = (f: (x: Tensor) => Tensor, at: number[]) =>
    scope(() =>
      f(f64(...at))
        .sum()
        .item(),
    );

  it.each(Object.keys(functions))('%s agrees with differences', (name) => {
    const f = functions[name] as (x: Tensor) => Tensor;
    const gradient = scope(() => {
      const x = f64(...point).setRequiresGrad(true);
      f(x).sum().backward();
      return x.grad?.toArray() ?? [];
    });
    const step = 1e-6;
    for (const i of point.keys()) {
      const shifted = (by: number) =>
        value(
          f,
          point.map((v, j) => (j === i ? v + by : v)),
        );
      expect(gradient[i]).toBeCloseTo((shifted(step) - shifted(-step)) / (2 * step), 6);
    }
  });

  check('detach and noGrad cut the graph; grads add up; a gradient may be given', () => {
    const x = f64(2, 3).setRequiresGrad(true);
    expect(x.grad).toBeUndefined();
    expect(x.detach().requiresGrad).toBe(false);
    expect(noGrad(() => x.mul(x)).requiresGrad).toBe(false);
    x.mul(x.detach()).sum().backward();
    x.mul(1).backward(f64(10, 20));
    expect(x.grad?.toArray()).toEqual([12, 23]);
    expect(() =>
      noGrad(() => {
        throw new Error('inside');
      }),
    ).toThrow('inside');
    expect(x.mul(x).requiresGrad).toBe(true);
  });
});

describe('errors are Errors that name the operator', () => {
  const wrong = (value: unknown) => value as Tensor;
  const cases: [string, () => unknown, RegExp][] = [
    ['shapes that do not broadcast', () => f64(1, 2).add(f64(1, 2, 3)), /must match the size/],
    ['a string operand', () => f64(1).mul(wrong('2')), /aten::mul's argument other but received "2"/],
    ['an undefined operand', () => f64(1).mul(wrong(undefined)), /aten::mul.*undefined/],
    ['a float index', () => f64(1).indexSelect(0, f64(0)), /[Ii]ndex/],
    ['an index beyond the end', () => f64(1).gather(0, index(4)), /out of bounds/],
    ['a segment beyond the end', () => f64(1).segmentSum(index(4), 2), /out of range/],
    ['a dimension beyond the end', () => f64(1).sum(2), /Dimension out of range/],
    ['no tensors to join', () => Tensor.cat([]), /non-empty/],
    ['too few values', () => Tensor.from([1, 2], [3]), /2 elements but the shape takes 3/],
    ['integer gradients', () => index(1).setRequiresGrad(true), /floating point/],
    [
      'a mixed product',
      () =>
        f64(1)
          .reshape([1, 1])
          .matmul(Tensor.ones([1, 1])),
      /dtype/,
    ],
    ['a changed leaf', () => f64(1).setRequiresGrad(true).fill_(1), /in-place/],
    [
      'a disposed tensor',
      () => {
        const x = f64(1);
        x.dispose();
        return x.add(1);
      },
      /disposed/,
    ],
    ['a promise from a scope', () => scope(async () => 1), /promise/],
  ];
  it.each(cases)('%s', (_, action, message) => {
    expect(() => scope(action)).toThrow(message);
  });
});

describe('lifetime', () => {
  it('scope frees what was made inside but not what it returns', () => {
    const start = liveTensors();
    const outside = f64(1);
    const [kept, record] = scope(() => {
      f64(2).add(1);
      return [outside.add(1), { inner: f64(5), list: [f64(6)], outside }] as const;
    });
    expect(liveTensors()).toBe(start + 4);
    expect([kept.item(), record.inner.item(), record.list[0]?.item()]).toEqual([2, 5, 6]);
    for (const tensor of [outside, kept, record.inner, ...record.list]) tensor.dispose();
    expect(liveTensors()).toBe(start);
  });

  it('a nested scope hands what it returns to the outer one', () => {
    const start = liveTensors();
    scope(() => {
      const inner = scope(() => f64(1).add(f64(2)));
      expect(inner.item()).toBe(3);
      expect(liveTensors()).toBe(start + 1);
    });
    expect(liveTensors()).toBe(start);
  });

  it('frees everything when the body throws, and tensors disposed by hand stay so', () => {
    const start = liveTensors();
    expect(() =>
      scope(() => {
        f64(1).dispose();
        f64(2);
        throw new Error('inside');
      }),
    ).toThrow('inside');
    expect(liveTensors()).toBe(start);
  });

  it('using frees at the end of a block', () => {
    const start = liveTensors();
    {
      using x = f64(1);
      expect(x.item()).toBe(1);
    }
    expect(liveTensors()).toBe(start);
  });
});
