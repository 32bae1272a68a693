/**
 * Tensors for losses and for the engine: the operators in use, typed, each with its ATen schema above it. All go
 * through one boxed call (native.ts) and are recorded by autograd. Operators broadcast and promote dtypes as
 * PyTorch's do; a wrong shape, dtype or argument throws an Error.
 *
 * A tensor is freed by `dispose()`, `using`, or the `scope` that it was made in. Nothing here decides anything.
 */
import { native } from './native.js';
import type { DType, NativeTensor } from './native-model.js';
import { type TensorData, TensorHandle } from './tensor-handle.js';

/** A tensor or a number. A number never changes a floating-point tensor's dtype. */
export type Operand = Tensor | number;

/** How a tensor is made. */
export interface TensorOptions {
  /** Default: the data's own (`number[]` is float32). */
  dtype?: DType;
  /** Default: 'cpu'. */
  device?: string;
  requiresGrad?: boolean;
}

/** Tensors that exist in this thread. A test ends with as many as it began with. */
export function liveTensors(): number {
  return native().liveTensors();
}

/** Runs `body` without recording operators for autograd. */
export function noGrad<T>(body: () => T): T {
  const before = native().withGradMode(false);
  try {
    return body();
  } finally {
    native().withGradMode(before);
  }
}

function nativeDtype(data: TensorData): DType {
  if (data instanceof Float64Array) return 'float64';
  if (data instanceof BigInt64Array) return 'int64';
  if (data instanceof Int32Array) return 'int32';
  return data instanceof Uint8Array ? 'uint8' : 'float32';
}

function unwrap(argument: unknown): unknown {
  if (argument instanceof Tensor) return argument.native;
  return Array.isArray(argument) ? argument.map(unwrap) : argument;
}

/** One operator with one tensor as its result, e.g. operator('aten::add', 'Tensor', x, y). */
export function operator(name: string, overload: string, ...args: unknown[]): Tensor {
  return Tensor.wrap(native().call(name, overload, args.map(unwrap)) as NativeTensor);
}

/**
 * A libtorch tensor in this thread, with the operators that losses use, recorded by autograd. Made by `Tensor.from`, or by
 * an operator of others; freed by `dispose()`, `using`, or the `scope` that it was made in.
 */
export class Tensor extends TensorHandle {
  // --- making

  /** @internal Takes over a handle that the addon returned. */
  static wrap(handle: NativeTensor): Tensor {
    return new Tensor(handle);
  }

  /** Copies `data`, row-major. `shape` defaults to one dimension. */
  static from(
    data: TensorData | readonly number[],
    shape?: readonly number[],
    options: TensorOptions = {},
  ): Tensor {
    const values = Array.isArray(data) ? Float32Array.from(data) : (data as TensorData);
    const { dtype = nativeDtype(values), device = 'cpu', requiresGrad = false } = options;
    const tensor = new Tensor(native().tensor(values, [...(shape ?? [values.length])], dtype, device));
    return requiresGrad ? tensor.setRequiresGrad(true) : tensor;
  }

  /** A tensor of no dimensions. */
  static scalar(value: number, options: TensorOptions = {}): Tensor {
    return Tensor.from([value], [], options);
  }

  /** full(SymInt[] size, Scalar fill_value, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None) -> Tensor */
  static full(shape: readonly number[], value: number, options: TensorOptions = {}): Tensor {
    const { dtype = 'float32', device = 'cpu', requiresGrad = false } = options;
    const tensor = operator('aten::full', '', [...shape], value, dtype, undefined, device);
    return requiresGrad ? tensor.setRequiresGrad(true) : tensor;
  }

  static zeros(shape: readonly number[], options?: TensorOptions): Tensor {
    return Tensor.full(shape, 0, options);
  }

  static ones(shape: readonly number[], options?: TensorOptions): Tensor {
    return Tensor.full(shape, 1, options);
  }

  /** cat(Tensor[] tensors, int dim=0) -> Tensor */
  static cat(tensors: readonly Tensor[], dim = 0): Tensor {
    return operator('aten::cat', '', [...tensors], dim);
  }

