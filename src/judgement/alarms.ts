/**
 * Alarms: rules over what a run has measured (docs/alarms.md). An alarm stands at the step at which its rule begins
 * to hold, and comes from nothing after that step, so that a run in progress, a resumed one and an analysis
 * afterwards find the same ones. What is done about them is decided in learning/alarms.ts.
 */
import { type AlarmRule, TRENDS, type Trend } from '../config/alarm-rules.js';
import type { AlarmConfig } from '../config/schema.js';
import { mean, standardDeviation } from '../gradients/mismatch.js';
import { type Capture, findCaptures } from './capture.js';
import { findCliff, LEAST_DROP } from './cliff.js';
import { between, type History, MEASURES, type Measure, type Measurements, type Point } from './history.js';

/** A rule of the configuration (`alarms`) that has begun to hold. */
export interface Alarm {
  /** Steps that were done when the rule began to hold. */
  step: number;
  rule: AlarmRule;
  /** The one of the two that it is about; both null: the run. */
  role: string | null;
  policy: string | null;
  value: number;
  threshold: number;
  baseline: number | null;
}

const DIRECTIONS: Record<Trend, 'rise' | 'fall'> = {
  kl: 'rise',
  perplexity: 'rise',
  entropy: 'fall',
  gradient_norm: 'rise',
  amplification: 'rise',
  coherence: 'fall',
  dominance: 'rise',
  format: 'fall',
  truncation: 'rise',
};

/** The part of a run that its alarms compare: from a rollback (or the start) to the next. */
export interface Segment {
  /** Steps that were done when it began. */
  since: number;
  /** Steps that were done when it ended; undefined: it goes on. */
  until?: number;
}

/** The segments of a run, one more than it was rolled back. */
export function segmentsOf(history: Pick<History, 'rollbacks'>): Segment[] {
  const starts = [0, ...history.rollbacks];
  return starts.map((since, i) => {
    const until = starts[i + 1];
    return until === undefined ? { since } : { since, until };
  });
}

/**
 * Alarms of a segment in the order of their steps. `only`: those of this step alone, which costs less; the same
 * ones as when all are asked for.
 */
export function findAlarms(
  history: History,
  config: AlarmConfig,
  segment: Segment = { since: 0 },
  only?: number,
): Alarm[] {
  // Step s of the run is done when s + 1 steps are.
  const measured = between(history, segment.since, segment.until);
  const found = [
    ...accuracyAlarms(history, config, segment, only),
    ...captureAlarms(history, config, segment, only),
    ...TRENDS.flatMap((rule) => trendAlarms(measured, rule, config, only)),
  ];
  return found.sort((a, b) => a.step - b.step);
}

/** Evaluations of a segment. The one at its start was made before the rollback, of other parameters. */
export function evaluationsOf(history: Pick<History, 'evaluations'>, { since, until }: Segment) {
  return history.evaluations.filter(({ step }) => {
    return (step > since || since === 0) && (until === undefined || step <= until);
  });
}

function accuracyAlarms(
  history: History,
  { accuracy, patience }: AlarmConfig,
  segment: Segment,
  only: number | undefined,
): Alarm[] {
  if (accuracy === null) return [];
  const evaluations = evaluationsOf(history, segment);
  const cliffAt = (count: number) => findCliff(evaluations.slice(0, count), accuracy);
  /** Whether the last `patience` of the first `count` evaluations lay below the peak of their time. */
  const fallen = (count: number) =>
    count >= patience &&
    Array.from({ length: patience }, (_, i) => count - i).every((end) => cliffAt(end)?.fallen === true);
  return evaluations.flatMap(({ step }, i): Alarm[] => {
    if (only !== undefined && step !== only) return [];
    const cliff = cliffAt(i + 1);
    if (cliff === null || !fallen(i + 1) || fallen(i)) return [];
    const { peak, current } = cliff;
    const threshold = peak.accuracy - accuracy;
    const about = { role: null, policy: null };
    return [
      { step, rule: 'accuracy', ...about, value: current.accuracy, threshold, baseline: peak.accuracy },
    ];
  });
}

/**
 * Policies of a segment that are captured when `steps` steps are done: by the rule of capture.ts, and the last
 * evaluation until then has fallen (cliff.ts) below the peak of its time.
 */
