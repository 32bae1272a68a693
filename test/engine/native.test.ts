/** The boundary itself: a wrong call must end as an Error that says what was wrong, never as a crash. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { native } from '../../src/engine/native.js';
import type { NativeTensor } from '../../src/engine/native-model.js';
import { tinyConfig } from '../model/support.js';

const addon = native();
let before = 0;
const held: NativeTensor[] = [];

function keep<T extends NativeTensor>(tensor: T): T {
  held.push(tensor);
  return tensor;
}

beforeAll(() => {
  before = addon.liveTensors();
});
afterAll(() => {
  for (const tensor of held) tensor.dispose();
  expect(addon.liveTensors()).toBe(before);
});

const vector = (...values: number[]) =>
  keep(addon.tensor(new Float32Array(values), [values.length], 'float32', 'cpu'));
const call = (name: string, overload: string, ...args: unknown[]) =>
  keep(addon.call(`aten::${name}`, overload, args) as NativeTensor);

it('says what is missing where libtorch has no CUDA, or no driver is there', () => {
  const library = /\S+libtorch_cpu\.so/.exec(readFileSync('/proc/self/maps', 'utf8'))?.[0] ?? '';
  const folder = dirname(library);
  if (!existsSync(join(folder, 'libtorch_cuda.so'))) {
    const why = `this libtorch has no CUDA (there is no libtorch_cuda.so in ${folder}).`;
    expect(addon.cudaProblems()).toEqual({ device: why });
    expect(addon.cudaDevices()).toEqual([]);
  } else if (addon.cudaDevices().length === 0) {
    expect(addon.cudaProblems()).toEqual({
      device: expect.stringMatching(/^there is no NVIDIA driver \(.*\)\.$/),
    });
  } else {
    expect(addon.cudaProblems()).toEqual({});
  }
});

describe('creation and reading', () => {
  it.each([
    ['float64', new Float64Array([1.5, -2, 1e300])],
    ['float32', new Float32Array([1.5, -2, 3])],
    ['int64', new BigInt64Array([1n, -2n, 9007199254740993n])],
    ['int32', new Int32Array([1, -2, 2147483647])],
    ['uint8', new Uint8Array([1, 2, 255])],
  ] as const)('%s comes back as it went in', (dtype, data) => {
    const tensor = keep(addon.tensor(data, [3], dtype, 'cpu'));
    expect(tensor.dtype).toBe(dtype);
    expect(tensor.device).toBe('cpu');
    expect(addon.read(tensor)).toEqual(data);
  });

  it.each(['bfloat16', 'float16'] as const)('%s is read as float32', (dtype) => {
    const tensor = keep(addon.tensor(new Float32Array([1, 0.5, -3]), [3], dtype, 'cpu'));
    expect(tensor.dtype).toBe(dtype);
    expect(addon.read(tensor)).toEqual(new Float32Array([1, 0.5, -3]));
  });

  it('bool is read as bytes, and reading copies', () => {
    const flags = keep(addon.tensor(new Uint8Array([0, 1, 7]), [3], 'bool', 'cpu'));
    expect(addon.read(flags)).toEqual(new Uint8Array([0, 1, 1]));
    const data = new Float32Array([1, 2]);
    const tensor = keep(addon.tensor(data, [2], 'float32', 'cpu'));
    data[0] = 9;
    (addon.read(tensor) as Float32Array)[1] = 9;
    expect(addon.read(tensor)).toEqual(new Float32Array([1, 2]));
  });

  it('takes a view into the middle of a buffer, empty tensors and scalars', () => {
    const whole = new Float32Array([0, 1, 2, 3]);
    expect(addon.read(keep(addon.tensor(whole.subarray(1, 3), [2], 'float32', 'cpu')))).toEqual(
      new Float32Array([1, 2]),
    );
    const empty = keep(addon.tensor(new Float32Array(0), [0, 4], 'float32', 'cpu'));
    expect(empty.shape).toEqual([0, 4]);
    expect(addon.read(empty).length).toBe(0);
    expect(keep(addon.tensor(new Float32Array([5]), [], 'float32', 'cpu')).shape).toEqual([]);
  });
});

describe('operators', () => {
  it('differentiates', () => {
    const x = vector(1, 2, 3);
    addon.requiresGrad(x, true);
    addon.backward(call('sum', '', call('mul', 'Tensor', x, x)));
    expect(addon.read(keep(addon.grad(x) as NativeTensor))).toEqual(new Float32Array([2, 4, 6]));
  });

  it('converts scalars, lists, optional values, dtypes and defaults by the schema', () => {
    const whole = keep(addon.tensor(new Int32Array([1, 2]), [2], 'int64', 'cpu'));
    expect(call('add', 'Scalar', whole, 1).dtype).toBe('int64');
    expect(call('add', 'Scalar', whole, 0.5).dtype).toBe('float32');
    expect(addon.read(call('cat', '', [vector(1), vector(2)]))).toEqual(new Float32Array([1, 2]));
    expect(addon.read(call('clamp', '', vector(-1, 5), null, 2))).toEqual(new Float32Array([-1, 2]));
    expect(call('sum', 'dim_IntList', vector(1, 2), 0, true, 'float64').dtype).toBe('float64');
    expect(call('zeros', '', [2, 3], 'bfloat16', undefined, 'cpu').shape).toEqual([2, 3]);
    const [values, indices] = addon.call('aten::sort', '', [vector(2, 1)]) as NativeTensor[];
    expect(addon.read(keep(values as NativeTensor))).toEqual(new Float32Array([1, 2]));
    expect(addon.read(keep(indices as NativeTensor))).toEqual(new BigInt64Array([1n, 0n]));
    expect(addon.call('aten::size', 'int', [vector(1, 2), 0])).toBe(2);
  });

  it('records nothing without gradients', () => {
    const x = vector(1);
    addon.requiresGrad(x, true);
    expect(addon.withGradMode(false)).toBe(true);
    try {
      expect(call('mul', 'Tensor', x, x).requiresGrad).toBe(false);
    } finally {
      expect(addon.withGradMode(true)).toBe(false);
    }
  });
});

describe('errors', () => {
  const x = () => vector(1, 2, 3);
  const anything = addon as unknown as Record<string, (...args: unknown[]) => unknown>;
  const disposed = () => {
    const tensor = vector(1);
    tensor.dispose();
    return tensor;
  };
  const cases: [string, () => unknown, RegExp][] = [
    [
      'a wrong object',
      () => call('mul', 'Tensor', x(), {}),
      /expected a Tensor for aten::mul's argument other/,
    ],
    ['a missing argument', () => call('mul', 'Tensor', x()), /other but received undefined/],
    ['too many arguments', () => call('neg', '', x(), 1, 2), /takes at most 1 arguments but received 3/],
    ['an unknown operator', () => call('nix', '', x()), /no operator aten::nix/],
    ['an unknown overload', () => call('mul', 'Nix', x()), /no operator aten::mul.Nix/],
    ['a wrong shape', () => call('mm', '', x(), x()), /must be a matrix/],
    ['an impossible broadcast', () => call('add', 'Tensor', x(), vector(1, 2)), /must match the size/],
    ['a wrong dtype', () => call('index_select', '', x(), 0, x()), /[Ii]ndex.*(int|long)/],
    ['an index out of range', () => call('index_select', '', x(), 0, index(7)), /out of range/],
    ['a dimension out of range', () => call('sum', 'dim_IntList', x(), [3]), /Dimension out of range/],
    ['a disposed tensor', () => call('neg', '', disposed()), /was disposed/],
    ['the shape of a disposed tensor', () => disposed().shape, /was disposed/],
    ['reading a disposed tensor', () => addon.read(disposed()), /was disposed/],
    ['a fraction for an int', () => call('sum', 'dim_IntList', x(), [0.5]), /whole number.*0\.5/],
    ['a string for a number', () => call('add', 'Scalar', x(), 'a'), /expected a number.*"a"/],
    ['an array with a hole', () => call('cat', '', [x(), undefined]), /tensors\[1\] but received undefined/],
    ['too much memory', () => call('empty', 'memory_format', [1e15]), /allocate memory/],
    [
      'no typed array',
      () => anything.tensor?.([1], [1], 'float32', 'cpu'),
      /typed array for data.*array of 1/,
    ],
    ['a DataView', () => anything.tensor?.(new DataView(new ArrayBuffer(4)), [1], 'float32', 'cpu'), /typed/],
    ['Int8Array', () => anything.tensor?.(new Int8Array(1), [1], 'float32', 'cpu'), /Int8Array of 1/],
    [
      'too few elements',
      () => addon.tensor(new Float32Array(2), [3], 'float32', 'cpu'),
      /2 elements.*takes 3/,
    ],
    ['a negative size', () => addon.tensor(new Float32Array(1), [-1], 'float32', 'cpu'), /negative/],
    [
      'an endless shape',
      () => addon.tensor(new Float32Array(1), [2 ** 40, 2 ** 40], 'float32', 'cpu'),
      /large/,
    ],
    ['an unknown dtype', () => anything.tensor?.(new Float32Array(1), [1], 'fp8', 'cpu'), /dtype.*"fp8"/],
    ['an unknown device', () => addon.tensor(new Float32Array(1), [1], 'float32', 'tpu'), /device.*"tpu"/],
    ['too few arguments', () => anything.tensor?.(), /tensor takes 4 arguments but received 0/],
    ['backward of a constant', () => addon.backward(x()), /requiresGrad/],
    ['backward of a vector', () => addon.backward(call('exp', '', leaf())), /one element, but it has 3/],
    ['a gradient of another shape', () => addon.backward(call('exp', '', leaf()), vector(1)), /shape/],
    ['requiresGrad of a result', () => addon.requiresGrad(call('exp', '', leaf()), false), /leaf/],
    ['requiresGrad of integers', () => addon.requiresGrad(index(1), true), /floating point/],
    [
      'a constructor',
      () => Reflect.construct(x().constructor as new () => unknown, []),
      /constructed directly/,
    ],
    ['a method on another object', () => x().dispose.call({} as NativeTensor), /Tensor|invocation/],
    ['a getter on another object', () => Reflect.get(Object.getPrototypeOf(x()), 'shape', {}), /Tensor/],
  ];
  const index = (...values: number[]) =>
    keep(addon.tensor(new Int32Array(values), [values.length], 'int64', 'cpu'));
  const leaf = () => {
    const tensor = x();
    addon.requiresGrad(tensor, true);
    return tensor;
  };

  it.each(cases)('%s', (_, action, message) => {
    let error: unknown;
    try {
      action();
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(Error);
    expect((error as Error).message).toMatch(message);
    expect((error as Error).message).not.toMatch(/Exception raised from|frame #/);
  });
});

it('a parameter takes values of its own shape alone, also where others could be expanded to it', () => {
  const base = addon.createBase(tinyConfig(), 'float32', 'cpu', true);
  const name = 'model.norm.weight';
  const [size = 0] = base.parameters.find((one) => one.name === name)?.shape ?? [];
  for (const values of [vector(7), call('unsqueeze', '', vector(...new Array(size).fill(7)), 0)])
    expect(() => base.write(name, values)).toThrow(/model\.norm\.weight is \[\d+\], and cannot be given/);
  expect(addon.read(keep(base.view(name)))).toEqual(new Float32Array(size));
  base.write(name, vector(...new Array(size).fill(7)));
  expect(addon.read(keep(base.view(name)))).toEqual(new Float32Array(size).fill(7));
  base.dispose();
});

describe('lifetime', () => {
  it('counts live tensors and takes a second dispose', () => {
    const start = addon.liveTensors();
    const tensor = addon.tensor(new Float32Array(1), [1], 'float32', 'cpu');
    expect(addon.liveTensors()).toBe(start + 1);
    tensor.dispose();
    tensor.dispose();
    expect(addon.liveTensors()).toBe(start);
  });

  it('counts a storage once, however many tensors look at it', () => {
    const start = addon.liveTensorBytes();
    const tensor = addon.tensor(new Float32Array(1 << 20), [1 << 20], 'float32', 'cpu');
    const view = addon.call('aten::view', '', [tensor, [1 << 10, 1 << 10]]) as NativeTensor;
    expect(addon.liveTensorBytes() - start).toBe(4 << 20);
    tensor.dispose();
    expect(addon.liveTensorBytes() - start).toBe(4 << 20);
    view.dispose();
    expect(addon.liveTensorBytes()).toBe(start);
  });

  it('tells V8 of what tensors alone hold, not of views of parameters', () => {
    const start = addon.liveTensorBytes();
    const parameters = addon.createBase(tinyConfig(), 'float32', 'cpu', true);
    const name = parameters.parameters[0]?.name as string;
    const views = [parameters.master(), parameters.view(name), parameters.view(name)];
    views.push(addon.call('aten::view', '', [views[0], [-1]]) as NativeTensor);
    expect(addon.liveTensorBytes()).toBe(start);
    // Results, lists of results, and what autograd's graph keeps of one count.
    const ones = addon.call('aten::ones', '', [[256]]) as NativeTensor;
    const grads = addon.call('aten::clone', '', [ones]) as NativeTensor;
    addon.requiresGrad(grads, true);
    const powers = addon.call('aten::exp', '', [grads]) as NativeTensor;
    const [maximum, where] = addon.call('aten::max', 'dim', [ones, 0]) as [NativeTensor, NativeTensor];
    expect(addon.liveTensorBytes() - start).toBe(3 * 256 * 4 + 4 + 8);
    for (const tensor of [...views, ones, grads, powers, maximum, where]) tensor.dispose();
    expect(addon.liveTensorBytes()).toBe(start);
    parameters.dispose();
  });

  it('gives freed memory back to the next tensors', () => {
    const start = process.memoryUsage().rss;
    for (let i = 0; i < 500; i++) {
      const tensor = addon.call('aten::ones', '', [[1 << 18]]) as NativeTensor;
      tensor.dispose();
    }
    expect(process.memoryUsage().rss - start).toBeLessThan(100 << 20);
  });
});
