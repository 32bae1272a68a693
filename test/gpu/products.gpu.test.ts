/**
 * Products of decode steps by the way that was measured to be the fastest, of a GPU's library: what libtorch's linear gives, to
 * bf16's rounding, in steps that are launched and in those that are replayed; each size measured once.
 */
import { afterEach, expect, it } from 'vitest';
import type { RolloutOptions } from '../../src/engine/native.js';
import { scope } from '../../src/engine/scope.js';
import { operator, Tensor } from '../../src/engine/tensor.js';
import { generator, random } from '../kernels/kernels.js';
import { measured, productKernels } from '../kernels/products.js';
import { maxDifference, request, run, text, tinyConfig, Workshop } from '../rollout/tiny.js';
import { device } from './device.js';

const workshop = new Workshop();
afterEach(() => workshop.dispose());

/** On a processor the test tries itself out: there the kernels know one way alone. */
const onGpu = device !== 'cpu';
const name = onGpu ? 'cuda' : 'cpu';

/** Inputs and outputs of a layer of the 0.6B shape with an adapter of rank 16: qkv, o, gate_up, down. */
const SHAPES: [inputs: number, outputs: number][] = [
  [1024, 4096 + 48],
  [2048, 1024 + 16],
  [1024, 6144 + 32],
  [3072, 1024 + 16],
];

const squares = (x: Tensor) => x.toArray().reduce((sum: number, value) => sum + Number(value) ** 2, 0);

it.each([1, 8, 32, 256])('%i rows by weights of a layer: as by linear', (rows) => {
  const kernels = productKernels(name);
  for (const [inputs, outputs] of SHAPES) {
    scope(() => {
      const next = generator(rows);
      const on = (x: Tensor) => x.toDevice(device);
      const x = on(random(next, [rows, inputs], 'bfloat16'));
      // One that is drawn, and others of it: drawing takes long.
      const weight = on(random(next, [outputs, inputs], 'bfloat16', 0.05));
      const weights = [weight, ...[2, 3, 4].map((n) => operator('aten::roll', '', weight, [n], [0]))];
      const alike = weights.map(({ native }) => native);
      for (const one of weights) {
        const wanted = Tensor.wrap(kernels.linear(x.native, one.native));
        const got = Tensor.wrap(kernels.recurringLinear(x.native, one.native, alike));
        expect(got.shape).toEqual([rows, outputs]);
        const scale = Math.sqrt(squares(wanted) / (rows * outputs));
        const a = got.toArray() as ArrayLike<number>;
        const b = wanted.toArray() as ArrayLike<number>;
        expect(maxDifference(a, b)).toBeLessThan(0.1 * scale); // bf16's last bit of five times the root mean square
      }
    });
  }
  const seen = kernels.measuredProducts().filter((product) => product.rows === rows);
  kernels.dispose();
  if (!onGpu) return;
  expect(seen.length).toBe(SHAPES.length);
  for (const product of seen) {
    expect(product.offered).toBeGreaterThan(0);
    expect(product.wrong, JSON.stringify(product)).toBe(0);
    expect(product.usual).toBeGreaterThan(0);
    expect(product.taken).toBeLessThanOrEqual(product.usual);
  }
});

it('rollouts draw what they draw by the usual products, and measure no size twice', () => {
  const config = tinyConfig({ headDim: 64, hiddenSize: 256, heads: 8, intermediateSize: 768 });
  const policy = workshop.policy(config, 'bfloat16');
  const draw = (options: Partial<RolloutOptions>) => {
    const engine = workshop.engine(config, options);
    const calls = Array.from({ length: 20 }, (_, i) =>
      request(policy, text(i, 5 + i), {
        maxTokens: 24 + (i % 7),
        temperature: 0.5,
        counter: [0, i, 0, 0, 0],
      }),
    );
    return run(engine, calls);
  };
  const ours = draw({});
  const before = measured(name);
  if (onGpu) expect(before.filter(({ inputs }) => inputs === 768).length).toBeGreaterThan(1);
  const again = draw({});
  expect(measured(name)).toEqual(before);
  const theirs = draw({ measureProducts: false });
  expect(again).toMatchObject(ours.map(({ ids }) => ({ ids })));
  // Where rounding moves an edge between two tokens, a call goes on differently.
  const same = ours.filter(({ ids }, i) => ids.every((token, t) => token === theirs[i]?.ids[t]));
  expect(same.length).toBeGreaterThanOrEqual(0.8 * ours.length);
  for (const [i, { ids, logprobs }] of ours.entries()) {
    const other = theirs[i];
    const end = ids.findIndex((token, t) => token !== other?.ids[t]);
    const shared = end < 0 ? ids.length : end;
    expect(maxDifference(logprobs.slice(0, shared), other?.logprobs.slice(0, shared) ?? [])).toBeLessThan(
      0.1,
    );
  }
});
