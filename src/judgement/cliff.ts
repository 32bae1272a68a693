/**
 * Accuracy cliffs: how far a run has fallen from its peak, since when, and the label that its end deserves. Pure
 * functions over evaluations; capture comes from capture.ts.
 */
import type { Capture } from './capture.js';
import type { EvaluationPoint } from './history.js';
import { accuracyOf, type Difference, pairedDifference } from './paired.js';

/** Accuracy of an evaluation, and the steps done before it. */
export interface AccuracyPoint {
  step: number;
  accuracy: number;
}

/** How far a run has fallen from its best evaluation. */
export interface Cliff {
  first: AccuracyPoint;
  /** The best evaluation, the earliest of several. */
  peak: AccuracyPoint;
  current: AccuracyPoint;
  /**
   * Peak minus current on the same problems, null where peak and current are the same evaluation. The interval is
   * widened for the choice of the peak among the evaluations, which alone makes a flat run look fallen.
   */
  drop: Difference | null;
  /** Current minus first. */
  gain: Difference | null;
  /** Whether the run has fallen: `drop` is at least the least one, and its interval above 0. */
  fallen: boolean;
  /** The first evaluation from which on every one lies below the peak in that sense; null if it has not fallen. */
  onset: number | null;
}

/** Smallest drop that counts, in accuracy: smaller ones may be real, but are no cliff. */
export const LEAST_DROP = 0.05;

/** Null without an evaluation that has problems. */
export function findCliff(evaluations: readonly EvaluationPoint[], leastDrop = LEAST_DROP): Cliff | null {
  const measured = evaluations.flatMap((evaluation) => {
    const accuracy = accuracyOf(evaluation.correct);
    return accuracy === null ? [] : [{ ...evaluation, accuracy }];
  });
  const [first] = measured;
  const current = measured.at(-1);
  if (first === undefined || current === undefined) return null;
  const peak = measured.reduce((best, one) => (one.accuracy > best.accuracy ? one : best), first);
  const choices = Math.max(1, measured.length - 1);
  const below = (one: typeof first): Difference | null =>
    one === peak ? null : pairedDifference(peak.correct, one.correct, choices);
  const isFallen = (drop: Difference | null) => {
    return drop !== null && drop.low > 0 && drop.difference >= leastDrop;
  };
  const drop = below(current);
  const after = measured.slice(measured.indexOf(peak) + 1);
  const lastAbove = after.findLastIndex((one) => !isFallen(below(one)));
  return {
    first: pointOf(first),
    peak: pointOf(peak),
    current: pointOf(current),
    drop,
    gain: current === first ? null : pairedDifference(current.correct, first.correct),
    fallen: isFallen(drop),
    onset: after[lastAbove + 1]?.step ?? null,
  };
}

function pointOf({ step, accuracy }: AccuracyPoint): AccuracyPoint {
  return { step, accuracy };
}

const LABELS = ['improved', 'flat', 'cliff', 'capture', 'dead-role'] as const;
/** What the end of a run deserves to be called. */
export type Label = (typeof LABELS)[number];

/**
 * How a run ended. The first that holds:
 *   capture   a role has captured the parameters, and accuracy has fallen (`capturesOf` of alarms.ts);
 *   cliff     it has fallen from its peak (`fallen`), even where it is still above its start;
 *   dead-role its workflow no longer reads a role (roles-at-end.ts): whatever it gained, the role did not;
 *   improved  it lies above its start, with the whole paired interval;
 *   flat      none of these.
 * Null without evaluations to compare.
 */
export function terminalLabel(
  cliff: Cliff | null,
  captures: readonly Capture[],
  deadRoles: readonly string[] = [],
): Label | null {
  if (cliff === null || cliff.gain === null) return null;
  const improved = cliff.gain.low > 0;
  if (captures.length > 0) return 'capture';
  if (cliff.fallen) return 'cliff';
  if (deadRoles.length > 0) return 'dead-role';
  return improved ? 'improved' : 'flat';
}
