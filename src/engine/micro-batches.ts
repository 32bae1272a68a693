/** Calls in parts of a bounded number of rows, which a forward and a backward pass hold at a time. */
import type { TrainCall } from './types.js';

/**
 * Cuts calls into as few micro-batches of at most `maxRows` rows as their order allows, of nearly equal size: a small
 * last one would need other blocks of memory than those before it, and they more than they had to. A prompt that is
 * already in the micro-batch under the same group counts once, as packing will share it.
 */
export function microBatches(calls: readonly TrainCall[], maxRows: number): TrainCall[][] {
  const prompts = promptKeys(calls);
  const fewest = cut(calls, prompts, maxRows);
  const even = Math.ceil(calls.length === 0 ? 0 : rowsOf(calls, prompts) / fewest.length);
  for (let rows = even; rows < maxRows; rows += Math.ceil(even / 16)) {
    const batches = cut(calls, prompts, rows);
    if (batches.length <= fewest.length) return batches;
  }
  return fewest;
}

/**
 * Indices of the calls, group after group. A micro-batch adds to the accumulators of the groups that it has calls of, each
 * as large as the parameters: of G groups in M micro-batches at most G + M − 1 are read and written so, not G · M. No rows
 * are lost by it, since calls of different groups share none.
 */
export function orderByGroup(calls: readonly TrainCall[]): number[] {
  return Array.from(calls.keys()).sort((a, b) => (calls[a]?.group ?? 0) - (calls[b]?.group ?? 0));
}

/** Calls of one group and prompt share it. */
function promptKeys(calls: readonly TrainCall[]): string[] {
  return calls.map(({ group, prompt }) => `${group}:${prompt.join(',')}`);
}

/** As many calls as fit into each. */
function cut(calls: readonly TrainCall[], prompts: readonly string[], maxRows: number): TrainCall[][] {
  const batches: TrainCall[][] = [];
  let shared = new Set<string>();
  let rows = 0;
  for (const [i, call] of calls.entries()) {
    const key = prompts[i] ?? '';
    const rowsOfCall = () => call.response.length + (shared.has(key) ? 0 : call.prompt.length);
    if (batches.length === 0 || rows + rowsOfCall() > maxRows) {
      batches.push([]);
      shared = new Set();
      rows = 0;
    }
    rows += rowsOfCall();
    shared.add(key);
    batches.at(-1)?.push(call);
  }
  return batches;
}

/** Rows of all calls in one batch. */
function rowsOf(calls: readonly TrainCall[], prompts: readonly string[]): number {
  const lengths = new Map(calls.map(({ prompt }, i) => [prompts[i], prompt.length]));
  const shared = [...lengths.values()].reduce((sum, length) => sum + length, 0);
  return calls.reduce((sum, { response }) => sum + response.length, shared);
}

/** Rows of the largest micro-batch, and whether any has more than one call: none can be cut otherwise. */
export function largest(calls: readonly TrainCall[], maxRows: number): { rows: number; divisible: boolean } {
  const batches = microBatches(calls, maxRows);
  const rows = batches.map((batch) => rowsOf(batch, promptKeys(batch)));
  return { rows: Math.max(0, ...rows), divisible: batches.some((batch) => batch.length > 1) };
}
