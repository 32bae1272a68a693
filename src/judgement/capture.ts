/**
 * Capture: one role holds nearly all of a shared gradient, and the text of a role has come apart at the same time.
 * Either alone is no capture: a role may do most of the learning to the good of all, and text may change for
 * other reasons.
 */
import type { AlarmConfig } from '../config/schema.js';
import type { Measure, Measurements, Point } from './history.js';

/** Thresholds as in `alarms.capture`; `window`: steps at the start, and at the end, whose means are compared. */
export type CaptureRule = AlarmConfig['capture'] & Pick<AlarmConfig, 'window'>;

/** A share of a role's texts that has changed since the start of the run. */
export interface Signature {
  role: string;
  signal: Measure;
  before: number;
  after: number;
}

/** A shared policy that one role has taken over. */
export interface Capture {
  policy: string;
  dominance: number;
  effectiveRoles: number;
  /** What has changed in the roles' texts; never empty. */
  signatures: Signature[];
}

/** Shares and the direction in which they fail: an answer's format is lost, everything else appears. */
const SHARES: readonly (readonly [Measure, 1 | -1])[] = [
  ['format', -1],
  ['code', 1],
  ['terse', 1],
  ['truncation', 1],
  ['overlap', 1],
];

/**
 * Policies that are captured at the end of the series; `rolesOf` says which roles a policy plays, of which the
 * signatures must come. Policies of one role, whose dominance is 1 by definition, cannot be.
 */
export function findCaptures(
  history: Measurements,
  rolesOf: ReadonlyMap<string, readonly string[]>,
  rule: CaptureRule,
): Capture[] {
  return history.subjects('dominance').flatMap((policy) => {
    const roles = rolesOf.get(policy) ?? [];
    const dominance = lastMean(history.series('dominance', policy), rule.window);
    const effectiveRoles = lastMean(history.series('effective_roles', policy), rule.window);
    if (roles.length < 2 || dominance === null || effectiveRoles === null) return [];
    if (dominance < rule.dominance || effectiveRoles > rule.effectiveRoles) return [];
    const signatures = roles.flatMap((role) => signaturesOf(history, role, rule));
    return signatures.length === 0 ? [] : [{ policy, dominance, effectiveRoles, signatures }];
  });
}

function signaturesOf(history: Measurements, role: string, rule: CaptureRule): Signature[] {
  const found = SHARES.flatMap(([signal, direction]) => {
    const change = changeOf(history.series(signal, role), rule.window);
    if (change === null || direction * (change.after - change.before) < rule.change) return [];
    return [{ role, signal, ...change }];
  });
  const length = changeOf(history.series('length', role), rule.window);
  if (length === null || length.before <= 0) return found;
  const factor = length.after / length.before;
  const drifted = factor >= rule.lengthFactor || factor <= 1 / rule.lengthFactor;
  return drifted ? [...found, { role, signal: 'length', ...length }] : found;
}

/** Null while the two windows would overlap. */
function changeOf(points: readonly Point[], window: number): { before: number; after: number } | null {
  if (points.length < 2 * window) return null;
  return { before: meanOf(points.slice(0, window)), after: meanOf(points.slice(-window)) };
}

function lastMean(points: readonly Point[], window: number): number | null {
  return points.length < window ? null : meanOf(points.slice(-window));
}

function meanOf(points: readonly Point[]): number {
  return points.reduce((sum, { value }) => sum + value, 0) / points.length;
}
