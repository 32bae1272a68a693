/** Rollout's kernels against the reference: paged attention, adapters for few rows, logits, the sampler. */
import { describe, expect, it } from 'vitest';
import type { DType } from '../../src/engine/native-model.js';
import { scope } from '../../src/engine/scope.js';
import { operator, Tensor } from '../../src/engine/tensor.js';
import {
  type Adapter,
  accumulate,
  both,
  each,
  expectClose,
  fast,
  generator,
  integers,
  type RowPlan,
  random,
  slow,
} from './kernels.js';

const PAGE = 16;

/** A step of the sequences' next tokens: `counts[i]` tokens of sequence i from position `begins[i]` on. */
function stepOf(pages: number[][], begins: number[], counts: number[], written = true): RowPlan {
  const positions: number[] = [];
  const slots: number[] = [];
  const tables: number[] = [];
  const width = Math.max(...pages.map((list) => list.length));
  pages.forEach((list, sequence) => {
    for (let i = 0; i < (counts[sequence] as number); i++) {
      const position = (begins[sequence] as number) + i;
      positions.push(position);
      slots.push(written ? (list[Math.floor(position / PAGE)] as number) * PAGE + (position % PAGE) : -1);
      tables.push(sequence);
    }
  });
  return {
    positions: Int32Array.from(positions),
    slots: Int32Array.from(slots),
    tables: Int32Array.from(tables),
    pages: Int32Array.from(pages.flatMap((list) => [...list, ...new Array(width - list.length).fill(-1)])),
    tableWidth: width,
    outputs: new Int32Array(),
    draws: new Int32Array(),
    uniforms: new Float64Array(),
    sampling: new Float64Array(),
  };
}

/** One adapter of the products whose columns begin at `begins`, `outputs` of them each. */
function adapterOf(
  next: () => number,
  dtype: DType,
  inputs: number,
  rank: number,
  begins: number[],
  outputs: number[],
): { scale: number; begins: number[]; a: Tensor[]; b: Tensor[] } {
  const a = random(next, [begins.length * rank, inputs], dtype, 0.2);
  return {
    scale: 0.7,
    begins,
    a: begins.map((_, i) => a.narrow(0, i * rank, rank)),
    b: outputs.map((count) => random(next, [count, rank], dtype, 0.2)),
  };
}

const nativesOf = (adapters: ReturnType<typeof adapterOf>[]): Adapter[] =>
  adapters.map(({ a, b, ...rest }) => ({
    ...rest,
    a: a.map(({ native }) => native),
    b: b.map(({ native }) => native),
  }));

describe.each([
  [4, 2, 64, true],
  [3, 1, 48, false],
  [6, 6, 10, true],
] as const)('paged attention, %i/%i heads of %i, norms: %s', (queryHeads, keyHeads, dim, normed) => {
  each('sequences that share a prompt, across page edges', (dtype, next) => {
    // Page 7 holds the prompt of sequences 0 and 1; sequence 2 is alone.
    const pages = [
      [7, 2, 5],
      [7, 4],
      [0, 6, 3],
    ];
    const plans = [
      stepOf([[7], [7], [0, 6, 3]], [0, 0, 0], [16, 0, 40]),
      stepOf(pages, [16, 16, 40], [17, 1, 1]),
      stepOf(pages, [33, 17, 41], [1, 1, 1]),
      // A prompt that is in the cache: its last hidden state again, nothing is written.
      stepOf(pages, [33, 17, 41], [1, 1, 1], false),
    ].map((plan) => ({ ...plan, queryGroup: queryHeads / keyHeads }));
    const width = (queryHeads + 2 * keyHeads) * dim;
    const qkvs = plans.map((plan) => random(next, [plan.positions.length, width], dtype));
    const angles = random(next, [64, dim / 2], accumulate(dtype));
    const [cos, sin] = [operator('aten::cos', '', angles), operator('aten::sin', '', angles)];
    const [qNorm, kNorm] = [random(next, [dim], dtype), random(next, [dim], dtype)];
    // An adapter of q and v and one of k; the first row and the last are of neither.
    const inputs = 80;
    const [queries, keys] = [queryHeads * dim, keyHeads * dim];
    const adapters = [
      adapterOf(next, dtype, inputs, 8, [0, queries + keys], [queries, keys]),
      adapterOf(next, dtype, inputs, 4, [queries], [keys]),
    ];
    const xs = plans.map((plan) => random(next, [plan.positions.length, inputs], dtype));
    const rowsOf = (plan: RowPlan) => {
      const rows = plan.positions.length;
      return [1, rows - 2, rows - 2, rows - 1];
    };
    for (const [steps, adapted] of [
      [2, false],
      [3, true],
      [4, false],
      [4, true],
    ] as const) {
      const [a, b] = both((kernels) =>
        Tensor.wrap(
          kernels.pagedAttention({
            qkvs: qkvs.slice(0, steps).map((qkv) => qkv.native),
            plans: plans.slice(0, steps),
            layout: { queryHeads, keyHeads, dim },
            ...(normed ? { qNorm: qNorm.native, kNorm: kNorm.native } : {}),
            cos: cos.native,
            sin: sin.native,
            pages: 8,
            scale: 1 / Math.sqrt(dim),
            ...(adapted
              ? {
                  xs: xs.slice(0, steps).map((x) => x.native),
                  adapters: nativesOf(adapters),
                  adapterRows: plans.slice(0, steps).flatMap(rowsOf),
                }
              : {}),
          }),
        ),
      );
      expectClose(a, b, dtype, `${steps} steps, adapters: ${adapted}`);
    }
  });
});

