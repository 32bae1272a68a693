/** The optimizers against torch.optim's own steps (test/golden/optimizers.py), and what bfloat16 parameters need. */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AdamW, clipGradNorm, type ParameterGroup, SGD } from '../../src/engine/optimizer.js';
import { scope } from '../../src/engine/scope.js';
import { liveTensors, Tensor } from '../../src/engine/tensor.js';

type Values = number[][];
type Precision = 'float32' | 'float64';
interface Golden {
  shapes: number[][];
  parameters: Values;
  gradients: Values[];
  adamw: Record<Precision, Values[]>;
  adamw_skip: Values[];
  sgd: Record<Precision, Values[]>;
  clip: { maximum: number; norm: number; gradients: Values }[];
}
const golden: Golden = JSON.parse(
  readFileSync(new URL('../golden/optimizers.json', import.meta.url), 'utf8'),
);

let before = 0;
beforeAll(() => {
  before = liveTensors();
});
afterAll(() => {
  expect(liveTensors()).toBe(before);
});
const check = (name: string, body: () => void) => it(name, () => scope(body));

const tensors = (values: Values, dtype: Precision) =>
  values.map((row, i) => Tensor.from(Float64Array.from(row), golden.shapes[i], { dtype }));

function groups([first, second]: Tensor[]): ParameterGroup[] {
  return [
    { parameters: [first as Tensor], learningRate: 1e-2, weightDecay: 0.1 },
    { parameters: [second as Tensor], learningRate: 3e-3 },
  ];
}

function expectClose(actual: Tensor[], expected: Values | undefined, precision: Precision): void {
  for (const [i, tensor] of actual.entries()) {
    const digits = precision === 'float64' ? 13 : 6;
    for (const [j, value] of tensor.toArray().entries()) {
      expect(value).toBeCloseTo(expected?.[i]?.[j] ?? Number.NaN, digits);
    }
  }
}

describe.each(['float32', 'float64'] as const)('%s', (precision) => {
  check('AdamW with two groups follows torch.optim.AdamW', () => {
    const parameters = tensors(golden.parameters, precision);
    using optimizer = new AdamW(groups(parameters), { betas: [0.9, 0.95] });
    for (const [step, gradients] of golden.gradients.entries()) {
      optimizer.stepWith(tensors(gradients, precision));
      expectClose(parameters, golden.adamw[precision][step], precision);
    }
    expect(optimizer.stepCount).toBe(5);
  });

  check('SGD with momentum and weight decay follows torch.optim.SGD', () => {
    const parameters = tensors(golden.parameters, precision);
    using optimizer = new SGD([{ parameters, learningRate: 1e-2, weightDecay: 0.1 }], { momentum: 0.9 });
    for (const [step, gradients] of golden.gradients.entries()) {
      optimizer.stepWith(tensors(gradients, precision));
      expectClose(parameters, golden.sgd[precision][step], precision);
    }
  });
});

describe('gradients', () => {
  check('come from .grad; a parameter without one is left alone, its bias correction too', () => {
    const parameters = tensors(golden.parameters, 'float64').map((tensor) => tensor.setRequiresGrad(true));
    using optimizer = new AdamW(groups(parameters), { betas: [0.9, 0.95] });
    for (const [step, gradients] of golden.gradients.entries()) {
      optimizer.zeroGrad();
      for (const [i, gradient] of tensors(gradients, 'float64').entries()) {
        if (step !== 1 || i !== 1) parameters[i]?.backward(gradient);
      }
      optimizer.step();
      expectClose(parameters, golden.adamw_skip[step], 'float64');
    }
    optimizer.zeroGrad();
    expect(parameters[0]?.grad).toBeUndefined();
  });

  check('are clipped by their common norm, as torch does', () => {
    for (const { maximum, norm, gradients } of golden.clip) {
      const clipped = tensors(golden.gradients[0] as Values, 'float64');
      expect(clipGradNorm(clipped, maximum)).toBeCloseTo(norm, 12);
      expectClose(clipped, gradients, 'float64');
    }
  });

  check('with a norm that is not finite are not scaled; Infinity only measures', () => {
    const bad = Tensor.from([1, Number.NaN]);
    expect(clipGradNorm([bad], 1)).toBeNaN();
    expect(bad.toArray()[0]).toBe(1);
    const large = Tensor.from([3, 4]);
    expect(clipGradNorm([large], Number.POSITIVE_INFINITY)).toBe(5);
    expect(large.toArray()).toEqual([3, 4]);
  });

  check('a norm over many elements is summed in fp64', () => {
    const ones = Tensor.ones([3_000_001]);
    expect(clipGradNorm([ones], Number.POSITIVE_INFINITY)).toBeCloseTo(Math.sqrt(3_000_001), 4);
  });
});

describe('bfloat16 parameters', () => {
  check('move at a learning rate of 1e-6, as the master does', () => {
    const parameter = Tensor.from([1, -2], [2], { dtype: 'bfloat16' });
    using optimizer = new AdamW([{ parameters: [parameter], learningRate: 1e-6 }]);
    const gradient = Tensor.from([1, -1]);
    for (let i = 0; i < 100; i++) scope(() => optimizer.stepWith([gradient]));
    const master = optimizer.state()['0.master'] as Tensor;
    expect(master.dtype).toBe('float32');
    expect(master.toArray()[0]).toBeCloseTo(1 - 1e-4, 5);
    for (let i = 0; i < 4000; i++) scope(() => optimizer.stepWith([gradient]));
    // 4.1e-3 is one unit in bfloat16's last place below 1 (2^-8).
    expect(parameter.toArray()[0]).toBe(1 - 2 ** -8);
    expect(parameter.toArray()[0]).toBe(master.to('bfloat16').toArray()[0]);
  });
});

