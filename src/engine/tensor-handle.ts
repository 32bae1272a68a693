/**
 * What a tensor of libtorch is, holds, and how long it lives, without operators: `Tensor` (tensor.ts) has those.
 */
import { native } from './native.js';
import type { DType, NativeTensor } from './native-model.js';
import { disown, own } from './scope.js';

/** Values of a tensor, row-major, as they go in and come out. */
export type TensorData = Float64Array | Float32Array | BigInt64Array | Int32Array | Uint8Array;

/** A libtorch tensor in this thread; freed by `dispose()`, `using`, or the `scope` that it was made in. */
export abstract class TensorHandle implements Disposable {
  /** @internal */
  readonly native: NativeTensor;

  /** @internal */
  protected constructor(handle: NativeTensor) {
    this.native = handle;
    own(this);
  }

  // --- what it is

  get shape(): number[] {
    return this.native.shape;
  }

  get dtype(): DType {
    return this.native.dtype;
  }

  get device(): string {
    return this.native.device;
  }

  /** Number of elements. */
  get size(): number {
    return this.shape.reduce((product, size) => product * size, 1);
  }

  get requiresGrad(): boolean {
    return this.native.requiresGrad;
  }

  // --- reading back (copies)

  /** The elements, row-major, in the array type of the dtype; bfloat16 and float16 as Float32Array. */
  data(): TensorData {
    return native().read(this.native);
  }

  /** The elements as numbers, row-major. */
  toArray(): number[] {
    return Array.from(this.data(), Number);
  }

  /** The only element. */
  item(): number {
    const values = this.data();
    if (values.length !== 1) throw new TypeError(`item() needs one element, but there are ${values.length}`);
    return Number(values[0]);
  }

  // --- lifetime

  /** Frees the tensor now; a second call does nothing. */
  dispose(): void {
    disown(this);
    this.native.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
