/** Lines and areas over the steps of a run, drawn by Observable Plot without a browser. */
import * as Plot from '@observablehq/plot';
import type { Point } from '../judgement/history.js';
import type { SeriesPoint } from './run-data.js';
import { draw } from './svg.js';

/** Points of a series that one can see at this width; more are averaged. */
const MOST_POINTS = 200;

/** Okabe and Ito's colours without black, which tell apart for the colour-blind too (2008). */
const COLORS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#b8a900', '#888888'];

/** Lines that one picture tells apart. */
export const MOST_SERIES = COLORS.length;

export interface Mark {
  step: number;
  label: string;
}

const MARK_LABEL = { x: 'step', text: 'label', frameAnchor: 'top' } as const;

export interface Band {
  step: number;
  low: number;
  high: number;
  series: string;
}

export interface LineChart {
  unit: string;
  points: readonly SeriesPoint[];
  /** Order of the colours; by default that of the first points. */
  series?: readonly string[];
  /** Bands around series: low and high at each step. */
  bands?: readonly Band[];
  /** Bands as a bar at each step, for series that have a value now and then only. */
  bars?: boolean;
  /** Vertical lines. */
  marks?: readonly Mark[];
  /** A horizontal line. */
  level?: number;
  /** Fixed ends of the axis of values. */
  domain?: readonly [number, number];
  percent?: boolean;
  dots?: boolean;
  /** Points of a line at most. */
  most?: number | undefined;
}

/** Lines over steps, one for each series, with a moving mean where they are long and noisy. */
export function lineChart(chart: LineChart): string {
  const { unit, level, domain, percent = false, dots = false, bars = false, marks = [], most } = chart;
  const series = chart.series ?? seriesOf(chart.points);
  const bands = series.flatMap((name) =>
    binnedBand(
      (chart.bands ?? []).filter((one) => one.series === name),
      most,
    ),
  );
  const points = series.flatMap((name) => withGaps(binned(chart.points, [name], most)));
  const long = points.length / Math.max(1, series.length) > 60 && !dots;
  const means = long
    ? series.flatMap((name) => movingMeans(points.filter((point) => point.series === name)))
    : [];
  const line = { x: 'step', y: 'value', stroke: 'series', z: 'series' };
  const ends = { x: 'step', y1: 'low', y2: 'high' };
  const last = Math.max(...points.map(({ step }) => step));
  return draw({
    x: { label: 'step', ...wholeSteps(points) },
    y: {
      label: unit,
      grid: true,
      ...(domain && { domain: [...domain], clamp: true }),
      percent,
      tickFormat: shortNumber,
    },
    color: { domain: [...series], range: COLORS },
    marks: [
      level === undefined ? null : Plot.ruleY([level], { strokeDasharray: '2,3', strokeOpacity: 0.6 }),
      bars
        ? Plot.ruleX(bands, { ...ends, stroke: 'series', strokeWidth: 1.5, strokeOpacity: 0.5 })
        : Plot.areaY(bands, { ...ends, fill: 'series', z: 'series', fillOpacity: 0.15 }),
      Plot.line(points, { ...line, strokeWidth: long ? 0.6 : 1.5, strokeOpacity: long ? 0.4 : 1 }),
      Plot.line(means, { ...line, strokeWidth: 2 }),
      dots ? Plot.dot(points, { x: 'step', y: 'value', fill: 'series', r: 2.5 }) : null,
      Plot.ruleX(marks, { x: 'step', strokeDasharray: '4,3', strokeOpacity: 0.5 }),
      ...marks.map((mark, i) => {
        // Below each other, since marks may be close; towards the middle, where there is room.
        const side = mark.step > last / 2 ? { textAnchor: 'end', dx: -3 } : { textAnchor: 'start', dx: 3 };
        return Plot.text([mark], { ...MARK_LABEL, ...side, dy: 4 + 11 * (i % 3) } as Plot.TextOptions);
      }),
    ],
  });
}

/** Shares of a whole over steps, stacked. */
export function areaChart(
  chart: Pick<LineChart, 'unit' | 'points' | 'series' | 'percent' | 'marks' | 'most'>,
): string {
  const { unit, percent = false, marks = [] } = chart;
  const series = chart.series ?? seriesOf(chart.points);
  const points = binned(chart.points, series, chart.most);
  return draw({
    x: { label: 'step', ...wholeSteps(points) },
    y: { label: unit, percent, tickFormat: shortNumber },
    color: { domain: [...series], range: COLORS },
    marks: [
      Plot.areaY(points, {
        x: 'step',
        y: 'value',
        fill: 'series',
        z: 'series',
        order: [...series],
        fillOpacity: 0.85,
      }),
      Plot.ruleX(marks, { x: 'step', strokeDasharray: '4,3', strokeOpacity: 0.7 }),
    ],
  });
}

