/**
 * What happens where the device's memory runs out: passes go on with fewer rows at a time, counted; what no number of rows
 * makes room for is an error that says what does.
 */
import { TroupeError } from '../config/errors.js';
import { native, OUT_OF_MEMORY } from './native.js';
import type { NativeMicroBatch } from './native-model.js';
import type { TrainCall } from './types.js';

/** Lets the worker look at its messages between micro-batches. */
export type NextTurn = () => Promise<unknown>;

export const isOutOfMemory = (error: unknown) => (error as { code?: unknown }).code === OUT_OF_MEMORY;

/** Rows of a policy's micro-batches, as far as the device's memory has shown that it holds no more. */
export class RowLimit {
  rows = Number.POSITIVE_INFINITY;
  /** Times that memory ran out in passes without gradients. */
  restarts = 0;
  readonly #levels: number;

  /** `levels`: of the trees that the policy's device computes (NativePolicy.treeLevels). */
  constructor(levels: number) {
    this.#levels = levels;
  }

  /** Micro-batches of the calls, of at most `maxRows` rows. */
  cut(calls: readonly TrainCall[], maxRows: number): NativeMicroBatch[] {
    return native().microBatches([...calls], maxRows, this.#levels);
  }

  /**
   * After an error in micro-batches of these calls, of at most `maxRows` rows: where memory ran out, half of the largest one's rows
   * from now on. Throws other errors, and a sentence where every call is alone already.
   */
  halve(error: unknown, calls: readonly TrainCall[], maxRows: number): void {
    if (!isOutOfMemory(error)) throw error;
    const batches = this.cut(calls, maxRows);
    const rows = Math.max(...batches.map((batch) => batch.rows));
    if (batches.every((batch) => batch.calls.length === 1)) {
      throw new TroupeError(`memory ran out in the pass of one call, of ${rows} rows (${said(error)})`, {
        hint: 'Set rollout.promptTokens or rollout.sampling.maxTokens lower, or take a smaller model or a device with more memory.',
        cause: error,
      });
    }
    native().releaseMemory();
    // A call alone may have more rows than the limit: of it no half is taken, or the limit would stay where it is.
    this.rows = Math.ceil(Math.min(rows, maxRows) / 2);
  }

  /**
   * What `pass` gives for each call, in their order, in micro-batches of at most `maxRows` rows. Passes leave nothing behind
   * that a second one of the same calls would count twice.
   */
  async inMicroBatches<Result>(
    calls: readonly TrainCall[],
    maxRows: number,
    pass: (part: readonly TrainCall[]) => Result[],
    nextTurn: NextTurn,
  ): Promise<Result[]> {
    const results = new Map<TrainCall, Result>();
    for (;;) {
      const left = calls.filter((call) => !results.has(call));
      const most = Math.min(maxRows, this.rows);
      try {
        for (const batch of this.cut(left, most)) {
          const part = batch.calls.flatMap((index) => left[index] ?? []);
          for (const [i, result] of pass(part).entries()) results.set(part[i] as TrainCall, result);
          await nextTurn();
        }
        return calls.map((call) => results.get(call) as Result);
      } catch (error) {
        this.halve(
          error,
          left.filter((call) => !results.has(call)),
          most,
        );
        this.restarts += 1;
      }
    }
  }
}

/** Makes what is needed whatever the rows are; `hint`: what makes it smaller. */
export function made(what: string, hint: string, make: () => void): void {
  try {
    make();
  } catch (cause) {
    if (!isOutOfMemory(cause)) throw cause;
    throw new TroupeError(
      `memory ran out for ${what} (${said(cause)}): fewer rows in a micro-batch make no room for that`,
      { hint, cause },
    );
  }
}

const said = (error: unknown) => (error as Error).message.split('\n')[0]?.replace(/\.$/, '');
