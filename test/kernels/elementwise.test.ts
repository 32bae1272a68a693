/** Norms, RoPE, SwiGLU, embedding and weight gradients against their twins, at sizes that leave remainders. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { scope } from '../../src/engine/scope.js';
import { liveTensors, Tensor } from '../../src/engine/tensor.js';
import {
  accumulate,
  both,
  contiguous,
  each,
  entriesOf,
  expectClose,
  fast,
  generator,
  int64,
  integers,
  random,
  slice,
  wrap,
} from './kernels.js';

let before = 0;
beforeAll(() => {
  before = liveTensors();
});
afterAll(() => {
  expect(liveTensors()).toBe(before);
});

const GROUPS = [0, 10, 10, 37]; // the middle one is empty

describe('RMS norm', () => {
  each('forward, rows cut out of a wider tensor', (dtype, next) => {
    for (const [rows, size] of [
      [37, 70],
      [1, 576],
      [5, 1],
    ] as const) {
      const x = slice(random(next, [rows, 3 * size], dtype), 1, size, size);
      const weight = random(next, [size], dtype);
      const [a, b] = both((k) => wrap(k.rmsNorm(x.native, weight.native, 1e-6)));
      expectClose(a.y, b.y, dtype, `y ${rows} x ${size}`);
      expectClose(a.rstd, b.rstd, dtype, 'rstd');
    }
  });

  each('heads of a fused q, k, v', (dtype, next) => {
    for (const size of [6, 64, 80]) {
      const x = slice(random(next, [11, 5, size], dtype), 1, 1, 3);
      const weight = random(next, [size], dtype);
      const grad = slice(random(next, [11, 5, size], dtype), 1, 2, 3);
      const [a, b] = both((k) => {
        const { y, rstd } = wrap(k.rmsNorm(x.native, weight.native, 1e-5));
        const sums = [Tensor.ones([size], { dtype: accumulate(dtype) })];
        const gradX = k.rmsNormBackward(
          grad.native,
          x.native,
          weight.native,
          rstd.native,
          [0, 11],
          sums.map((sum) => sum.native),
        );
        return [y, Tensor.wrap(gradX), ...sums];
      });
      a.forEach((tensor, i) => {
        expectClose(tensor, b[i] as Tensor, dtype, `result ${i} at size ${size}`);
      });
    }
  });

  each('the residual is added in place first', (dtype, next) => {
    const x = random(next, [37, 70], dtype);
    const residual = random(next, [37, 70], dtype);
    const weight = random(next, [70], dtype);
    const [a, b] = both((k) => {
      const sum = contiguous(x);
      return { sum, ...wrap(k.addRmsNorm(sum.native, residual.native, weight.native, 1e-6)) };
    });
    expectClose(a.sum, b.sum, dtype, 'x');
    expectClose(a.y, b.y, dtype, 'y');
    expectClose(a.rstd, b.rstd, dtype, 'rstd');
  });

  each('backward: groups, the gradient that flows past, a frozen weight', (dtype, next) => {
    const [x, grad, add] = [0, 0, 0].map(() => random(next, [37, 70], dtype)) as [Tensor, Tensor, Tensor];
    const weight = random(next, [70], dtype);
    const { rstd } = wrap(fast.rmsNorm(x.native, weight.native, 1e-6));
    const [a, b] = both((k) => {
      const sums = [0, 1, 2].map(() => Tensor.ones([70], { dtype: accumulate(dtype) }));
      const handles = sums.map((sum) => sum.native);
      const arguments_ = [x.native, weight.native, rstd.native, GROUPS] as const;
      const gradX = Tensor.wrap(k.rmsNormBackward(grad.native, ...arguments_, handles, add.native));
      const frozen = Tensor.wrap(k.rmsNormBackward(grad.native, ...arguments_, []));
      return [gradX, frozen, ...sums];
    });
    a.forEach((tensor, i) => {
      expectClose(tensor, b[i] as Tensor, dtype, `result ${i}`);
    });
    expect((a[3] as Tensor).toArray()).toEqual(new Array(70).fill(1)); // the empty group
  });

  each('backward into the gradient itself', (dtype, next) => {
    const x = slice(random(next, [9, 4, 64], dtype), 1, 0, 2);
    const weight = random(next, [64], dtype);
    const { rstd } = wrap(fast.rmsNorm(x.native, weight.native, 1e-6));
    const fused = random(next, [9, 4, 64], dtype);
    const [a, b] = both((k) => {
      const copy = contiguous(fused);
      const grad = slice(copy, 1, 1, 2);
      Tensor.wrap(
        k.rmsNormBackward(
          grad.native,
          x.native,
          weight.native,
          rstd.native,
          [0, 9],
          [],
          undefined,
          grad.native,
        ),
      );
      return copy;
    });
    expectClose(a, b, dtype);
    expect(slice(a, 1, 0, 1).toArray()).toEqual(slice(fused, 1, 0, 1).toArray());
    expect(a.toArray()).not.toEqual(fused.toArray());
  });
});

describe('SwiGLU', () => {
  each('forward and backward', (dtype, next) => {
    for (const size of [1, 50, 1536]) {
      const gateUp = random(next, [7, 2 * size], dtype, 3);
      const grad = random(next, [7, size], dtype);
      const [a, b] = both((k) => [
        Tensor.wrap(k.swiglu(gateUp.native)),
        Tensor.wrap(k.swigluBackward(grad.native, gateUp.native)),
      ]);
      a.forEach((tensor, i) => {
        expectClose(tensor, b[i] as Tensor, dtype, `result ${i} at size ${size}`);
      });
    }
  });

  it('saturates without NaN', () =>
    scope(() => {
      const gateUp = Tensor.from([-1e4, -100, 0, 100, 1e4, 1, 1, 1, 1, 1], [1, 10]);
      const out = Tensor.wrap(fast.swiglu(gateUp.native)).toArray();
      [0, 0, 0, 100, 1e4].forEach((value, i) => {
        expect(out[i]).toBeCloseTo(value, 5);
      });
    }));
});

describe('embedding', () => {
  each('looks up, and adds repeated tokens to each group', (dtype, next) => {
    const tokens = int64(integers(next, 37, 9));
    const weight = random(next, [9, 70], dtype);
    const grad = random(next, [37, 70], dtype);
    const [a, b] = both((k) => {
      const sums = [0, 1, 2].map(() => Tensor.ones([9, 70], { dtype: accumulate(dtype) }));
      k.embeddingBackward(
        grad.native,
        tokens.native,
        GROUPS,
        sums.map((sum) => sum.native),
      );
      return [Tensor.wrap(k.embedding(tokens.native, weight.native)), ...sums];
    });
    a.forEach((tensor, i) => {
      expectClose(tensor, b[i] as Tensor, dtype, `result ${i}`);
    });
  });
});

describe('linear layers', () => {
  each('weight gradients are added in the accumulator’s precision', (dtype, next) => {
    for (const [groups, outputs, inputs] of [
      [[0, 1], 7, 9],
      [[0, 300], 70, 1100],
      [[0, 100, 100, 513], 128, 96],
      [[0, 3, 9000], 48, 576],
    ] as const) {
      const rows = groups.at(-1) ?? 0;
      const delta = slice(random(next, [rows, 2 * outputs], dtype), 1, 3, outputs);
      const x = random(next, [rows, inputs], dtype);
      const sums = groups.slice(1).map(() => Tensor.ones([outputs, inputs], { dtype: accumulate(dtype) }));
      const natives = sums.map(({ native }) => native);
      fast.accumulateWeightGradient(natives, delta.native, x.native, [...groups]);
      for (const [k, sum] of sums.entries()) {
        const count = (groups[k + 1] ?? 0) - (groups[k] ?? 0);
        const part = (tensor: Tensor) => tensor.narrow(0, groups[k] ?? 0, count).to(accumulate(dtype));
        const expected = part(delta).transpose(0, 1).matmul(part(x)).add(1);
        // Where a processor has no bf16 products of its own, each call's product is rounded once to bf16.
        expectClose(sum, expected, dtype, `${count} of ${rows} rows`);
      }
    }
  });

  each('without outputs or inputs there is no gradient, and nothing happens', (dtype, next) => {
    for (const [outputs, inputs] of [
      [0, 8],
      [8, 0],
    ] as const) {
      const sum = Tensor.zeros([outputs, inputs], { dtype: accumulate(dtype) });
      const [delta, x] = [random(next, [4, outputs], dtype), random(next, [4, inputs], dtype)];
      fast.accumulateWeightGradient([sum.native], delta.native, x.native, [0, 4]);
      expect(sum.shape).toEqual([outputs, inputs]);
    }
  });

  each('a fresh accumulator is overwritten, whatever it holds', (dtype, next) => {
    for (const [outputs, inputs] of [
      [70, 300],
      [8, 300],
    ] as const) {
      // One that is not fresh, one without rows, one that is, one that is and has no rows.
      const groups = [0, 40, 40, 60, 60];
      const delta = random(next, [60, outputs], dtype);
      const x = random(next, [60, inputs], dtype);
      const held = [1, 1, Number.NaN, Number.NaN];
      const sums = held.map((value) =>
        Tensor.ones([outputs, inputs], { dtype: accumulate(dtype) }).mul(value),
      );
      const natives = sums.map(({ native }) => native);
      fast.accumulateWeightGradient(natives, delta.native, x.native, groups, [0, 0, 1, 1]);
      for (const [k, sum] of sums.entries()) {
        const [begin = 0, end = 0] = [groups[k], groups[k + 1]];
        const part = (tensor: Tensor) => tensor.narrow(0, begin, end - begin).to(accumulate(dtype));
        const expected = part(delta).transpose(0, 1).matmul(part(x));
        expectClose(sum, k < 2 ? expected.add(1) : expected, dtype, `accumulator ${k}`);
      }
    }
  });

  each('packed weights multiply as plain ones', (dtype, next) => {
    // bf16: 64 inputs are packed in pairs, whose blocks have 64 outputs and meet 256 rows at a time; 48 are not.
    // float32: panels of 16 or 32 outputs, 256 inputs and 192 rows at a time; with AVX-512 of weights up to 1 MiB, as all
    // but the last are.
    for (const [rows, inputs, outputs] of [
      [1, 48, 80],
      [3, 48, 80],
      [64, 48, 80],
      [1, 64, 80],
      [37, 64, 80],
      [64, 64, 80],
      [273, 64, 80],
      [512, 64, 80],
      [7, 600, 70],
      [391, 288, 3],
      [37, 640, 420],
    ] as const) {
      const weight = random(next, [outputs, inputs], dtype);
      const bias = random(next, [outputs], dtype);
      const x = slice(random(next, [rows, 2 * inputs], dtype), 1, inputs, inputs);
      const [a, b] = both((k) => [
        Tensor.wrap(k.linear(x.native, weight.native)),
        Tensor.wrap(k.linear(x.native, weight.native, bias.native)),
      ]);
      a.forEach((tensor, i) => {
        expectClose(tensor, b[i] as Tensor, dtype, `${rows} rows of ${inputs}`);
      });
    }
  });
});

// The CPU's own kernels: libtorch's products, the emulation's and the reference's among them, promise no such thing.
it.runIf(
  process.arch === 'x64' &&
    process.env.TROUPE_KERNELS === undefined &&
    process.env.ATEN_CPU_CAPABILITY !== 'default',
)('a row has the same product with a small float32 weight alone and among others, bit by bit', () =>
  scope(() => {
    const next = generator(7);
    const weight = random(next, [192, 352], 'float32');
    const x = random(next, [64, 352], 'float32');
    const product = (begin: number, rows: number) =>
      Tensor.wrap(fast.linear(x.narrow(0, begin, rows).native, weight.native)).toArray();
    const all = product(0, 64);
    for (const rows of [1, 2, 3, 7, 24, 33])
      expect(product(5, rows), `${rows} rows`).toEqual(all.slice(5 * 192, (5 + rows) * 192));
  }),
);

it('a wrong shape or dtype is an error with the shapes in it', () =>
  scope(() => {
    const next = generator(1);
    const x = random(next, [4, 8], 'float32');
    const weight = random(next, [6], 'float32');
    expect(() => fast.rmsNorm(x.native, weight.native, 1e-6)).toThrow(/weight must be \[8\], not \[6\]/);
    expect(() => fast.treeAttention(x.native, x.native, x.native, [0, 4, -1], 1)).toThrow(
      /\[rows, heads, size\]/,
    );
    const q = random(next, [4, 2, 8], 'float32');
    expect(() => fast.treeAttention(q.native, q.native, q.native, [0, 3, -1], 1)).toThrow(
      /cover 3 of 4 rows/,
    );
    expect(() => fast.treeAttention(q.native, q.native, q.native, [0, 2, 1, 2, 2, -1], 1)).toThrow(
      /after its parent/,
    );
    const logprobs = (rows: number[], targets: number[], temperature = 1) =>
      fast.tokenLogprobs(x.native, x.native, entriesOf(rows, targets, temperature));
    expect(() => logprobs([0, 5], [0, 1])).toThrow(/row 5 of 4/);
    expect(() => logprobs([0, 1], [0, 5])).toThrow(/outside the vocabulary of 4/);
    expect(() => logprobs([1, 0], [0, 1])).toThrow(/rows must ascend/);
    expect(() => logprobs([0, 1], [0, 1], 0)).toThrow(/must be above 0/);
  }));

it('groups that leave rows out are an error where the gradient of every row is asked for', () =>
  scope(() => {
    const next = generator(1);
    const x = random(next, [4, 8], 'float32');
    const weight = random(next, [8], 'float32');
    const { rstd } = wrap(fast.rmsNorm(x.native, weight.native, 1e-6));
    for (const groups of [
      [0, 3],
      [1, 4],
    ])
      expect(() =>
        fast.rmsNormBackward(x.native, x.native, weight.native, rstd.native, groups, [
          Tensor.zeros([8]).native,
        ]),
      ).toThrow(/groups must cover all 4 rows/);
  }));
