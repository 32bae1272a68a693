/**
 * What one optimizer step of one policy trains on: its mini-batches, the weight of each call's tokens, and which
 * calls may skip the backward pass.
 */
import type { RunConfig } from '../config/schema.js';
import type { CreditedCall } from './credit.js';
import type { Aggregation, OpenLoss } from './losses.js';
import { sumOverCalls } from './reduction.js';

export interface WeightedCall extends CreditedCall {
  /** Weight of each of its response tokens: the loss is Σ weight · term over all tokens of the update. */
  weight: number;
  /** Log p of its response in the trainer before the first update of the step, where later updates compare with it. */
  oldLogprobs?: Float32Array;
}

export interface Update {
  /** All calls of the update, in order. */
  calls: WeightedCall[];
  /** Calls that go through forward and backward. */
  trained: WeightedCall[];
  /** Of the calls that do not, the sample whose mismatch is measured. */
  mismatchOnly: WeightedCall[];
  /** Calls that do not, those of the sample included. Their tokens are in the normaliser, unless masked or of a frozen role. */
  skipped: number;
  /** Calls among them whose response was cut off, where those are masked. */
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
    return planUpdate(calls.slice(start, end), options, Math.ceil(options.mismatchSample / parts));
  });
}

function planUpdate(calls: readonly CreditedCall[], options: UpdateOptions, mismatchSample: number): Update {
  const isMasked = ({ call }: CreditedCall) =>
    options.truncated === 'mask' && call.completion.finish === 'length';
  const isOut = (one: CreditedCall) => isMasked(one) || (options.isFrozen?.(one.call.role) ?? false);
  // Tokens of masked calls and frozen roles are not in the normaliser: the others train as if they were alone.
  const lengths = calls.map((one) => (isOut(one) ? 0 : one.call.completion.ids.length));
  const weights = tokenWeights(lengths, options.loss.aggregation, options.length);
  const weighted = calls.map((call, i) => ({ ...call, weight: isOut(call) ? 0 : (weights[i] ?? 0) }));
  const isTrained = (one: CreditedCall) => !isOut(one) && !skips(one, options);
  const trained = weighted.filter(isTrained);
  const skipped = weighted.filter((one) => !isTrained(one));
  return {
    calls: weighted,
    trained,
    mismatchOnly: spread(skipped, mismatchSample),
    skipped: skipped.length,
    masked: calls.filter(isMasked).length,
    tokens: sumOverCalls(lengths),
  };
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

/** At most `count` items, evenly spread: the same ones in every repetition of a run. */
function spread<T>(items: readonly T[], count: number): T[] {
  if (items.length <= count) return [...items];
  return items.filter(
    (_, i) => Math.floor(((i + 1) * count) / items.length) > Math.floor((i * count) / items.length),
  );
}
