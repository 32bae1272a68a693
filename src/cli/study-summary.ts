/** The results of a study as a table in text: a line for each group of cells that differ in their seeds only. */
import type { CellResult } from '../learning/study/results.js';

interface Group {
  name: string;
  results: CellResult[];
}

const COLUMNS = ['runs', 'base', 'peak', 'at step', 'end', 'drop', 'labels'] as const;

export function summaryLines(results: readonly CellResult[], axes: readonly string[]): string[] {
  const groups = groupsOf(results, axes);
  const width = Math.max(...groups.map(({ name }) => name.length));
  const header = `${''.padEnd(width)}  ${COLUMNS.map((column) => column.padStart(8)).join('')}`;
  return [header, ...groups.map((group) => `${group.name.padEnd(width)}  ${valuesOf(group).join('')}`)];
}

function groupsOf(results: readonly CellResult[], axes: readonly string[]): Group[] {
  const groups = new Map<string, Group>();
  for (const result of results) {
    const values = axes.filter((axis) => axis !== 'seed').flatMap((axis) => result.cell.axes[axis] ?? []);
    const name = values.join(' ') || 'all';
    const group = groups.get(name) ?? { name, results: [] };
    group.results.push(result);
    groups.set(name, group);
  }
  return [...groups.values()];
}

function valuesOf({ results }: Group): string[] {
  const cliffs = results.flatMap(({ verdict }) => verdict.cliff ?? []);
  const percent = (values: readonly number[]) => {
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    return values.length === 0 ? '–' : `${(100 * mean).toFixed(1)}%`;
  };
  const steps = cliffs.map(({ peak }) => peak.step).sort((a, b) => a - b);
  const cells = [
    String(results.length),
    percent(cliffs.map(({ first }) => first.accuracy)),
    percent(cliffs.map(({ peak }) => peak.accuracy)),
    String(steps[Math.floor(steps.length / 2)] ?? '–'),
    percent(cliffs.map(({ current }) => current.accuracy)),
    percent(cliffs.map(({ peak, current }) => peak.accuracy - current.accuracy)),
  ];
  return [...cells.map((cell) => cell.padStart(8)), `  ${labelsOf(results)}`];
}

/** "2 cliff, 1 improved" */
function labelsOf(results: readonly CellResult[]): string {
  const counts = new Map<string, number>();
  for (const { verdict } of results) {
    const label = verdict.label ?? 'none';
    counts.set(label, (counts.get(label) ?? 0) + 1);
  }
  return [...counts].map(([label, count]) => `${count} ${label}`).join(', ');
}
