/** Tree attention: against its twin, and against dense attention under a mask, differentiated by autograd. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { scope } from '../../src/engine/scope.js';
import { liveTensors, operator, Tensor } from '../../src/engine/tensor.js';
import {
  accumulate,
  both,
  contiguous,
  each,
  expectClose,
  fast,
  generator,
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

interface Node {
  length: number;
  parent: number;
}

/** Start, length, parent of nodes that follow one another. */
function flat(nodes: Node[]): number[] {
  let start = 0;
  return nodes.flatMap(({ length, parent }) => {
    start += length;
    return [start - length, length, parent];
  });
}

const total = (nodes: Node[]) => nodes.reduce((sum, node) => sum + node.length, 0);

/** Depth 3, several roots, an empty node, nodes of 1 and of more rows than a block holds. */
const FOREST: Node[] = [
  { length: 100, parent: -1 },
  { length: 70, parent: 0 },
  { length: 130, parent: 1 },
  { length: 1, parent: 2 },
  { length: 5, parent: 2 },
  { length: 0, parent: -1 },
  { length: 33, parent: 5 },
  { length: 64, parent: -1 },
  { length: 20, parent: 7 },
  { length: 7, parent: 0 },
];

/** Longer than the scores that are held at a time, so that sums are rescaled. */
const CHAIN: Node[] = [
  { length: 600, parent: -1 },
  { length: 65, parent: 0 },
];

describe.each([
  ['forest', FOREST],
  ['one row', [{ length: 1, parent: -1 }]],
  ['long chain', CHAIN],
] as [string, Node[]][])('%s', (_name, nodes) => {
  for (const [heads, keyHeads, size] of [
    [4, 1, 6],
    [3, 3, 64],
    [4, 2, 80],
  ] as const) {
    each(`against the twin, ${heads}/${keyHeads} heads of ${size}`, (dtype, next) => {
      const rows = total(nodes);
      const fused = random(next, [rows, heads + 2 * keyHeads, size], dtype);
      const q = slice(fused, 1, 0, heads).native;
      const k = slice(fused, 1, heads, keyHeads).native;
      const v = slice(fused, 1, heads + keyHeads, keyHeads).native;
      const grad = random(next, [rows, heads, size], dtype).native;
      const scale = 1 / Math.sqrt(size);
      const [a, b] = both((kernels) => wrap(kernels.treeAttention(q, k, v, flat(nodes), scale, grad)));
      expectClose(a.out, b.out, dtype, 'out');
      for (const name of ['q', 'k', 'v'] as const) expectClose(a[name], b[name], dtype, `d${name}`);
    });
  }
});

it('many small trees, fewer heads than threads would like', () =>
  scope(() => {
    const nodes = Array.from({ length: 12 }, (_, i) => ({
      length: 3 + i,
      parent: i % 3 === 0 ? -1 : i - (i % 3),
    }));
    const fused = random(generator(3), [total(nodes), 4, 16], 'float64');
    const [q, k, v] = [slice(fused, 1, 0, 2), slice(fused, 1, 2, 1), slice(fused, 1, 3, 1)].map(
      (x) => x.native,
    ) as [Tensor['native'], Tensor['native'], Tensor['native']];
    const [a, b] = both((kernels) => wrap(kernels.treeAttention(q, k, v, flat(nodes), 0.25, q)));
    for (const name of ['out', 'q', 'k', 'v'] as const) expectClose(a[name], b[name], 'float64', name);
  }));

it('values and gradients equal dense masked attention under autograd to 1e-10', () =>
  scope(() => {
    const next = generator(11);
    const [rows, heads, size] = [total(FOREST), 2, 16];
    const nodes = flat(FOREST);
    const owner: number[] = [];
    FOREST.forEach(({ length }, node) => {
      for (let i = 0; i < length; i++) owner.push(node);
    });
    const sees = (query: number, key: number): boolean => {
      if (key > query) return false;
      for (let node = owner[query] as number; node >= 0; node = (FOREST[node] as Node).parent) {
        if (node === owner[key]) return true;
      }
      return false;
    };
    const bias = new Float64Array(rows * rows);
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < rows; j++) bias[i * rows + j] = sees(i, j) ? 0 : Number.NEGATIVE_INFINITY;
    }
    const [q, k, v] = [0, 0, 0].map(() =>
      random(next, [rows, heads, size], 'float64').setRequiresGrad(true),
    ) as [Tensor, Tensor, Tensor];
    const grad = random(next, [rows, heads, size], 'float64');
    const headsFirst = (x: Tensor) => x.transpose(0, 1);
    const scores = headsFirst(q)
      .matmul(headsFirst(k).transpose(1, 2))
      .mul(0.25)
      .add(Tensor.from(bias, [rows, rows]));
    const expected = headsFirst(operator('aten::softmax', 'int', scores, -1).matmul(headsFirst(v)));
    expected.backward(grad);

    const [nq, nk, nv] = [q.detach().native, k.detach().native, v.detach().native];
    const result = wrap(fast.treeAttention(nq, nk, nv, nodes, 0.25, grad.native));
    const most = (a: Tensor, b: Tensor) => a.sub(b).abs().max().item();
    expect(most(result.out, expected.detach())).toBeLessThan(1e-10);
    expect(most(result.q, q.grad as Tensor)).toBeLessThan(1e-10);
    expect(most(result.k, k.grad as Tensor)).toBeLessThan(1e-10);
    expect(most(result.v, v.grad as Tensor)).toBeLessThan(1e-10);
  }));

