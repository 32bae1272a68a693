/**
 * Shares of the optimizer's step: parts of the parameters' change that groups, momentum and weight decay make, held
 * against the change itself and against AdamW's formula written out in fp64.
 */
import { describe, expect, it } from 'vitest';
import { AdamW } from '../../src/engine/optimizer.js';
import { scope } from '../../src/engine/scope.js';
import { Tensor } from '../../src/engine/tensor.js';
import {
  addon,
  backward,
  checkTensorsAreFreed,
  keep,
  randomBase,
  read,
  tinyConfig,
} from '../model/support.js';

checkTensorsAreFreed();

const GROUPS = 3;
const SETTINGS = { learningRate: 3e-3, beta1: 0.9, beta2: 0.99, eps: 1e-7, weightDecay: 0.1 };
const CLIP = 0.37;
const COEFFICIENTS = Float64Array.of(1, 0.5, -0.25, 0.7);

const sum = (values: ArrayLike<number>) => Array.from(values).reduce((total, value) => total + value, 0);

describe.each(['float64', 'float32'] as const)('%s', (dtype) => {
  const tolerance = dtype === 'float64' ? 1e-9 : 1e-4;
  const trained = randomBase(tinyConfig({ layers: 2 }), dtype, 3);
  const policy = keep(addon.createPolicy(tinyConfig({ layers: 2 }), trained));
  const { decaySize, size } = trained;
  const ranges = (flat: Tensor): [Tensor, Tensor] => [
    flat.narrow(0, 0, decaySize),
    flat.narrow(0, decaySize, size - decaySize),
  ];
  const [decayed, plain] = scope(() => ranges(Tensor.wrap(trained.master())));
  const optimizer = keep(
    new AdamW(
      [
        { parameters: [decayed], learningRate: SETTINGS.learningRate, weightDecay: SETTINGS.weightDecay },
        { parameters: [plain], learningRate: SETTINGS.learningRate },
      ],
      { betas: [SETTINGS.beta1, SETTINGS.beta2], eps: SETTINGS.eps },
    ),
  );
  keep(decayed);
  keep(plain);
  const extra = keep(
    Tensor.from(
      Float64Array.from({ length: size }, (_, i) => 0.01 * Math.sin(i)),
      [size],
      { dtype },
    ),
  );

  function accumulate(seed: number): void {
    const calls = Array.from({ length: 6 }, (_, i) => ({
      prompt: Int32Array.of(3, 1, 4 + seed),
      response: Int32Array.of(10 + i, 20 + seed, 7 * i + 2),
      group: i % GROUPS,
    }));
    const batch = keep(addon.pack(calls, GROUPS, true));
    trained.beginGradients(GROUPS);
    backward(
      policy,
      batch,
      Array.from({ length: 18 }, (_, i) => Math.sin(1 + i + seed)),
    );
  }

  const stepped = (keepTotal = false) =>
    optimizer.stepParameters(trained, COEFFICIENTS, [extra], { clip: CLIP, measure: true, keepTotal });

  it.each([1, 2, 3])('of step %i sum to the squared length of the change', (step) => {
    accumulate(step);
    const before = Float64Array.from(read(keep(trained.master())));
    const sources = Array.from({ length: GROUPS }, (_, k) => read(keep(trained.gradient(k))));
    sources.push(read(extra.native));
    const version = trained.version;
    const { products: shares, squaredNorm } = stepped(true);
    expect([optimizer.stepCount, trained.version]).toEqual([step, version + 1]);
    const after = read(keep(trained.master()));
    for (const [p, { offset, size: length, name }] of trained.parameters.entries()) {
      let square = 0;
      for (let i = offset; i < offset + length; i++)
        square += ((after[i] as number) - (before[i] as number)) ** 2;
      const width = GROUPS + 3;
      const row = sum(shares.subarray(p * width, (p + 1) * width));
      expect(Math.abs(row - square), name).toBeLessThan(tolerance * square + 1e-30);
    }
    const total = Array.from({ length: size }, (_, i) =>
      sum(sources.map((source, j) => (COEFFICIENTS[j] as number) * (source[i] as number))),
    );
    const norm = sum(total.map((value) => value * value));
    expect(Math.abs(squaredNorm - norm)).toBeLessThan(1e-6 * norm);
    const kept = read(keep(trained.gradient(0)));
    const largest = Math.max(...total.map(Math.abs));
    const worst = Math.max(...total.map((value, i) => Math.abs(value - (kept[i] as number))));
    expect(worst).toBeLessThan(1e-6 * largest);
  });

  it('refuses what is not the set that it steps', () => {
    const other = keep(new AdamW([{ parameters: [decayed], learningRate: 1 }]));
    accumulate(5);
    const options = { clip: 1, measure: true, keepTotal: false };
    expect(() => other.stepParameters(trained, COEFFICIENTS, [extra], options)).toThrow(/two groups/);
    const elsewhere = randomBase(tinyConfig({ layers: 2 }), dtype, 4);
    elsewhere.beginGradients(GROUPS);
    expect(() => optimizer.stepParameters(elsewhere, COEFFICIENTS, [extra], options)).toThrow(
      /are not the flat vector/,
    );
    expect(optimizer.stepCount).toBe(3);
  });

  it('of each source are those of the formula', () => {
    accumulate(7);
    const step = 4;
    const [m, v] = scope(() => {
      const state = optimizer.state();
      const flat = (name: string) =>
        Float64Array.from([0, 1].flatMap((range) => (state[`${range}.${name}`] as Tensor).toArray()));
      return [flat('exp_avg'), flat('exp_avg_sq')] as const;
    });
    const theta = Float64Array.from(read(keep(trained.master())));
    const sources = Array.from({ length: GROUPS }, (_, k) => read(keep(trained.gradient(k))));
    sources.push(read(extra.native));
    const { products: shares } = stepped();
    const { learningRate, beta1, beta2, eps, weightDecay } = SETTINGS;
    for (const [p, { offset, size: length, decay, name }] of trained.parameters.entries()) {
      const expected = new Array<number>(GROUPS + 3).fill(0);
      for (let i = offset; i < offset + length; i++) {
        const parts = sources.map((source, j) => CLIP * (COEFFICIENTS[j] as number) * (source[i] as number));
        const g = sum(parts);
        const denominator =
          Math.sqrt((beta2 * (v[i] as number) + (1 - beta2) * g * g) / (1 - beta2 ** step)) + eps;
        const scale = -learningRate / ((1 - beta1 ** step) * denominator);
        const pieces = [
          ...parts.map((part) => scale * (1 - beta1) * part),
          scale * beta1 * (m[i] as number),
          decay ? -learningRate * weightDecay * (theta[i] as number) : 0,
        ];
        const change = sum(pieces);
        pieces.forEach((piece, j) => {
          expected[j] = (expected[j] as number) + piece * change;
        });
      }
      const width = GROUPS + 3;
      const actual = shares.subarray(p * width, (p + 1) * width);
      const size = sum(expected.map(Math.abs));
      actual.forEach((value, j) => {
        expect(Math.abs(value - (expected[j] as number)), `${name} ${j}`).toBeLessThan(1e-9 * size);
      });
    }
  });
});