  /** stack(Tensor[] tensors, int dim=0) -> Tensor */
  static stack(tensors: readonly Tensor[], dim = 0): Tensor {
    return operator('aten::stack', '', [...tensors], dim);
  }

  /** where.self(Tensor condition, Tensor self, Tensor other) -> Tensor; where.ScalarSelf, .ScalarOther, .Scalar */
  static where(condition: Tensor, yes: Operand, no: Operand): Tensor {
    const scalarYes = !(yes instanceof Tensor);
    const scalarNo = !(no instanceof Tensor);
    const overload = scalarYes ? (scalarNo ? 'Scalar' : 'ScalarSelf') : scalarNo ? 'ScalarOther' : 'self';
    return operator('aten::where', overload, condition, yes, no);
  }

  // --- autograd

  /** Adds the gradient of this tensor (one element, unless `gradient` is given) to the leaves' `grad`. */
  backward(gradient?: Tensor): void {
    native().backward(this.native, gradient?.native);
  }

  /** The gradient that backward passes added up: a new handle each time, undefined before the first one. */
  get grad(): Tensor | undefined {
    const gradient = native().grad(this.native);
    return gradient && Tensor.wrap(gradient);
  }

  setRequiresGrad(value: boolean): this {
    native().requiresGrad(this.native, value);
    return this;
  }

  /** detach(Tensor(a) self) -> Tensor(a). The same memory, without history. */
  detach(): Tensor {
    return operator('aten::detach', '', this);
  }

  // --- arithmetic

  /** add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor; add.Scalar */
  add(other: Operand): Tensor {
    return this.#binary('aten::add', other);
  }

  /** sub.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor; sub.Scalar */
  sub(other: Operand): Tensor {
    return this.#binary('aten::sub', other);
  }

  /** mul.Tensor(Tensor self, Tensor other) -> Tensor; mul.Scalar */
  mul(other: Operand): Tensor {
    return this.#binary('aten::mul', other);
  }

  /** div.Tensor(Tensor self, Tensor other) -> Tensor; div.Scalar. True division: integers become float32. */
  div(other: Operand): Tensor {
    return this.#binary('aten::div', other);
  }

  /** pow.Tensor_Scalar(Tensor self, Scalar exponent) -> Tensor */
  pow(exponent: number): Tensor {
    return operator('aten::pow', 'Tensor_Scalar', this, exponent);
  }

  /** matmul(Tensor self, Tensor other) -> Tensor */
  matmul(other: Tensor): Tensor {
    return operator('aten::matmul', '', this, other);
  }

  /** neg(Tensor self) -> Tensor */
  neg(): Tensor {
    return operator('aten::neg', '', this);
  }

  /** abs(Tensor self) -> Tensor */
  abs(): Tensor {
    return operator('aten::abs', '', this);
  }

  /** exp(Tensor self) -> Tensor */
  exp(): Tensor {
    return operator('aten::exp', '', this);
  }

  /** expm1(Tensor self) -> Tensor */
  expm1(): Tensor {
    return operator('aten::expm1', '', this);
  }

  /** log(Tensor self) -> Tensor */
  log(): Tensor {
    return operator('aten::log', '', this);
  }

  /** sqrt(Tensor self) -> Tensor */
  sqrt(): Tensor {
    return operator('aten::sqrt', '', this);
  }

  /** sigmoid(Tensor self) -> Tensor */
  sigmoid(): Tensor {
    return operator('aten::sigmoid', '', this);
  }

  /** log_sigmoid(Tensor self) -> Tensor */
  logSigmoid(): Tensor {
    return operator('aten::log_sigmoid', '', this);
  }

  /** clamp(Tensor self, Scalar? min=None, Scalar? max=None) -> Tensor. Gradient 0 outside. */
  clamp(min?: number, max?: number): Tensor {
    return operator('aten::clamp', '', this, min, max);
  }