/** Names and colours of the series of a chart, for its legend. */
export function legendOf(series: readonly string[]): { name: string; color: string }[] {
  return series.map((name, i) => ({ name, color: COLORS[i % COLORS.length] as string }));
}

export function seriesOf(points: readonly SeriesPoint[]): string[] {
  return [...new Set(points.map(({ series }) => series))];
}

/** Means of neighbouring steps, so that a series has at most MOST_POINTS. */
function binned(
  points: readonly SeriesPoint[],
  series: readonly string[],
  most: number | undefined,
): SeriesPoint[] {
  return series.flatMap((name) => {
    const own = points.filter((point) => point.series === name);
    return meanBins(own, most).map((point) => ({ ...point, series: name }));
  });
}

/** Bins are of steps, not of points: where steps have no value a bin has fewer, or is not there. */
export function meanBins(points: readonly Point[], most = MOST_POINTS): Point[] {
  const [first, last] = [points[0]?.step ?? 0, points.at(-1)?.step ?? 0];
  if (points.length <= most) return [...points];
  const size = Math.ceil((last - first + 1) / most);
  const bins = new Map<number, { step: number; sum: number; count: number }>();
  for (const { step, value } of points) {
    const key = Math.floor((step - first) / size);
    const bin = bins.get(key) ?? { step: first + key * size, sum: 0, count: 0 };
    bins.set(key, bin);
    bin.sum += value;
    bin.count += 1;
  }
  return [...bins.values()].map(({ step, sum, count }) => ({ step, value: sum / count }));
}

function binnedBand(band: readonly Band[], most: number | undefined): Band[] {
  const ends = (end: 'low' | 'high') =>
    meanBins(
      band.map((one) => ({ step: one.step, value: one[end] })),
      most,
    );
  const high = ends('high');
  return ends('low').map(({ step, value: low }, i) => {
    return { step, low, high: high[i]?.value ?? low, series: band[0]?.series ?? '' };
  });
}

/** A step without a value breaks the line: no number between its neighbours was measured. */
export function withGaps(points: readonly SeriesPoint[]): SeriesPoint[] {
  const distances = points.slice(1).map(({ step }, i) => step - (points[i]?.step ?? 0));
  const usual = distances.toSorted((a, b) => a - b)[Math.floor(distances.length / 2)] ?? 1;
  return points.flatMap((point, i) => {
    const before = points[i - 1];
    const gap = before !== undefined && point.step - before.step > 1.5 * usual;
    return gap ? [{ ...point, step: before.step + usual, value: Number.NaN }, point] : [point];
  });
}

/** Over the last 11 points that have a value; a gap stays one. */
function movingMeans(points: readonly SeriesPoint[], width = 11): SeriesPoint[] {
  let recent: number[] = [];
  return points.map((point) => {
    if (Number.isNaN(point.value)) return point;
    recent = [...recent, point.value].slice(-width);
    return { ...point, value: recent.reduce((sum, value) => sum + value, 0) / recent.length };
  });
}

/** At most seven characters, so that no label of an axis is cut: 0.25, 12,000, 1.5e-7. */
export function shortNumber(value: number): string {
  const size = Math.abs(value);
  if (size === 0) return '0';
  if (size < 1e-3 || size >= 1e6)
    return value
      .toExponential(2)
      .replace(/\.?0+e/, 'e')
      .replace('e+', 'e');
  return Number(value.toPrecision(4)).toLocaleString('en', { maximumFractionDigits: 6 });
}

/** Steps are whole numbers, of which short runs have few. */
function wholeSteps(points: readonly Point[]): Plot.ScaleOptions {
  const steps = [...new Set(points.map(({ step }) => step))].sort((a, b) => a - b);
  if (steps.length === 1) return { domain: [(steps[0] ?? 0) - 1, (steps[0] ?? 0) + 1], ticks: 1 };
  const span = (steps.at(-1) ?? 0) - (steps[0] ?? 0);
  return { ticks: Math.min(6, Math.max(1, span)), tickFormat: 'd' };
}