describe('pages', () => {
  each('are copied, all at once, so that sequences write apart behind what they share', (dtype, next) => {
    // Sequences 0, 1 and 2 go on from the prompt of 20 tokens that ends on page 2, and 3 and 4 from that of page 5.
    const prompts = stepOf([[7, 2], [5]], [0, 0], [20, 3]);
    const shared = [[7, 2], [7, 4], [7, 0], [5], [3]];
    const samples = stepOf(shared, [20, 20, 20, 3, 3], [2, 2, 2, 2, 2]);
    const later = stepOf(shared, [22, 22, 22, 5, 5], [1, 1, 1, 1, 1]);
    const copies = Int32Array.of(2, 4, 5, 3, 2, 0);
    const layout = { queryHeads: 4, keyHeads: 2, dim: 32 };
    const width = (layout.queryHeads + 2 * layout.keyHeads) * layout.dim;
    const rows = (values: number[]) => {
      const all = random(next, [Math.max(...values) + 1, width], dtype);
      return operator('aten::index_select', '', all, 0, Tensor.from(BigInt64Array.from(values, BigInt)));
    };
    const qkvs = [
      rows(Array.from({ length: 23 }, (_, i) => i)),
      // The first sequence draws something else than the two that draw the same; of the other prompt's both draw the same.
      rows([0, 1, 2, 3, 2, 3, 4, 5, 4, 5]),
      rows([0, 0, 0, 1, 1]),
    ];
    const angles = random(next, [64, layout.dim / 2], accumulate(dtype));
    const [cos, sin] = [operator('aten::cos', '', angles), operator('aten::sin', '', angles)];
    const outcomes = both((kernels) =>
      Tensor.wrap(
        kernels.pagedAttention({
          qkvs: qkvs.map(({ native }) => native),
          plans: [prompts, { ...samples, copies }, later].map((plan) => ({ ...plan, queryGroup: 2 })),
          layout,
          cos: cos.native,
          sin: sin.native,
          pages: 8,
          scale: 1 / Math.sqrt(layout.dim),
        }),
      ),
    );
    expectClose(...outcomes, dtype, 'with copies');
    for (const out of outcomes) {
      const [first, second, third, fourth, fifth] = [0, 1, 2, 3, 4].map((i) => out.narrow(0, i, 1).toArray());
      expect(third).toEqual(second);
      expect(first).not.toEqual(second);
      expect(fifth).toEqual(fourth);
    }
  });
});

/** Begins and ends of the rows of so many adapters, one each. */
const oneEach = (count: number) => Array.from({ length: 2 * count }, (_, i) => Math.ceil(i / 2));

