/**
 * The collectives of a group of processes that train together: the engine worker's side. Every call has to be made by
 * all ranks, in the same order and under the same name; it waits for the others for as long as they are alive, and
 * throws a TroupeError, one sentence with the rank and the collective in it, where one is not. After that the group
 * cannot be used. What the main thread does with a group is in ranks.ts.
 */
import { TroupeError } from '../config/errors.js';
import { type NativeGroupOptions, type NativeProcessGroup, type NativeTraffic, native } from './native.js';
import type { Tensor } from './tensor.js';

export class ProcessGroup implements Disposable {
  readonly #native: NativeProcessGroup;

  /** Blocks until all ranks have come. */
  constructor(options: NativeGroupOptions) {
    this.#native = said(() => native().createProcessGroup(options));
  }

  get rank(): number {
    return this.#native.rank;
  }

  get size(): number {
    return this.#native.size;
  }

  get traffic(): NativeTraffic {
    return this.#native.traffic;
  }

  /** Every tensor becomes its sum (or maximum) over the ranks: the same bits on all of them. Any shape; fp32, fp64, int64. */
  allReduce(name: string, tensors: readonly Tensor[], reduction: 'sum' | 'max' = 'sum'): void {
    const handles = tensors.map(({ native }) => native);
    said(() => this.#native.allReduce(name, handles, reduction));
  }

  /** output [n] becomes this rank's part of the sum of the inputs [size · n]. */
  reduceScatter(name: string, output: Tensor, input: Tensor): void {
    said(() => this.#native.reduceScatter(name, output.native, input.native));
  }

  /** output [size · n] becomes the inputs [n], in the order of ranks. */
  allGather(name: string, output: Tensor, input: Tensor): void {
    said(() => this.#native.allGather(name, output.native, input.native));
  }

  /** Every tensor becomes that of rank `root`. */
  broadcast(name: string, tensors: readonly Tensor[], root = 0): void {
    const handles = tensors.map(({ native }) => native);
    said(() => this.#native.broadcast(name, handles, root));
  }

  /** Returns when all ranks have come to it. */
  barrier(name: string): void {
    said(() => this.#native.barrier(name));
  }

  /**
   * Adds to the group's count of that name, which begins at 0; returns what it comes to. No collective: it waits for nobody.
   */
  count(name: string, amount: number): number {
    return said(() => this.#native.count(name, amount));
  }

  /** What every rank gave, in the order of ranks. */
  gather(name: string, bytes: Uint8Array): Uint8Array[] {
    return said(() => this.#native.gather(name, bytes));
  }

  /** What `work` returns, once it is done on all ranks; if it throws on one, all throw. */
  async whole<T>(name: string, work: () => Promise<T>): Promise<T> {
    let result: { value: T } | undefined;
    let thrown: unknown;
    try {
      result = { value: await work() };
    } catch (error) {
      thrown = error;
    }
    const message = thrown instanceof Error ? thrown.message : String(thrown);
    const failures = this.gather(name, Buffer.from(result === undefined ? message : ''));
    if (result === undefined) throw thrown;
    const failed = failures.findIndex((bytes) => bytes.length > 0);
    if (failed < 0) return result.value;
    throw new TroupeError(Buffer.from(failures[failed] ?? []).toString(), { where: `rank ${failed}` });
  }

  /** The others learn that this rank has left. */
  dispose(): void {
    this.#native.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** The addon's message is for people; of a wrong argument it is not. */
function said<T>(call: () => T): T {
  try {
    return call();
  } catch (cause) {
    if (!(cause instanceof Error) || cause instanceof TypeError) throw cause;
    throw new TroupeError(cause.message, { cause });
  }
}
