/**
 * Capture: one role holds most of a shared gradient and goes on working, while another role of the policy has lost
 * its function and accuracy has fallen (alarms.ts adds the last). None of these alone is one: a role may do most of
 * the learning to the good of all, texts change while a role learns, and accuracy falls for many reasons.
 */
import type { AlarmConfig } from '../config/schema.js';
import type { Measure, Measurements, Point } from './history.js';

/** Thresholds as in `alarms.capture`; `window`: steps at the start, and at the end, whose means are compared. */
export type CaptureRule = AlarmConfig['capture'] & Pick<AlarmConfig, 'window'>;

/** What a role no longer does as at the start of the run. */
export interface Signature {
  role: string;
  signal: Measure;
  /** For `pick_right` how much more often its pick is right than a random one; else the signal's own value. */
  before: number;
  after: number;
}

/** A shared policy that one role has taken over. */
export interface Capture {
  policy: string;
  /** The role with the largest share of the gradient's mass, and that share. */
  role: string;
  massShare: number;
  /** What the other roles have lost; never empty. */
  signatures: Signature[];
}

/**
 * Shares and the direction in which they fail. How much parallel slots agree (`overlap`) is none of them: voters
 * agree more the more of them are right.
 */
const SHARES: readonly (readonly [Measure, 1 | -1])[] = [
  ['format', -1],
  ['code', 1],
  ['terse', 1],
  ['truncation', 1],
];

/**
 * How many windows of steps picks are compared over. In the lab's runs how much more often a pick is right than a
 * random one varies from step to step by 0.06, and is 0.02 to 0.06 at the start: 30 steps know it to 0.01.
 */
const PICK_WINDOWS = 6;

/**
 * Policies of which at the end of the series one role holds at least `dominance` of the mass and still writes in
 * its form, and another does not do what it did; `rolesOf` says which roles a policy plays. Policies of one role
 * cannot be captured.
 */
export function findCaptures(
  history: Measurements,
  rolesOf: ReadonlyMap<string, readonly string[]>,
  rule: CaptureRule,
): Capture[] {
  return [...rolesOf].flatMap(([policy, roles]) => {
    const leading = roles.length < 2 ? undefined : leaderOf(history, roles, rule);
    if (leading === undefined || leading.massShare < rule.dominance) return [];
    if (changesOf(history, leading.role, rule).some(({ signal }) => signal === 'format')) return [];
    const signatures = roles
      .filter((role) => role !== leading.role)
      .flatMap((role) => changesOf(history, role, rule));
    return signatures.length === 0 ? [] : [{ policy, ...leading, signatures }];
  });
}

/** The role of most mass over the last steps; undefined while there are fewer. */
function leaderOf(history: Measurements, roles: readonly string[], { window }: CaptureRule) {
  const shares = roles.flatMap((role) => {
    const massShare = lastMean(history.series('mass_share', role), window);
    return massShare === null ? [] : [{ role, massShare }];
  });
  return shares.sort((a, b) => b.massShare - a.massShare)[0];
}

/** What of a role's function is lost since the first steps. */
function changesOf(history: Measurements, role: string, rule: CaptureRule): Signature[] {
  const found = SHARES.flatMap(([signal, direction]): Signature[] => {
    const change = changeOf(history.series(signal, role), rule.window);
    if (change === null || direction * (change.after - change.before) < rule.change) return [];
    return [{ role, signal, ...change }];
  });
  const length = changeOf(history.series('length', role), rule.window);
  if (length !== null && length.before > 0) {
    const factor = length.after / length.before;
    if (factor >= rule.lengthFactor || factor <= 1 / rule.lengthFactor)
      found.push({ role, signal: 'length', ...length });
  }
  const picks = changeOf(picksBeyondChance(history, role), PICK_WINDOWS * rule.window);
  if (picks !== null && picks.before > 0 && picks.after <= 0)
    found.push({ role, signal: 'pick_right', ...picks });
  return found;
}

/** How much more often a role's pick is right than a random one, at each step that has both. */
function picksBeyondChance(history: Measurements, role: string): Point[] {
  const random = new Map(history.series('random_right', role).map(({ step, value }) => [step, value]));
  return history.series('pick_right', role).flatMap(({ step, value }) => {
    const chance = random.get(step);
    return chance === undefined ? [] : [{ step, value: value - chance }];
  });
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

/** "policy shared by generator; changed: format of evaluator". */
export function describeCapture({ policy, role, signatures }: Capture): string {
  const changed = signatures.map((one) => `${one.signal.replace('_', ' ')} of ${one.role}`);
  return `policy ${policy} by ${role}; changed: ${changed.join(', ')}`;
}