describe('adapters', () => {
  each('few and many rows of two adapters, fused parts', (dtype, next) => {
    for (const [inputs, rank, rows] of [
      [70, 3, [0, 5, 5, 12]],
      [96, 8, [2, 3, 3, 103]],
    ] as const) {
      const adapters = [0, 1].map(() => adapterOf(next, dtype, inputs, rank, [0, 60], [50, 33]));
      const x = random(next, [rows[3], inputs], dtype);
      const y = random(next, [rows[3], 100], dtype);
      const [a, b] = both((kernels) => {
        const sum = operator('aten::clone', '', y, 0);
        kernels.addLora(sum.native, x.native, nativesOf(adapters), [...rows]);
        return sum;
      });
      expectClose(a, b, dtype, `rank ${rank}`);
      expect(a.toArray()).not.toEqual(y.toArray());
    }
  });

  each('then the residual stream and its norm', (dtype, next) => {
    for (const [inputs, rank, size, rows] of [
      [70, 3, 100, [0, 5, 5, 12]], // what no kernel of CUDA's takes
      [96, 8, 256, [2, 9, 20, 40]], // rows of nobody before, between and behind
      [96, 8, 128, [9, 20, 2, 9]], // not in order
      [64, 16, 384, [0, 300, 300, 303]], // many rows
      [64, 8, 128, oneEach(48)], // as many adapters as one launch of CUDA's takes
      [64, 8, 128, oneEach(49)],
    ] as const) {
      const adapters = rows.flatMap((_, i) =>
        i % 2 === 0 ? [adapterOf(next, dtype, inputs, rank, [0], [size])] : [],
      );
      const count = Math.max(...rows) + 2;
      const x = random(next, [count, inputs], dtype);
      const [y, residual] = [random(next, [count, size], dtype), random(next, [count, size], dtype)];
      const weight = random(next, [size], dtype);
      const [a, b] = both((kernels) => {
        const [sum, stream] = [y, residual].map((from) => operator('aten::clone', '', from, 0)) as [
          Tensor,
          Tensor,
        ];
        const normed = kernels.adaptedRmsNorm(
          stream.native,
          sum.native,
          x.native,
          nativesOf(adapters),
          [...rows],
          weight.native,
          1e-6,
        );
        return operator('aten::cat', '', [stream, Tensor.wrap(normed)], 1);
      });
      expectClose(a, b, dtype, `${rows}`);
      const [plain] = both((kernels) => {
        const stream = operator('aten::clone', '', residual, 0);
        return Tensor.wrap(kernels.addRmsNorm(stream.native, y.native, weight.native, 1e-6).y);
      });
      expect(a.narrow(1, size, size).toArray()).not.toEqual(plain.toArray());
    }
  });

  each('of gate and up, then SwiGLU', (dtype, next) => {
    for (const [inputs, rank, size, rows] of [
      [70, 3, 33, [0, 5, 5, 12]], // what the CUDA kernels do not read eight at a time
      [96, 8, 72, [2, 9, 20, 40]], // rows of nobody before, between and behind
      [96, 8, 72, [9, 20, 2, 9]], // not in order
      [64, 16, 40, [0, 300, 300, 303]], // many rows
      [64, 8, 40, oneEach(26)], // two launches of CUDA's
    ] as const) {
      const adapters = rows.flatMap((_, i) =>
        i % 4 === 0
          ? [adapterOf(next, dtype, inputs, rank, [0, size], [size, size])]
          : i % 4 === 2
            ? [adapterOf(next, dtype, inputs, rank, [size], [size])]
            : [],
      );
      const count = Math.max(...rows) + 2;
      const x = random(next, [count, inputs], dtype);
      const gateUp = random(next, [count, 2 * size], dtype);
      const [a, b] = both((kernels) => {
        const sum = operator('aten::clone', '', gateUp, 0);
        return Tensor.wrap(kernels.adaptedSwiglu(sum.native, x.native, nativesOf(adapters), [...rows]));
      });
      expectClose(a, b, dtype, `${rows}`);
      const [plain] = both((kernels) => Tensor.wrap(kernels.swiglu(gateUp.native)));
      expect(a.toArray()).not.toEqual(plain.toArray());
    }
  });
});

describe('logits', () => {
  each('are wide, packed or not', (dtype, next) => {
    const hidden = random(next, [5, 64], dtype);
    const weight = random(next, [300, 64], dtype);
    const wide = accumulate(dtype);
    const expected = hidden.to(wide).matmul(weight.to(wide).transpose(0, 1));
    for (const repack of [true, false]) {
      const [a, b] = both((kernels) => Tensor.wrap(kernels.logits(hidden.native, weight.native, repack)));
      // Products of bf16 are exact in fp32: only the order of the sums differs.
      expectClose(a, expected, wide, `repack ${repack}`);
      expectClose(b, expected, wide, 'reference');
    }
  });
});