describe('state', () => {
  const rates = { learningRate: 1e-2, weightDecay: 0.1 };

  it.each(['float32', 'bfloat16'] as const)('of %s parameters continues bit for bit', (dtype) => {
    scope(() => {
      const [whole, resumed] = [0, 0].map(() => Tensor.from([1, 2, 3], [3], { dtype })) as [Tensor, Tensor];
      const gradient = (step: number) => Tensor.from([Math.sin(step), Math.cos(step), 0.1 * step]);
      using reference = new AdamW([{ parameters: [whole], ...rates }]);
      for (let step = 0; step < 3; step++) reference.stepWith([gradient(step)]);
      const saved = Object.fromEntries(Object.entries(reference.state()).map(([k, v]) => [k, v.clone()]));
      resumed.copy_(whole);
      for (let step = 3; step < 6; step++) reference.stepWith([gradient(step)]);

      using optimizer = new AdamW([{ parameters: [resumed], ...rates }]);
      optimizer.loadState(saved, 3);
      expect(optimizer.stepCount).toBe(3);
      for (let step = 3; step < 6; step++) optimizer.stepWith([gradient(step)]);
      expect(resumed.data()).toEqual(whole.data());
      const ends = Object.entries(optimizer.state()).map(([k, v]) => [k, v.data()]);
      expect(ends).toEqual(Object.entries(reference.state()).map(([k, v]) => [k, v.data()]));
    });
  });

  check('is empty before the first step, and an empty one starts anew', () => {
    const parameter = Tensor.from([1]);
    using optimizer = new AdamW([{ parameters: [parameter], ...rates }]);
    expect(optimizer.state()).toEqual({});
    optimizer.stepWith([Tensor.from([1])]);
    expect(Object.keys(optimizer.state())).toEqual(['0.exp_avg', '0.exp_avg_sq', '0.step']);
    optimizer.loadState({}, 0);
    expect(optimizer.state()).toEqual({});
  });
});

describe('errors', () => {
  const parameter = () => Tensor.from([1, 2]);
  const make = (tensor: Tensor, learningRate = 1, weightDecay = 0) =>
    new AdamW([{ parameters: [tensor], learningRate, weightDecay }]);
  const steps = (gradients: Tensor[]) => make(parameter()).stepWith(gradients);
  const state = (value: Record<string, Tensor>) => make(parameter()).loadState(value, 1);
  const nan = Number.NaN;
  const cases: [string, () => unknown, RegExp][] = [
    ['a gradient of another shape', () => steps([Tensor.from([1])]), /group 0.*parameter 0.*\[1\].*\[2\]/],
    ['too many gradients', () => steps([parameter(), parameter()]), /1 parameters but 2 gradients/],
    ['no gradients', () => steps([]), /one gradient for every parameter/],
    ['an integer gradient', () => steps([Tensor.from(new Int32Array(2))]), /type/],
    [
      'a disposed gradient',
      () => {
        const x = parameter();
        x.dispose();
        steps([x]);
      },
      /gradients\[0\] was disposed/,
    ],
    ['an integer parameter', () => make(Tensor.from(new Int32Array(2))), /cannot be trained/],
    ['a result as a parameter', () => make(parameter().setRequiresGrad(true).mul(1)), /leaf/],
    ['a parameter that is not contiguous', () => make(Tensor.ones([2, 2]).transpose(0, 1)), /contiguous/],
    [
      'a parameter given twice',
      () => {
        const x = parameter();
        new AdamW([{ parameters: [x, x], learningRate: 1 }]);
      },
      /twice/,
    ],
    ['a negative learning rate', () => make(parameter(), -1), /learning rate must be 0 or more/],
    ['a NaN learning rate', () => make(parameter()).setLearningRate(nan), /learning rate must be 0 or more/],
    ['a NaN weight decay', () => make(parameter(), 1, nan), /weight decay must be 0 or more/],
    ['an unknown group', () => make(parameter()).setLearningRate(1, 1), /no group 1 among 1/],
    ['impossible betas', () => new AdamW([], { betas: [1, 0.9] }), /betas must lie/],
    ['an impossible momentum', () => new SGD([], { momentum: 1 }), /momentum must lie/],
    ['an impossible maximum', () => clipGradNorm([], 0), /maxNorm must be more than 0/],
    ['an incomplete state', () => state({ '0.step': Tensor.scalar(1) }), /parameter 0 is incomplete/],
    ['a foreign state', () => state({ '7.step': Tensor.scalar(1) }), /1 tensors, of which 0/],
    ['a state of another shape', () => state({ '0.exp_avg': Tensor.from([1]) }), /0\.exp_avg has the shape/],
    [
      'a disposed optimizer',
      () => {
        const x = make(parameter());
        x.dispose();
        x.step();
      },
      /Optimizer was disposed/,
    ],
  ];
  it.each(cases)('%s', (_, action, message) => {
    expect(() => scope(action)).toThrow(message);
  });
});
