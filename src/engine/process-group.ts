/**
 * The collectives of a group of processes that train together: the engine worker's side. Every call has to be made by
 * all ranks, in the same order and under the same name; it waits for the others for as long as they are alive, and
 * throws a TroupeError, one sentence with the rank and the collective in it, where one is not. After that the group
 * cannot be used. What the main thread does with a group is in ranks.ts.
 */
import { deserialize, serialize } from 'node:v8';
import { TroupeError } from '../config/errors.js';
import { type NativeGroupOptions, type NativeProcessGroup, type NativeTraffic, native } from './native.js';
import { scope } from './scope.js';
import { Tensor } from './tensor.js';
import { whileWaiting } from './turns.js';

export class ProcessGroup implements Disposable {
  readonly #native: NativeProcessGroup | undefined;
  readonly rank: number;
  readonly size: number;
  /** Blocks until all ranks have come. Without options: the group of one rank that is alone, which sends nothing. */
  constructor(options?: NativeGroupOptions) {
    this.#native = options && said(() => native().createProcessGroup(options));
    this.rank = options?.rank ?? 0;
    this.size = options?.size ?? 1;
  }

  /** null: alone. */
  get traffic(): NativeTraffic | null {
    return this.#native?.traffic ?? null;
  }

  /** Every tensor becomes its sum (or maximum) over the ranks: the same bits on all of them. Any shape; fp32, fp64, int64. */
  allReduce(name: string, tensors: readonly Tensor[], reduction: 'sum' | 'max' = 'sum'): void {
    const handles = tensors.map(({ native }) => native);
    said(() => this.#native?.allReduce(name, handles, reduction));
  }

  /** The numbers, added up over the ranks. */
  sum(name: string, values: Float64Array): Float64Array {
    if (this.#native === undefined) return values;
    return scope(() => {
      const tensor = Tensor.from(values, [values.length]);
      this.allReduce(name, [tensor]);
      return native().read(tensor.native) as Float64Array;
    });
  }

  /**
   * Tensors [size · n] have a part [n] for each rank: this rank's becomes its sum over the ranks. What the others hold
   * after it is undefined.
   */
  reduceScatter(name: string, tensors: readonly Tensor[]): void {
    const handles = tensors.map(({ native }) => native);
    said(() => this.#native?.reduceScatter(name, handles));
  }

  /** Of tensors [size · n], every part becomes that of the rank that it belongs to. */
  allGather(name: string, tensors: readonly Tensor[]): void {
    const handles = tensors.map(({ native }) => native);
    said(() => this.#native?.allGather(name, handles));
  }

  /** Every tensor becomes that of rank `root`. */
  broadcast(name: string, tensors: readonly Tensor[], root = 0): void {
    const handles = tensors.map(({ native }) => native);
    said(() => this.#native?.broadcast(name, handles, root));
  }

  /** Returns when all ranks have come to it. */
  barrier(name: string): void {
    said(() => this.#native?.barrier(name));
  }

  /**
   * Connects the ranks' GPUs by NCCL, by which their tensors go from here on: all ranks call it at the same place, each with its
   * own. Why it could not be, or ''.
   */
  takeNccl(device: string): string {
    return whileWaiting(() => this.#native?.takeNccl(device) ?? '');
  }

  /** GPUs exchange by way of the CPUs' memory again: no collective, but on all ranks. */
  dropNccl(): void {
    this.#native?.dropNccl();
  }

  /**
   * Adds to the group's count of that name, which begins at 0; returns what it comes to. No collective: it waits for nobody.
   */
  count(name: string, amount: number): number {
    if (this.#native === undefined) throw new TroupeError('counts are for ranks that have joined others');
    const group = this.#native;
    return said(() => group.count(name, amount));
  }

  /** What every rank gave, in the order of ranks. */
  gather(name: string, bytes: Uint8Array): Uint8Array[] {
    return said(() => this.#native?.gather(name, bytes) ?? [bytes]);
  }

  /** What `work` returns on rank 0, on all of them; where it throws, all throw. A structured clone. */
  fromFirst<T>(name: string, work: () => T): T {
    let thrown: unknown;
    let said: { value: T } | { error: string } | undefined;
    if (this.rank === 0) {
      try {
        said = { value: work() };
      } catch (error) {
        thrown = error;
        said = { error: error instanceof Error ? error.message : String(error) };
      }
    }
    const [first = new Uint8Array()] = this.gather(name, serialize(said));
    if (thrown !== undefined) throw thrown;
    const heard = deserialize(first) as { value: T } | { error: string };
    if ('value' in heard) return heard.value;
    throw new TroupeError(heard.error, { where: 'rank 0' });
  }

  /** What `work` returns, once it is done on all ranks; if it throws on one, all throw. */
  async whole<T>(name: string, work: () => Promise<T>): Promise<T> {
    if (this.#native === undefined) return await work();
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
    this.#native?.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** The addon's message is for people; of a wrong argument it is not. */
function said<T>(call: () => T): T {
  try {
    return whileWaiting(call);
  } catch (cause) {
    if (!(cause instanceof Error) || cause instanceof TypeError) throw cause;
    throw new TroupeError(cause.message, { cause });
  }
}
