/**
 * Pictures as SVG text, drawn by Observable Plot without a browser. They take their text colour from where they
 * stand (currentColor), so that a page may be light or dark.
 */
import * as Plot from '@observablehq/plot';
import { parseHTML } from 'linkedom';
import type { Point } from '../gradients/history.js';
import type { SeriesPoint } from './run-data.js';

const WIDTH = 460;
const HEIGHT = 230;
/** Points of a series that one can see at this width; more are averaged. */
const MOST_POINTS = 200;

/** Okabe and Ito's colours without black, which tell apart for the colour-blind too (2008). */
const COLORS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#b8a900', '#888888'];

export interface Mark {
  step: number;
  label: string;
}

/** Labels stand below each other, since their marks may be close. */
const MARK_LABEL = { x: 'step', text: 'label', frameAnchor: 'top', dx: 3, textAnchor: 'start' } as const;

export interface LineChart {
  unit: string;
  points: readonly SeriesPoint[];
  /** Order of the colours; by default that of the first points. */
  series?: readonly string[];
  /** Bands around series: low and high at each step. */
  bands?: readonly { step: number; low: number; high: number; series: string }[];
  /** Vertical lines. */
  marks?: readonly Mark[];
  /** A horizontal line. */
  level?: number;
  /** Fixed ends of the axis of values. */
  domain?: readonly [number, number];
  percent?: boolean;
  dots?: boolean;
}

/** Lines over steps, one for each series, with a moving mean where they are long and noisy. */
export function lineChart(chart: LineChart): string {
  const { unit, level, domain, percent = false, dots = false, bands = [], marks = [] } = chart;
  const series = chart.series ?? seriesOf(chart.points);
  const points = binned(chart.points, series);
  const long = points.length / Math.max(1, series.length) > 60 && !dots;
  const line = { x: 'step', y: 'value', stroke: 'series', z: 'series' };
  return draw({
    x: { label: 'step', ...wholeSteps(points) },
    y: { label: unit, grid: true, ...(domain && { domain: [...domain], clamp: true }), percent },
    color: { domain: [...series], range: COLORS },
    marks: [
      level === undefined ? null : Plot.ruleY([level], { strokeDasharray: '2,3', strokeOpacity: 0.6 }),
      Plot.areaY(bands, { x: 'step', y1: 'low', y2: 'high', fill: 'series', z: 'series', fillOpacity: 0.15 }),
      Plot.line(points, { ...line, strokeWidth: long ? 0.6 : 1.5, strokeOpacity: long ? 0.4 : 1 }),
      long ? Plot.line(points, Plot.windowY({ k: 11, anchor: 'end' }, { ...line, strokeWidth: 2 })) : null,
      dots ? Plot.dot(points, { x: 'step', y: 'value', fill: 'series', r: 2.5 }) : null,
      Plot.ruleX(marks, { x: 'step', strokeDasharray: '4,3', strokeOpacity: 0.5 }),
      ...marks.map((mark, i) => Plot.text([mark], { ...MARK_LABEL, dy: 4 + 11 * (i % 3) })),
    ],
  });
}