export function capturesOf(
  history: History,
  { capture, window, accuracy }: AlarmConfig,
  segment: Segment,
  steps = segment.until ?? Number.POSITIVE_INFINITY,
): Capture[] {
  const found = findCaptures(between(history, segment.since, steps), history.rolesOf, { ...capture, window });
  if (found.length === 0) return [];
  const evaluations = evaluationsOf(history, segment).filter(({ step }) => step <= steps);
  return findCliff(evaluations, accuracy ?? LEAST_DROP)?.fallen === true ? found : [];
}

function captureAlarms(
  history: History,
  config: AlarmConfig,
  segment: Segment,
  only: number | undefined,
): Alarm[] {
  const captured = (steps: number) => capturesOf(history, config, segment, steps);
  const measured = between(history, segment.since, segment.until);
  const steps = measured.subjects('dominance').flatMap((policy) => {
    return measured.series('dominance', policy).map(({ step }) => step + 1);
  });
  const asked = [...new Set(steps)].filter((step) => only === undefined || step === only);
  return asked.flatMap((step) => {
    const before = new Set(captured(step - 1).map(({ policy }) => policy));
    return captured(step)
      .filter(({ policy }) => !before.has(policy))
      .map(({ policy, massShare: value }): Alarm => {
        const { dominance: threshold } = config.capture;
        return { step, rule: 'capture', role: null, policy, value, threshold, baseline: null };
      });
  });
}

function trendAlarms(
  measured: Measurements,
  rule: Trend,
  config: AlarmConfig,
  only: number | undefined,
): Alarm[] {
  const measure: Measure = rule;
  const { subject: kind } = MEASURES[measure];
  return measured.subjects(measure).flatMap((subject) => {
    const about = kind === 'role' ? { role: subject, policy: null } : { role: null, policy: subject };
    return crossings(measured.series(measure, subject), rule, config)
      .map(({ step, ...found }) => ({ step: step + 1, rule, ...about, ...found }))
      .filter(({ step }) => only === undefined || step === only);
  });
}

export interface Crossing {
  step: number;
  value: number;
  threshold: number;
  baseline: number;
}

/**
 * Points of a series at which a trend begins: the mean of the last `window` points goes beyond what the rule and
 * the noise of the first `baseline` points allow. For a rising trend the threshold is the largest of
 * factor · b + change, b + deviations · s · √(1/window + 1/baseline) and level, where b and s are mean and standard
 * deviation of the first points; for a falling one the smallest of b / factor − change, b − …, and level. None
 * while the two sets of points overlap.
 */
export function crossings(
  points: readonly Point[],
  rule: Trend,
  config: Pick<AlarmConfig, 'trends' | 'window' | 'baseline' | 'deviations'>,
): Crossing[] {
  const settings = config.trends[rule];
  const first = points.slice(0, config.baseline).map(({ value }) => value);
  const baseline = mean(first);
  const spread = standardDeviation(first);
  if (settings === null || baseline === null || spread === null) return [];
  const sign = DIRECTIONS[rule] === 'rise' ? 1 : -1;
  const error = spread * Math.sqrt(1 / config.window + 1 / config.baseline);
  const limits = [
    sign > 0 ? baseline * settings.factor : baseline / settings.factor,
    baseline + sign * config.deviations * error,
    ...(settings.level === null ? [] : [settings.level]),
  ];
  limits[0] = (limits[0] ?? 0) + sign * settings.change;
  const threshold = sign > 0 ? Math.max(...limits) : Math.min(...limits);
  const isBeyond = (end: number) => {
    const value = windowMean(points, end, config);
    return value !== undefined && sign * (value - threshold) > 0;
  };
  return points.flatMap(({ step }, at) => {
    if (!isBeyond(at + 1) || isBeyond(at)) return [];
    return [{ step, value: windowMean(points, at + 1, config) ?? 0, threshold, baseline }];
  });
}

/** Mean of the last `window` of the first `end` points; undefined where they reach into the baseline. */
function windowMean(
  points: readonly Point[],
  end: number,
  { window, baseline }: Pick<AlarmConfig, 'window' | 'baseline'>,
): number | undefined {
  if (end < window + baseline) return undefined;
  let sum = 0;
  for (let at = end - window; at < end; at++) sum += points[at]?.value ?? 0;
  return sum / window;
}