/** temperature, top-k, top-p, min-p */
const SAMPLINGS = [
  [1, 0, 1, 0],
  [0, 0, 1, 0],
  [0.7, 5, 1, 0],
  [1.3, 0, 0.8, 0],
  [1, 0, 1, 0.2],
  [0.9, 40, 0.9, 0.05],
  [1, 1, 1, 0],
  [2, 0, 0.999, 0],
];

it('takes tokens that the step before drew', () => {
  scope(() => {
    const samples = Tensor.from(Int32Array.of(7, -1, 9, 1, 2, 3), [2, 3]);
    for (const kernels of [fast, slow]) {
      const tokens = Tensor.from(Int32Array.of(5, -1, -3, 0, -2, -3));
      kernels.takeDrawn(samples.native, tokens.native);
      // Of a draw that gave nothing, whose sequence ends with an error, any token that there is.
      expect(Array.from(tokens.toArray())).toEqual([5, 7, 9, 0, 0, 9]);
    }
  });
});

describe('the sampler', () => {
  each('draws the reference’s tokens', (dtype, next) => {
    if (dtype === 'bfloat16') return; // logits are wide
    for (const vocabulary of [37, 1000, 5003]) {
      const outputs = 6;
      const logits = random(next, [outputs, vocabulary], dtype, 3);
      const count = 240;
      const draws = integers(next, count, outputs).sort((a, b) => a - b);
      const plan: RowPlan = {
        ...stepOf([[0]], [0], [outputs]),
        outputs: Int32Array.from({ length: outputs }, (_, i) => i),
        draws: Int32Array.from(draws),
        uniforms: Float64Array.from(draws, () => next()),
        sampling: Float64Array.from(draws.flatMap((_, i) => SAMPLINGS[i % SAMPLINGS.length] as number[])),
      };
      const sample = (kernels: typeof fast) => {
        const samples = Tensor.wrap(kernels.sample(logits.native, plan));
        const words = Int32Array.from(samples.toArray());
        return { ids: words.slice(0, count), logprobs: new Float32Array(words.buffer, 4 * count) };
      };
      const [a, b] = [sample(fast), sample(slow)];
      expect(a.ids).toEqual(b.ids);
      const worst = Math.max(...a.logprobs.map((x, i) => Math.abs(x - (b.logprobs[i] as number))));
      expect(worst).toBeLessThan(1e-5);
      expect(new Set(a.ids).size).toBeGreaterThan(10);
    }
  });

  it('says −1 where logits are not finite', () =>
    scope(() => {
      const logits = Tensor.from(new Float32Array(20).fill(Number.NaN), [1, 20]);
      const plan: RowPlan = {
        ...stepOf([[0]], [0], [1]),
        outputs: Int32Array.of(0),
        draws: Int32Array.of(0, 0),
        uniforms: Float64Array.of(0.5, 0.5),
        sampling: Float64Array.of(1, 0, 1, 0, 1, 3, 0.9, 0),
      };
      for (const kernels of [fast, slow]) {
        const ids = Array.from(Tensor.wrap(kernels.sample(logits.native, plan)).toArray()).slice(0, 2);
        expect(ids).toEqual([-1, -1]);
      }
    }));
});

it('draws follow the distribution that the filters leave', () =>
  scope(() => {
    const logits = Tensor.from(Float32Array.from([2, 1, 0, -1]), [1, 4]);
    const count = 4000;
    const next = generator(4);
    const plan: RowPlan = {
      ...stepOf([[0]], [0], [1]),
      outputs: Int32Array.of(0),
      draws: new Int32Array(count),
      uniforms: Float64Array.from({ length: count }, () => next()),
      sampling: Float64Array.from(Array.from({ length: count }, () => [1, 2, 1, 0]).flat()),
    };
    const ids = Array.from(Tensor.wrap(fast.sample(logits.native, plan)).toArray()).slice(0, count);
    const share = ids.filter((id) => id === 0).length / count;
    expect(ids.every((id) => id === 0 || id === 1)).toBe(true);
    expect(Math.abs(share - 1 / (1 + Math.exp(-1)))).toBeLessThan(0.03);
  }));