/** Shares of a whole over steps, stacked. */
export function areaChart(
  chart: Pick<LineChart, 'unit' | 'points' | 'series' | 'percent' | 'marks'>,
): string {
  const { unit, percent = false, marks = [] } = chart;
  const series = chart.series ?? seriesOf(chart.points);
  const points = binned(chart.points, series);
  return draw({
    x: { label: 'step', ...wholeSteps(points) },
    y: { label: unit, percent },
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

export interface Cell {
  x: number | string;
  y: number | string;
  /** −1 to 1; null is left empty. */
  value: number | null;
}

const DIVERGING = { type: 'diverging', scheme: 'RdBu', domain: [-1, 1], clamp: true } as const;

/** Cosines by step and layer: x are steps, y layers. */
export function stepHeatMap(cells: readonly Cell[]): string {
  const steps = new Set(cells.map(({ x }) => Number(x)));
  const layers = new Set(cells.map(({ y }) => Number(y)));
  return draw({
    x: { label: 'step', type: 'band', ticks: some(steps, 6), padding: 0 },
    y: { label: 'layer', type: 'band', ticks: some(layers, 12), padding: 0, reverse: true },
    color: DIVERGING,
    marks: [Plot.cell(cells, { x: 'x', y: 'y', fill: 'value', filter: (cell: Cell) => cell.value !== null })],
  });
}

export interface Matrix {
  title: string;
  /** x and y are names of groups. */
  cells: readonly Cell[];
}

/** Square matrices of cosines beside each other. */
export function matrices(list: readonly Matrix[], groups: readonly string[]): string {
  const columns = Math.min(list.length, groups.length > 6 ? 4 : 8);
  const side = Math.min(Math.max(groups.length * 24, 72), 220);
  const place = (i: number) => ({ fx: i % columns, fy: Math.floor(i / columns) });
  const cells = list.flatMap((one, i) => one.cells.map((cell) => ({ ...cell, ...place(i) })));
  const titles = list.map(({ title }, i) => ({ title, ...place(i) }));
  const known = (cell: Cell) => cell.value !== null;
  const at = { x: 'x', y: 'y', fx: 'fx', fy: 'fy', filter: known };
  return draw({
    width: columns * (side + 10) + 10,
    height: Math.ceil(list.length / columns) * (side + 24) + 8,
    margin: 5,
    marginLeft: 5,
    x: { domain: [...groups], axis: null, padding: 0.04 },
    y: { domain: [...groups], axis: null, padding: 0.04, insetTop: 16 },
    fx: { axis: null, padding: 0.08 },
    fy: { axis: null, padding: 0.04 },
    color: DIVERGING,
    marks: [
      Plot.cell(cells, { ...at, fill: 'value' }),
      Plot.text(cells, {
        ...at,
        text: ({ value }: Cell) => shortCosine(value ?? 0),
        fill: ({ value }: Cell) => (Math.abs(value ?? 0) > 0.6 ? 'white' : 'black'),
        fontSize: 9,
      }),
      Plot.text(titles, { fx: 'fx', fy: 'fy', text: 'title', frameAnchor: 'top', fontWeight: 'bold' }),
    ],
  });
}

/** About `most` of the values, evenly. */
function some(values: ReadonlySet<number>, most: number): number[] {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.filter((_, i) => i % Math.ceil(sorted.length / most) === 0);
}

function shortCosine(value: number): string {
  const rounded = Math.round(100 * value) / 100 || 0;
  return Number.isInteger(rounded) ? String(rounded) : rounded.toFixed(2).replace('0.', '.');
}

/** Names and colours of the series of a chart, for its legend. */
export function legendOf(series: readonly string[]): { name: string; color: string }[] {
  return series.map((name, i) => ({ name, color: COLORS[i % COLORS.length] as string }));
}

export function seriesOf(points: readonly SeriesPoint[]): string[] {
  return [...new Set(points.map(({ series }) => series))];
}

/** Means of neighbouring steps, so that a series has at most MOST_POINTS. */
function binned(points: readonly SeriesPoint[], series: readonly string[]): SeriesPoint[] {
  return series.flatMap((name) => {
    const own = points.filter((point) => point.series === name);
    return meanBins(own).map((point) => ({ ...point, series: name }));
  });
}

export function meanBins(points: readonly Point[], most = MOST_POINTS): Point[] {
  const size = Math.ceil(points.length / most);
  if (size <= 1) return [...points];
  return Array.from({ length: Math.ceil(points.length / size) }, (_, bin) => {
    const part = points.slice(bin * size, (bin + 1) * size);
    const value = part.reduce((sum, point) => sum + point.value, 0) / part.length;
    return { step: part[0]?.step ?? 0, value };
  });
}

/** Steps are whole numbers, of which short runs have few. */
function wholeSteps(points: readonly Point[]): Plot.ScaleOptions {
  const steps = [...new Set(points.map(({ step }) => step))].sort((a, b) => a - b);
  if (steps.length === 1) return { domain: [(steps[0] ?? 0) - 1, (steps[0] ?? 0) + 1], ticks: 1 };
  const span = (steps.at(-1) ?? 0) - (steps[0] ?? 0);
  return { ticks: Math.min(6, Math.max(1, span)), tickFormat: 'd' };
}

function draw(options: Plot.PlotOptions): string {
  const { document } = parseHTML('<html><body></body></html>');
  const drawn = Plot.plot({ width: WIDTH, height: HEIGHT, marginLeft: 48, document, ...options });
  const svg = drawn.tagName.toLowerCase() === 'svg' ? drawn : drawn.querySelector('svg');
  svg?.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
  svg?.setAttribute('role', 'img');
  return svg?.outerHTML ?? '';
}