/** Positions from the root of each tree. */
function positionsOf(nodes: Node[]): number[] {
  const ends: number[] = [];
  return nodes.flatMap(({ length, parent }) => {
    const begin = parent < 0 ? 0 : (ends[parent] as number);
    ends.push(begin + length);
    return Array.from({ length }, (_, i) => begin + i);
  });
}

describe.each([true, false])('from the raw product and back, head norms: %s', (normed) => {
  for (const [queryHeads, keyHeads, dim] of [
    [4, 2, 64],
    [3, 3, 6],
    [5, 1, 80],
  ] as const) {
    each(`${queryHeads}/${keyHeads} heads of ${dim}`, (dtype, next) => {
      const rows = total(FOREST);
      const wide = accumulate(dtype);
      const qkv = random(next, [rows, (queryHeads + 2 * keyHeads) * dim], dtype);
      const angles = random(next, [400, dim / 2], wide);
      const [cos, sin] = [operator('aten::cos', '', angles), operator('aten::sin', '', angles)];
      const [qNorm, kNorm] = [random(next, [dim], dtype), random(next, [dim], dtype)];
      const grad = random(next, [rows, queryHeads, dim], dtype);
      const groups = [0, 100, 100, rows];
      const before = contiguous(qkv);
      const [a, b] = both((kernels) => {
        const sums = [0, 1, 2, 3, 4, 5].map(() => Tensor.ones([dim], { dtype: wide }));
        const handles = sums.map((sum) => sum.native);
        const result = wrap(
          kernels.attention({
            qkv: qkv.native,
            layout: { queryHeads, keyHeads, dim },
            ...(normed ? { qNorm: qNorm.native, kNorm: kNorm.native } : {}),
            cos: cos.native,
            sin: sin.native,
            nodes: flat(FOREST),
            positions: positionsOf(FOREST),
            scale: 1 / Math.sqrt(dim),
            grad: grad.native,
            groups,
            ...(normed ? { gradQNorm: handles.slice(0, 3), gradKNorm: handles.slice(3) } : {}),
          }),
        );
        return { ...result, sums };
      });
      expectClose(a.out, b.out, dtype, 'out');
      expectClose(a.qkv, b.qkv, dtype, 'dqkv');
      a.sums.forEach((sum, i) => {
        expectClose(sum, b.sums[i] as Tensor, dtype, `norm gradient ${i}`);
      });
      expect(qkv.toArray()).toEqual(before.toArray());
    });
  }
});

it('norms of which only one is trained, and groups that leave rows out, are an error', () =>
  scope(() => {
    const next = generator(3);
    const dim = 8;
    const qkv = random(next, [4, 3 * dim], 'float32');
    const norm = random(next, [dim], 'float32').native;
    const table = Tensor.ones([4, dim / 2]).native;
    const sum = Tensor.zeros([dim]).native;
    const backward = (groups: number[], sums: object) => () =>
      wrap(
        fast.attention({
          qkv: qkv.native,
          layout: { queryHeads: 1, keyHeads: 1, dim },
          qNorm: norm,
          kNorm: norm,
          cos: table,
          sin: table,
          nodes: [0, 4, -1],
          positions: [0, 1, 2, 3],
          scale: 1,
          grad: random(next, [4, 1, dim], 'float32').native,
          groups,
          ...sums,
        }),
      );
    expect(backward([0, 4], { gradQNorm: [sum] })).toThrow(/both or neither, not in 1 and 0 groups/);
    expect(backward([0, 4], { gradKNorm: [sum] })).toThrow(/both or neither, not in 0 and 1 groups/);
    expect(backward([0, 3], { gradQNorm: [sum], gradKNorm: [sum] })).toThrow(/groups must cover all 4 rows/);
    backward([0, 4], { gradQNorm: [sum], gradKNorm: [sum] })();
  }));

it('rotation alone equals the textbook formula', () =>
  scope(() => {
    const next = generator(2);
    const dim = 6;
    // One row to a tree attends to itself alone, so its output is v; the gradient of v passes through unchanged.
    const nodes = [0, 1, 2].map(() => ({ length: 1, parent: -1 }));
    const qkv = random(next, [3, 3 * dim], 'float64');
    const angles = random(next, [10, dim / 2], 'float64');
    const [cos, sin] = [operator('aten::cos', '', angles), operator('aten::sin', '', angles)];
    const grad = random(next, [3, 1, dim], 'float64');
    const { out, qkv: gradient } = wrap(
      fast.attention({
        qkv: qkv.native,
        layout: { queryHeads: 1, keyHeads: 1, dim },
        cos: cos.native,
        sin: sin.native,
        nodes: flat(nodes),
        positions: [4, 0, 9],
        scale: 1,
        grad: grad.native,
        groups: [0, 3],
      }),
    );
    expectClose(out, slice(qkv, 1, 2 * dim, dim).reshape([3, 1, dim]), 'float64');
    expectClose(slice(gradient, 1, 2 * dim, dim), grad.reshape([3, dim]), 'float64');
  }));
