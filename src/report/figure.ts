/** A picture with what one needs to read it, the numbers that it shows, and the tables that both are made of. */
import type { SeriesPoint } from './run-data.js';

export type Row = Record<string, string | number | null>;

export interface Figure {
  /** Unique in its run: also the name of its file. */
  id: string;
  title: string;
  caption: string;
  /** The picture as SVG. `most`: points of a line; of more, neighbouring ones are averaged. */
  svg(most?: number): string;
  legend: readonly { name: string; color: string }[];
  /** What the picture shows, in full. */
  numbers: readonly Row[];
}

export interface Section {
  id: string;
  title: string;
  /** What the section says in words, above its pictures. */
  text?: string;
  figures: readonly Figure[];
}

/** One row for each step, one column for each series. */
export function wideRows(points: readonly SeriesPoint[]): Row[] {
  const names = [...new Set(points.map(({ series }) => series))];
  const rows = new Map<number, Row>();
  for (const { step, series, value } of points) {
    const row = rows.get(step) ?? { step, ...Object.fromEntries(names.map((name) => [name, null])) };
    rows.set(step, row);
    row[series] = value;
  }
  return [...rows.values()].sort((a, b) => Number(a.step) - Number(b.step));
}
