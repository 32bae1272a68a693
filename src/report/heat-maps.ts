/** Cosines as colours: matrices of groups beside each other, and layers over steps, each with its scale below. */
import * as Plot from '@observablehq/plot';
import { draw, stacked, WIDTH } from './svg.js';

export interface Cell {
  x: number | string;
  y: number | string;
  /** −1 to 1; null is left empty. */
  value: number | null;
}

const DIVERGING = { type: 'diverging', scheme: 'RdBu', domain: [-1, 1], clamp: true } as const;
/** Steps of colour from 0 to 1: finer ones no eye tells apart. */
const SHADES = 20;
const shade = (value: number) => Math.round(value * SHADES) / SHADES;
const isKnown = (cell: Cell) => cell.value !== null;
const shaded = (cells: readonly Cell[]) =>
  cells.filter(isKnown).map(({ x, y, value }) => ({ x, y, value, shade: shade(value ?? 0) }));

/** Cosines by step and layer: x are steps, y layers. */
export function stepHeatMap(cells: readonly Cell[]): string {
  const steps = new Set(cells.map(({ x }) => Number(x)));
  const layers = new Set(cells.map(({ y }) => Number(y)));
  const map = draw({
    x: { label: 'step', type: 'band', ticks: some(steps, 6), padding: 0 },
    y: { label: 'layer', type: 'band', ticks: some(layers, 12), padding: 0, reverse: true },
    color: DIVERGING,
    marks: [Plot.cell(shaded(cells), { x: 'x', y: 'y', fill: 'shade' })],
  });
  return stacked(map, scale());
}

export interface Matrix {
  title: string;
  /** x and y are names of groups. */
  cells: readonly Cell[];
}

/** Pixels of a letter of 9 px, about. */
const LETTER = 5.2;

/** Square matrices of cosines beside each other, with the groups' names at the left and below. */
export function matrices(list: readonly Matrix[], groups: readonly string[]): string {
  const columns = Math.min(list.length, groups.length > 6 ? 4 : 8);
  const side = Math.min(Math.max(groups.length * 24, 72), 220);
  const rows = Math.ceil(list.length / columns);
  const names = 14 + LETTER * Math.max(...groups.map((group) => Math.min(group.length, LONGEST)));
  const place = (i: number) => ({ fx: i % columns, fy: Math.floor(i / columns) });
  const cells = list.flatMap((one, i) => shaded(one.cells).map((cell) => ({ ...cell, ...place(i) })));
  const titles = list.map(({ title }, i) => ({ title, ...place(i) }));
  const at = { x: 'x', y: 'y', fx: 'fx', fy: 'fy' };
  const map = draw({
    width: Math.max(columns * (side + 10) + 10 + names, WIDTH / 2),
    height: rows * (side + 24) + 8 + names,
    margin: 5,
    marginLeft: names,
    marginBottom: names,
    x: { domain: [...groups], axis: null, padding: 0.04 },
    y: { domain: [...groups], axis: null, padding: 0.04, insetTop: 16 },
    fx: { axis: null, padding: 0.08 },
    fy: { axis: null, padding: 0.04 },
    color: DIVERGING,
    marks: [
      Plot.axisY([...groups], { ...NAMES, facetAnchor: 'left', tickFormat: cut }),
      Plot.axisX([...groups], { ...NAMES, facetAnchor: 'bottom-empty', tickRotate: -90, tickFormat: cut }),
      Plot.cell(cells, { ...at, fill: 'shade' }),
      Plot.text(cells, {
        ...at,
        text: ({ value }: Cell) => shortCosine(value ?? 0),
        fill: ({ value }: Cell) => (Math.abs(value ?? 0) > 0.6 ? 'white' : 'black'),
        fontSize: 9,
      }),
      Plot.text(titles, { fx: 'fx', fy: 'fy', text: 'title', frameAnchor: 'top', fontWeight: 'bold' }),
    ],
  });
  return stacked(map, scale());
}

const LONGEST = 24;
const NAMES = { label: null, tickSize: 0, fontSize: 9 } as const;
const cut = (name: string) => (name.length > LONGEST ? `${name.slice(0, LONGEST - 1)}…` : name);

/** What the colours stand for. */
function scale(): string {
  const cells = Array.from({ length: 2 * SHADES + 1 }, (_, i) => ({ x: (i - SHADES) / SHADES }));
  return draw({
    width: WIDTH / 2,
    height: 46,
    marginTop: 4,
    marginBottom: 32,
    marginLeft: 14,
    marginRight: 14,
    x: { type: 'band', padding: 0, ticks: [-1, -0.5, 0, 0.5, 1], label: 'cosine', labelAnchor: 'center' },
    color: DIVERGING,
    marks: [Plot.cellX(cells, { x: 'x', fill: 'x' })],
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
