/** Token log-probabilities: against their twin, and against log-softmax under autograd. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { scope } from '../../src/engine/scope.js';
import { liveTensors, operator, Tensor } from '../../src/engine/tensor.js';
import {
  accumulate,
  both,
  each,
  entriesOf,
  expectClose,
  fast,
  generator,
  int64,
  integers,
  type Kernels,
  random,
  slow,
  wrap,
} from './kernels.js';

let before = 0;
beforeAll(() => {
  before = liveTensors();
});
afterAll(() => {
  expect(liveTensors()).toBe(before);
});

const ROWS = 300;
const GROUPS = [0, 120, 120, ROWS];

for (const [size, vocabulary, withEntropy] of [
  [70, 1001, true],
  [64, 1024, false],
  [96, 130, true],
] as const) {
  each(
    `against the twin, ${size} → ${vocabulary}, ${withEntropy ? 'with' : 'no'} entropy gradient`,
    (dtype, next) => {
      const hidden = random(next, [ROWS, size], dtype).native;
      const weight = random(next, [vocabulary, size], dtype, 0.2).native;
      // Repeated rows, as where one prompt row predicts the first token of every sample; and rows without entries.
      const drawn = integers(next, 260, ROWS).concat(new Array(9).fill(40), new Array(3).fill(299));
      const rows = drawn.sort((a, b) => a - b);
      // Calls of different temperatures meet in one row.
      const temperatures = rows.map((_, i) => [0.7, 0.7, 1.3][i % 3] as number);
      const entries = entriesOf(rows, integers(next, drawn.length, vocabulary), temperatures);
      const [a, b] = both((k) => wrap(k.tokenLogprobs(hidden, weight, entries)));
      for (const name of ['logprobs', 'entropy', 'logsumexp'] as const) {
        expectClose(a[name], b[name], dtype === 'bfloat16' ? 'float32' : dtype, name);
      }
      const wide = accumulate(dtype);
      const gradLogprobs = random(next, [drawn.length], wide).native;
      const gradEntropy = withEntropy ? random(next, [drawn.length], wide).native : undefined;
      for (const hiddenDtype of new Set([wide, dtype])) {
        const [ga, gb] = both((k) => {
          const sums = [0, 1, 2].map(() => Tensor.ones([vocabulary, size], { dtype: wide }));
          const gradHidden = Tensor.ones([ROWS, size], { dtype: hiddenDtype });
          k.tokenLogprobsBackward({
            gradLogprobs,
            ...(gradEntropy ? { gradEntropy } : {}),
            logprobs: b.logprobs.native,
            entropy: b.entropy.native,
            logsumexp: b.logsumexp.native,
            hidden,
            weight,
            entries,
            groups: GROUPS,
            gradHidden: gradHidden.native,
            gradWeight: sums.map((sum) => sum.native),
          });
          return [gradHidden, ...sums];
        });
        ga.forEach((tensor, i) => {
          expectClose(tensor, gb[i] as Tensor, dtype, `gradient ${i}`);
        });
      }
    },
  );
}

it('one entry, and none', () =>
  scope(() => {
    const next = generator(5);
    const hidden = random(next, [3, 8], 'float64').native;
    const weight = random(next, [5, 8], 'float64').native;
    const [a, b] = both((k) => wrap(k.tokenLogprobs(hidden, weight, entriesOf([2], [4], 1))));
    expectClose(a.logprobs, b.logprobs, 'float64');
    expect(wrap(fast.tokenLogprobs(hidden, weight, entriesOf([], [], 1))).logprobs.shape).toEqual([0]);
  }));

it('equals log-softmax and its entropy under autograd to 1e-10', () =>
  scope(() => {
    const next = generator(9);
    const [rowCount, size, vocabulary] = [20, 33, 77];
    const hidden = random(next, [rowCount, size], 'float64').setRequiresGrad(true);
    const weight = random(next, [vocabulary, size], 'float64').setRequiresGrad(true);
    const entries = entriesOf(
      [0, 0, 0, 3, 4, 4, 19],
      [5, 5, 76, 0, 1, 2, 3],
      [1.3, 1.3, 0.5, 1.3, 1, 2, 1.3],
    );
    const [rows, targets] = [int64(entries.rows), int64(entries.targets)];
    const temperatures = Tensor.from(entries.temperatures, [7, 1]);
    const gradLogprobs = random(next, [7], 'float64');
    const gradEntropy = random(next, [7], 'float64');
    const logits = hidden.indexSelect(0, rows).matmul(weight.transpose(0, 1)).div(temperatures);
    const logSoftmax = operator('aten::log_softmax', 'int', logits, -1);
    const logprobs = logSoftmax.gather(1, targets.unsqueeze(1)).squeeze(1);
    const entropy = logSoftmax.exp().mul(logSoftmax).sum(1).neg();
    logprobs.mul(gradLogprobs).add(entropy.mul(gradEntropy)).sum().backward();

    const [h, w] = [hidden.detach().native, weight.detach().native];
    const forward = wrap(fast.tokenLogprobs(h, w, entries));
    const gradHidden = Tensor.zeros([rowCount, size], { dtype: 'float64' });
    const gradWeight = Tensor.zeros([vocabulary, size], { dtype: 'float64' });
    fast.tokenLogprobsBackward({
      gradLogprobs: gradLogprobs.native,
      gradEntropy: gradEntropy.native,
      logprobs: forward.logprobs.native,
      entropy: forward.entropy.native,
      logsumexp: forward.logsumexp.native,
      hidden: h,
      weight: w,
      entries,
      groups: [0, rowCount],
      gradHidden: gradHidden.native,
      gradWeight: [gradWeight.native],
    });
    const most = (a: Tensor, b: Tensor) => a.sub(b).abs().max().item();
    expect(most(forward.logprobs, logprobs.detach())).toBeLessThan(1e-10);
    expect(most(forward.entropy, entropy.detach())).toBeLessThan(1e-10);
    expect(most(gradHidden, hidden.grad as Tensor)).toBeLessThan(1e-10);
    expect(most(gradWeight, weight.grad as Tensor)).toBeLessThan(1e-10);
  }));

it('a fresh gradient of the head is overwritten, and only by the first of its chunks', () =>
  scope(() => {
    const next = generator(11);
    const [rows, size, vocabulary, count] = [40, 8, 33, 2300];
    const hidden = random(next, [rows, size], 'bfloat16').native;
    const weight = random(next, [vocabulary, size], 'bfloat16', 0.3).native;
    // Groups without rows, without entries, and with more entries than a chunk has.
    const groups = [0, 30, 35, 40, 40];
    const drawn = integers(next, count, 29)
      .concat(integers(next, 5, 5).map((row) => 35 + row))
      .sort((a, b) => a - b);
    const entries = entriesOf(drawn, integers(next, drawn.length, vocabulary), 1);
    const forward = wrap(slow.tokenLogprobs(hidden, weight, entries));
    const gradLogprobs = random(next, [drawn.length], 'float32').native;
    const gradients = (kernels: Kernels, held: number, fresh: number[]) => {
      const sums = groups.slice(1).map(() => Tensor.ones([vocabulary, size]).mul(held));
      kernels.tokenLogprobsBackward({
        gradLogprobs,
        ...{ logprobs: forward.logprobs.native, entropy: forward.entropy.native },
        ...{ logsumexp: forward.logsumexp.native, hidden, weight, entries, groups, fresh },
        gradHidden: Tensor.zeros([rows, size]).native,
        gradWeight: sums.map(({ native }) => native),
      });
      return sums;
    };
    const expected = gradients(slow, 0, [0, 0, 0, 0]);
    for (const kernels of [fast, slow]) {
      gradients(kernels, Number.NaN, [1, 1, 1, 1]).forEach((sum, k) => {
        expectClose(sum, expected[k] as Tensor, 'bfloat16', `group ${k}`);
      });
    }
    expect((expected[0] as Tensor).abs().max().item()).toBeGreaterThan(1);
  }));
