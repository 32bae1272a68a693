/** Cosines between roles corrected for noise, and how seldom they have a value (docs/gradients.md). */
import type { Point } from '../judgement/history.js';
import type { Band, LineChart } from './charts.js';
import { type Row, wideRows } from './figure.js';
import type { RunData, SeriesPoint } from './run-data.js';

/** A point with its own interval, where it has one. */
export interface IntervalPoint extends Point {
  low?: number;
  high?: number;
}

type Look = Omit<LineChart, 'points'>;
export const CORRECTED_CHART = {
  unit: 'cosine',
  domain: [-1.5, 1.5],
  level: 0,
  bars: true,
  dots: true,
} as const satisfies Look;
export const FLOOR_CHART = { unit: 'cosine', domain: [-1, 1], level: 0 } as const satisfies Look;

export const CORRECTED_CAPTION =
  'Over disjoint halves of the prompts, divided by the noise floor of both. Bar: 95 % bootstrap interval, none where too ' +
  'few resamples have a value. A conflict is claimed only where all of it lies below 0.';
export const FLOOR_CAPTION =
  'A role’s gradient on half of the prompts with its gradient on the other half. Where it is not above 0 the role’s ' +
  'cosines with others cannot be corrected.';

/** By pair of roles; empty without `gradients.promptBuckets`. */
export function correctedCosines({ history }: RunData): Map<string, IntervalPoint[]> {
  return new Map(
    history.subjects('corrected_cosine').map((pair) => {
      const [lows, highs] = (['corrected_low', 'corrected_high'] as const).map(
        (measure) => new Map(history.series(measure, pair).map(({ step, value }) => [step, value])),
      );
      const points = history.series('corrected_cosine', pair).map((point) => {
        const [low, high] = [lows?.get(point.step), highs?.get(point.step)];
        return low === undefined || high === undefined ? point : { ...point, low, high };
      });
      return [pair, points];
    }),
  );
}

/**
 * "3 of 20": the steps at which two roles of one policy have a corrected cosine, of those at which the noise floor was
 * measured. Undefined for other roles, and where it never was.
 */
export function valuesOfMeasured({ history }: RunData, pair: string): string | undefined {
  const steps = history.subjects('split_half').flatMap((role) => history.series('split_half', role));
  const measured = new Set(steps.map(({ step }) => step)).size;
  if (measured === 0 || !history.subjects('role_cosine').includes(pair)) return undefined;
  return `${history.series('corrected_cosine', pair).length} of ${measured}`;
}

/** Numbers of a picture whose points have intervals of their own. */
export function rowsWithEnds(points: readonly SeriesPoint[], bands: readonly Band[]): Row[] {
  const ends = bands.flatMap(({ step, series, low, high }) => [
    { step, series: `${series}, low`, value: low },
    { step, series: `${series}, high`, value: high },
  ]);
  return wideRows([...points, ...ends]);
}
