/**
 * Calls kernels with arguments that are wrong in one place, after each right call: other dtypes, shapes, lengths, numbers
 * out of range. What must not happen is that the process dies: wrong arguments are an error, or do no harm.
 */
import { native } from '../../src/engine/native.js';

/** Right calls of each kernel that are taken apart. */
const CALLS = 6;

type Path = (string | number)[];

const operator = (name: string, overload: string, ...args: unknown[]): unknown =>
  (native() as unknown as { call(name: string, overload: string, args: unknown[]): unknown }).call(
    `aten::${name}`,
    overload,
    args,
  );

function isTensor(value: unknown): value is { shape: number[]; dtype: string } {
  return typeof value === 'object' && value !== null && 'shape' in value && 'dtype' in value;
}

function copied(value: unknown): unknown {
  if (isTensor(value)) return operator('clone', '', value);
  if (Array.isArray(value)) return value.map(copied);
  if (ArrayBuffer.isView(value)) return (value as Float64Array).slice();
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, copied(one)]));
}

/** Every place of an argument; of long lists the first and the last. */
function places(value: unknown, path: Path = []): [Path, unknown][] {
  if (isTensor(value) || ArrayBuffer.isView(value) || typeof value !== 'object' || value === null)
    return [[path, value]];
  const own: [Path, unknown][] = path.length > 0 ? [[path, value]] : [];
  const keys = Object.keys(value).map((key) => (Array.isArray(value) ? Number(key) : key));
  const some = Array.isArray(value) && keys.length > 4 ? [0, value.length - 1] : keys;
  return [...own, ...some.flatMap((key) => places((value as Record<string, unknown>)[key], [...path, key]))];
}

function wrongTensors(tensor: { shape: number[]; dtype: string }): unknown[] {
  const [rows = 1] = tensor.shape;
  const last = tensor.shape.length - 1;
  const width = tensor.shape.at(-1) ?? 1;
  const makers = [
    () => operator('to', 'dtype', tensor, tensor.dtype === 'float32' ? 'bfloat16' : 'float32'),
    () => operator('to', 'dtype', tensor, 'int64'),
    () => operator('narrow', '', tensor, 0, 0, Math.max(0, rows - 1)),
    () => operator('narrow', '', tensor, 0, 0, 0),
    () => operator('cat', '', [tensor, tensor], 0),
    () => operator('cat', '', [tensor, tensor], last),
    () => operator('unsqueeze', '', tensor, 0),
    () => operator('t', '', tensor),
    () => operator('narrow', '', operator('cat', '', [tensor, tensor], last), last, 0, width),
    () => operator('reshape', '', tensor, [-1]),
    () => operator('full', '', tensor.shape, 1e6),
  ];
  const made = makers.flatMap((make) => {
    try {
      return [make()];
    } catch {
      return []; // no such change of this tensor
    }
  });
  return [undefined, null, 1, {}, ...made];
}

function wrongArrays(array: Float64Array): unknown[] {
  const changed = (index: number, value: number) => {
    const copy = array.slice();
    if (copy.length > 0) copy[index] = value;
    return copy;
  };
  const twice = array.slice(0, 0).constructor as { from?: (values: number[]) => unknown };
  return [
    undefined,
    null,
    array.slice(0, 0),
    array.slice(0, -1),
    twice.from?.([...array, ...array]),
    changed(array.length - 1, 1e9),
    changed(0, -5),
    changed(0, Number.NaN),
    new Uint8Array(3),
  ];
}

function wrongs(value: unknown): unknown[] {
  if (isTensor(value)) return wrongTensors(value);
  if (ArrayBuffer.isView(value)) return wrongArrays(value as Float64Array);
  if (Array.isArray(value)) return [undefined, [], value.slice(0, -1), [...value, ...value], {}, 7];
  if (typeof value === 'number')
    return [-1, 0, 1, value + 1, 1e9, 2 ** 40, Number.MAX_SAFE_INTEGER, 0.5, Number.NaN, '1', undefined];
  return [undefined, {}, [], 3];
}

function withWrong(args: unknown[], path: Path, wrong: unknown): unknown[] {
  const copy = copied(args) as unknown[];
  let place: Record<string | number, unknown> = copy as never;
  for (const key of path.slice(0, -1)) place = place[key] as never;
  place[path.at(-1) ?? 0] = wrong;
  return copy;
}

/** `kernels`, whose first calls of each kind are made once more with every wrong argument. */
export function withWrongArguments<K extends object>(kernels: K): K {
  const calls = new Map<string, number>();
  return new Proxy(kernels, {
    get(target, name: string) {
      const kernel = target[name as keyof K];
      if (typeof kernel !== 'function' || name === 'dispose') return kernel;
      return (...args: unknown[]) => {
        const count = (calls.get(name) ?? 0) + 1;
        calls.set(name, count);
        for (const [path, value] of count <= CALLS ? places(args) : []) {
          for (const wrong of wrongs(value)) {
            try {
              kernel.apply(target, withWrong(args, path, wrong));
            } catch {
              // An error is right; the next test would not run if it were a crash.
            }
          }
        }
        return kernel.apply(target, args);
      };
    },
  });
}