  /** minimum(Tensor self, Tensor other) -> Tensor. Ties share the gradient. */
  minimum(other: Tensor): Tensor {
    return operator('aten::minimum', '', this, other);
  }

  /** maximum(Tensor self, Tensor other) -> Tensor. Ties share the gradient. */
  maximum(other: Tensor): Tensor {
    return operator('aten::maximum', '', this, other);
  }

  // --- comparison: bool tensors

  /** eq.Tensor(Tensor self, Tensor other) -> Tensor; eq.Scalar */
  eq(other: Operand): Tensor {
    return this.#binary('aten::eq', other);
  }

  /** ne.Tensor(Tensor self, Tensor other) -> Tensor; ne.Scalar */
  ne(other: Operand): Tensor {
    return this.#binary('aten::ne', other);
  }

  /** lt.Tensor(Tensor self, Tensor other) -> Tensor; lt.Scalar */
  lt(other: Operand): Tensor {
    return this.#binary('aten::lt', other);
  }

  /** le.Tensor(Tensor self, Tensor other) -> Tensor; le.Scalar */
  le(other: Operand): Tensor {
    return this.#binary('aten::le', other);
  }

  /** gt.Tensor(Tensor self, Tensor other) -> Tensor; gt.Scalar */
  gt(other: Operand): Tensor {
    return this.#binary('aten::gt', other);
  }

  /** ge.Tensor(Tensor self, Tensor other) -> Tensor; ge.Scalar */
  ge(other: Operand): Tensor {
    return this.#binary('aten::ge', other);
  }

  /** logical_and(Tensor self, Tensor other) -> Tensor */
  and(other: Tensor): Tensor {
    return operator('aten::logical_and', '', this, other);
  }

  /** logical_or(Tensor self, Tensor other) -> Tensor */
  or(other: Tensor): Tensor {
    return operator('aten::logical_or', '', this, other);
  }

  /** logical_not(Tensor self) -> Tensor */
  not(): Tensor {
    return operator('aten::logical_not', '', this);
  }

  /** isfinite(Tensor self) -> Tensor */
  isFinite(): Tensor {
    return operator('aten::isfinite', '', this);
  }

  // --- reductions

  /** sum(Tensor self, *, ScalarType? dtype=None) -> Tensor; sum.dim_IntList(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor */
  sum(dims?: number | readonly number[], keepdim = false): Tensor {
    return this.#reduction('aten::sum', dims, keepdim);
  }

  /** mean(Tensor self, *, ScalarType? dtype=None) -> Tensor; mean.dim(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor */
  mean(dims?: number | readonly number[], keepdim = false): Tensor {
    return this.#reduction('aten::mean', dims, keepdim);
  }

  /** amax(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor */
  max(dims: number | readonly number[] = [], keepdim = false): Tensor {
    return operator('aten::amax', '', this, dims, keepdim);
  }

  /** amin(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor */
  min(dims: number | readonly number[] = [], keepdim = false): Tensor {
    return operator('aten::amin', '', this, dims, keepdim);
  }

  /** logsumexp(Tensor self, int[1] dim, bool keepdim=False) -> Tensor */
  logsumexp(dims: number | readonly number[], keepdim = false): Tensor {
    return operator('aten::logsumexp', '', this, dims, keepdim);
  }

  // --- index and segment

  /** index_select(Tensor self, int dim, Tensor index) -> Tensor. `index` int64 or int32, [n]. */
  indexSelect(dim: number, index: Tensor): Tensor {
    return operator('aten::index_select', '', this, dim, index);
  }

  /** gather(Tensor self, int dim, Tensor index, *, bool sparse_grad=False) -> Tensor. `index` int64, as many dimensions. */
  gather(dim: number, index: Tensor): Tensor {
    return operator('aten::gather', '', this, dim, index);
  }

  /** index_add(Tensor self, int dim, Tensor index, Tensor source, *, Scalar alpha=1) -> Tensor. self[index[i]] + source[i]. */
  indexAdd(dim: number, index: Tensor, source: Tensor): Tensor {
    return operator('aten::index_add', '', this, dim, index, source);
  }

