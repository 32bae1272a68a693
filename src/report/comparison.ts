/** What stands above the runs of a report that is about several: a table, and their accuracies beside each other. */
import { accuracyOf } from '../gradients/paired.js';
import { legendOf, lineChart, seriesOf } from './charts.js';
import { type Figure, wideRows } from './figure.js';
import { type Html, html } from './html.js';
import type { SeriesPoint } from './run-data.js';
import { figureHtml, type RunPictures } from './run-section.js';

/** One picture for each model, task and workflow; runs that differ in their seeds only share a colour. */
export function comparisonFigures(runs: readonly RunPictures[]): Figure[] {
  const panels = new Map<string, RunPictures[]>();
  for (const one of runs) {
    const { model, task, workflow } = one.run.config;
    const names = [model.path.split('/').at(-1), task.module ?? task.name, workflow.module ?? workflow.name];
    const title = names.join(' · ');
    panels.set(title, [...(panels.get(title) ?? []), one]);
  }
  return [...panels].flatMap(([title, members]) => panel(title, members));
}

function panel(title: string, members: readonly RunPictures[]): Figure[] {
  const means = new Map<string, Map<number, number[]>>();
  for (const { run } of members) {
    const { sharing } = run.config.policies;
    const name = typeof sharing === 'string' ? sharing : 'mapped';
    const steps = means.get(name) ?? new Map<number, number[]>();
    means.set(name, steps);
    for (const { step, correct } of run.history.evaluations) {
      const mean = accuracyOf(correct);
      if (mean !== null) steps.set(step, [...(steps.get(step) ?? []), mean]);
    }
  }
  const points: SeriesPoint[] = [];
  const bands = [...means].flatMap(([series, steps]) => {
    return [...steps].map(([step, values]) => {
      points.push({ step, series, value: values.reduce((sum, value) => sum + value, 0) / values.length });
      return { step, series, low: Math.min(...values), high: Math.max(...values) };
    });
  });
  if (points.length === 0) return [];
  const series = seriesOf(points);
  const seeds = new Set(members.map(({ run }) => run.config.seed)).size;
  return [
    {
      id: `accuracy-${title.replaceAll(/[^\w]+/g, '-')}`,
      title,
      caption: seeds > 1 ? `Mean over ${seeds} seeds; band: the lowest and the highest of them.` : '',
      svg: lineChart({
        unit: 'accuracy (%)',
        percent: true,
        domain: [0, 100],
        points,
        series,
        bands,
        dots: true,
      }),
      legend: legendOf(series),
      numbers: wideRows(points),
    },
  ];
}

const percent = (share: number | undefined) => (share === undefined ? '–' : `${(100 * share).toFixed(1)} %`);

/** `ids`: of the runs' sections. */
export function comparison(
  runs: readonly RunPictures[],
  ids: readonly string[],
  figures: readonly Figure[],
): Html {
  const rows = runs.map(({ run, verdict: { cliff, label, alarms } }, i) => {
    const drop = cliff?.drop;
    const interval =
      drop === null || drop === undefined ? '' : `${percent(drop.low)} to ${percent(drop.high)}`;
    return html`<tr><td class="name"><a href="#${ids[i]}">${run.name}</a></td><td>${run.steps}</td>
<td>${percent(cliff?.first.accuracy)}</td><td>${percent(cliff?.peak.accuracy)}</td><td>${cliff?.peak.step}</td>
<td>${percent(cliff?.current.accuracy)}</td><td>${percent(drop?.difference)}</td><td>${interval}</td>
<td>${alarms[0]?.step ?? '–'}</td><td><span class="label ${label ?? 'none'}">${label ?? '–'}</span></td></tr>
`;
  });
  return html`<section id="runs"><h2>${runs.length} runs</h2>
<div class="figures">${figures.map((figure) => figureHtml(figure, 'runs'))}</div>
<table><thead><tr><th>run</th><th>steps</th><th>base</th><th>peak</th><th>at step</th><th>terminal</th><th>drop</th>
<th>95 % interval</th><th>first alarm</th><th>label</th></tr></thead><tbody>${rows}</tbody></table></section>
`;
}
