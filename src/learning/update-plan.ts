/**
 * What one optimizer step of one policy trains on: its mini-batches, the weight of each call's tokens, and which
 * calls may skip the backward pass.
 */
import type { RunConfig } from '../config/schema.js';
import type { Aggregation, OpenLoss } from './losses.js';
import { sumOverCalls } from './reduction.js';
import type { CreditedCall, PlannedCall } from './step-call.js';

export interface Update {
  /** Index of the update among those of its policy in the step. */
  index: number;
  /** All calls of the update, in order. Those without a backward pass are in the normaliser, unless masked or of a frozen role. */
  calls: PlannedCall[];
  /** Calls whose response was cut off, where those are masked. */
  masked: number;
  /** Response tokens of all calls in the normaliser, skipped ones included. */
  tokens: number;
}

export type UpdateOptions = Pick<
  RunConfig['learning'],
  'entropy' | 'truncated' | 'miniBatches' | 'updates' | 'skipZeroAdvantage' | 'mismatchSample'
> & {
  loss: Pick<OpenLoss, 'aggregation' | 'followsAdvantage'>;
  /** Tokens that the aggregation `constant` divides by. */
  length: number;
  /** Coefficient of the KL term in the loss of a role's calls; left out: 0. */
  klOf?: (role: string) => number;
  /** Whether a role's calls give no gradient; left out: none's. */
  isFrozen?: (role: string) => boolean;
};

/**
 * The updates that one step of the run makes to one policy that plays `roles` roles, given that policy's calls:
 * one, or `miniBatches` (with matched updates, for each role) of near-equal size in the order of the calls, which
 * mixes the roles. Fewer if there are fewer calls.
 */
export function planUpdates(calls: readonly CreditedCall[], options: UpdateOptions, roles = 1): Update[] {
  const wanted = { policy: options.miniBatches, matched: options.miniBatches * roles, one: 1 }[
    options.updates
  ];
  const parts = Math.max(1, Math.min(wanted, calls.length));
  return Array.from({ length: parts }, (_, i) => {
    const start = Math.floor((i * calls.length) / parts);
    const end = Math.floor(((i + 1) * calls.length) / parts);
    return planUpdate(calls.slice(start, end), i, options, Math.ceil(options.mismatchSample / parts));
  });
}

function planUpdate(
  calls: readonly CreditedCall[],
  index: number,
  options: UpdateOptions,
  mismatchSample: number,
): Update {
  const isMasked = ({ call }: CreditedCall) =>
    options.truncated === 'mask' && call.completion.finish === 'length';
  const isOut = (one: CreditedCall) => isMasked(one) || (options.isFrozen?.(one.call.role) ?? false);
  const isTrained = (one: CreditedCall) => !isOut(one) && !skips(one, options);
  // Tokens of masked calls and frozen roles are not in the normaliser: the others train as if they were alone.
  const lengths = calls.map((one) => (isOut(one) ? 0 : one.call.completion.ids.length));
  const weights = tokenWeights(lengths, options.loss.aggregation, options.length);
  const untrained = calls.filter((one) => !isTrained(one)).length;
  const sample = Math.min(mismatchSample, untrained);
  let seen = 0;
  const planned = calls.map((call, i): PlannedCall => {
    const one = { ...call, update: index, weight: isOut(call) ? 0 : (weights[i] ?? 0) };
    if (isTrained(call)) return { ...one, pass: 'backward', standsFor: 1 };
    if (!isDrawn(seen++, untrained, sample)) return { ...one, pass: 'none', standsFor: 0 };
    return { ...one, pass: 'forward', standsFor: untrained / sample };
  });
  return { index, calls: planned, masked: calls.filter(isMasked).length, tokens: sumOverCalls(lengths) };
}

/**
 * Weight of each call's tokens, given the calls' response lengths. token: 1 / all tokens of the update, so that
 * every token counts the same; sequence: 1 / (calls · tokens of the call), so that every call does; constant:
 * 1 / (calls · constant), so that every token does, whatever the lengths of this update (Dr. GRPO, Liu et al. 2025).
 */
export function tokenWeights(lengths: readonly number[], aggregation: Aggregation, constant = 1): number[] {
  if (aggregation === 'token') {
    const tokens = sumOverCalls(lengths);
    return lengths.map(() => (tokens === 0 ? 0 : 1 / tokens));
  }
  const calls = sumOverCalls(lengths.map((length) => (length > 0 ? 1 : 0)));
  return lengths.map((length) => {
    if (length === 0) return 0;
    return 1 / (calls * (aggregation === 'sequence' ? length : constant));
  });
}

/** A call with advantage 0 has gradient 0 if nothing but the advantage drives the loss. */
function skips({ advantage, call }: CreditedCall, options: UpdateOptions): boolean {
  const { loss, klOf = () => 0, entropy, skipZeroAdvantage } = options;
  if (!skipZeroAdvantage || advantage !== 0) return false;
  return loss.followsAdvantage && klOf(call.role) === 0 && entropy === 0;
}

/** Whether item `i` of `of` is among `count` evenly spread ones: the same ones in every repetition of a run. */
function isDrawn(i: number, of: number, count: number): boolean {
  return Math.floor(((i + 1) * count) / of) > Math.floor((i * count) / of);
}