  /** Sums of the rows with equal `index`: [E, …] with index [E] int64 → [segments, …]. */
  segmentSum(index: Tensor, segments: number): Tensor {
    const shape = [segments, ...this.shape.slice(1)];
    const zeros = Tensor.zeros(shape, { dtype: this.dtype, device: this.device });
    try {
      return zeros.indexAdd(0, index, this);
    } finally {
      zeros.dispose();
    }
  }

  /** narrow(Tensor(a) self, int dim, SymInt start, SymInt length) -> Tensor(a). A view. */
  narrow(dim: number, start: number, length: number): Tensor {
    return operator('aten::narrow', '', this, dim, start, length);
  }

  // --- shape

  /** reshape(Tensor(a) self, SymInt[] shape) -> Tensor(a). One size may be −1. */
  reshape(shape: readonly number[]): Tensor {
    return operator('aten::reshape', '', this, [...shape]);
  }

  /** unsqueeze(Tensor(a) self, int dim) -> Tensor(a) */
  unsqueeze(dim: number): Tensor {
    return operator('aten::unsqueeze', '', this, dim);
  }

  /** squeeze.dim(Tensor(a) self, int dim) -> Tensor(a) */
  squeeze(dim: number): Tensor {
    return operator('aten::squeeze', 'dim', this, dim);
  }

  /** transpose.int(Tensor(a) self, int dim0, int dim1) -> Tensor(a) */
  transpose(first: number, second: number): Tensor {
    return operator('aten::transpose', 'int', this, first, second);
  }

  /** to.dtype(Tensor(a) self, ScalarType dtype, bool non_blocking=False, bool copy=False, MemoryFormat? memory_format=None) -> Tensor(a) */
  to(dtype: DType): Tensor {
    return operator('aten::to', 'dtype', this, dtype);
  }

  /** to.device(Tensor(a) self, Device device, ScalarType dtype, bool non_blocking=False, bool copy=False, MemoryFormat? memory_format=None) -> Tensor(a) */
  toDevice(device: string): Tensor {
    return operator('aten::to', 'device', this, device, this.dtype);
  }

  /** clone(Tensor self, *, MemoryFormat? memory_format=None) -> Tensor */
  clone(): Tensor {
    return operator('aten::clone', '', this);
  }

  // --- in place

  /** copy_(Tensor(a!) self, Tensor src, bool non_blocking=False) -> Tensor(a!). Converts dtype and device. */
  copy_(source: Tensor): this {
    return this.#inPlace('aten::copy_', '', source);
  }

  /** fill_.Scalar(Tensor(a!) self, Scalar value) -> Tensor(a!) */
  fill_(value: number): this {
    return this.#inPlace('aten::fill_', 'Scalar', value);
  }

  /** add_.Tensor(Tensor(a!) self, Tensor other, *, Scalar alpha=1) -> Tensor(a!) */
  add_(other: Tensor, alpha = 1): this {
    return this.#inPlace('aten::add_', 'Tensor', other, alpha);
  }

  /** mul_.Scalar(Tensor(a!) self, Scalar other) -> Tensor(a!) */
  mul_(factor: number): this {
    return this.#inPlace('aten::mul_', 'Scalar', factor);
  }

  #binary(name: string, other: Operand): Tensor {
    return operator(name, other instanceof Tensor ? 'Tensor' : 'Scalar', this, other);
  }

  #reduction(name: string, dims: number | readonly number[] | undefined, keepdim: boolean): Tensor {
    if (dims === undefined && !keepdim) return operator(name, '', this);
    const overload = name === 'aten::sum' ? 'dim_IntList' : 'dim';
    return operator(name, overload, this, dims ?? null, keepdim);
  }

  /** The operator returns a second handle on this tensor. */
  #inPlace(name: string, overload: string, ...args: unknown[]): this {
    operator(name, overload, this, ...args).dispose();
    return this;
  }
}
