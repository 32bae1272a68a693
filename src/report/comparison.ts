/**
 * What stands above the runs of a report that is about several: a table, and their measures beside each other. Runs
 * that differ in nothing but their seeds are one line, their mean; all others have one each, named by what differs.
 */

import { groupBy } from '../config/group-by.js';
import { percent } from '../config/percent.js';
import type { Measure } from '../judgement/history.js';
import { accuracyOf } from '../judgement/paired.js';
import { type Band, type LineChart, legendOf, lineChart, MOST_SERIES } from './charts.js';
import { type Figure, wideRows } from './figure.js';
import { type Html, html } from './html.js';
import {
  CORRECTED_CAPTION,
  CORRECTED_CHART,
  correctedCosines,
  FLOOR_CAPTION,
  FLOOR_CHART,
  type IntervalPoint,
  rowsWithEnds,
  valuesOfMeasured,
} from './noise-floor.js';
import type { RunData, SeriesPoint } from './run-data.js';
import { massShares } from './run-figures.js';
import { distinctNames, settingsOf } from './run-names.js';
import { figureHtml, type RunPictures } from './run-section.js';

interface Group {
  name: string;
  runs: RunData[];
}

/** What is compared, by subject: a role, or two of them. */
interface Compared {
  id: string;
  title: string;
  chart: Omit<LineChart, 'points'>;
  of(run: RunData): Map<string, IntervalPoint[]>;
  /** What stands under the pictures beside what their lines are. */
  caption?: string;
  /** A line for each seed, whose points have intervals of their own; a mean has none. */
  seedBySeed?: boolean;
  /** At how many of the steps that could have one a run has a value, in words; undefined where none could. */
  counted?(run: RunData, subject: string): string | undefined;
}

const measure = (name: Measure) => (run: RunData) =>
  new Map(run.history.subjects(name).map((subject) => [subject, run.history.series(name, subject)]));

const PERCENT = { percent: true, domain: [0, 100] } as const;
const COMPARED: readonly Compared[] = [
  {
    id: 'accuracy',
    title: 'held-out accuracy',
    chart: { unit: 'accuracy (%)', ...PERCENT, dots: true },
    of: ({ history }) => {
      const points = history.evaluations.flatMap(({ step, correct }) => {
        const value = accuracyOf(correct);
        return value === null ? [] : [{ step, value }];
      });
      return new Map(points.length === 0 ? [] : [['', points]]);
    },
  },
  {
    id: 'mass-share',
    title: 'gradient mass of',
    chart: { unit: 'share (%)', ...PERCENT },
    of: (run) => groupBy(massShares(run), ({ series }) => series),
  },
  {
    id: 'cosine',
    title: 'cosine of',
    chart: { unit: 'cosine', domain: [-1, 1], level: 0 },
    of: measure('role_cosine'),
  },
  {
    id: 'corrected-cosine',
    title: 'cosine, corrected for noise, of',
    chart: CORRECTED_CHART,
    of: correctedCosines,
    caption: CORRECTED_CAPTION,
    seedBySeed: true,
    counted: valuesOfMeasured,
  },
  {
    id: 'noise-floor',
    title: 'noise floor of',
    chart: FLOOR_CHART,
    of: measure('split_half'),
    caption: FLOOR_CAPTION,
  },
  {
    id: 'amplification',
    title: 'amplification of',
    chart: { unit: 'amplification' },
    of: measure('amplification'),
  },
];

/** For each model, task and workflow, one picture for each measure and its subject. */
export function comparisonFigures(runs: readonly RunPictures[]): Figure[] {
  const panels = groupBy(runs, ({ run: { config } }) => {
    const { model, task, workflow } = config;
    const names = [
      model.path.split('/').at(-1),
      task.module ?? task.python ?? task.name,
      workflow.module ?? workflow.name,
    ];
    return names.join(' · ');
  });
  return [...panels].flatMap(([title, members]) => {
    const groups = groupsOf(members.map(({ run }) => run));
    return COMPARED.flatMap((compared) => {
      const values = new Map(members.map(({ run }) => [run, compared.of(run)]));
      return panel(title, compared.seedBySeed ? groups.flatMap(bySeed) : groups, {
        ...compared,
        of: (run) => values.get(run) ?? new Map(),
      });
    });
  });
}

function groupsOf(runs: readonly RunData[]): Group[] {
  const groups = [...groupBy(runs, (run) => JSON.stringify([...settingsOf(run)])).values()];
  const names = distinctNames(groups.map(([run]) => run as RunData));
  return groups.map((own, i) => ({ name: names[i] ?? '', runs: own }));
}

function bySeed({ name, runs }: Group): Group[] {
  const seeds = [...groupBy(runs, ({ config }) => config.seed)];
  return seeds.map(([seed, own]) => ({
    name: name === '' ? `seed ${seed}` : `${name}, seed ${seed}`,
    runs: own,
  }));
}

function panel(title: string, groups: readonly Group[], compared: Compared): Figure[] {
  const subjects = new Set(groups.flatMap(({ runs }) => runs.flatMap((run) => [...compared.of(run).keys()])));
  return [...subjects].flatMap((subject) => {
    const parts = Array.from({ length: Math.ceil(groups.length / MOST_SERIES) }, (_, i) => {
      return groups.slice(i * MOST_SERIES, (i + 1) * MOST_SERIES);
    });
    return parts.flatMap((part, i) => {
      const of = parts.length > 1 ? ` (${i + 1} of ${parts.length})` : '';
      return figure(`${title}: ${compared.title} ${subject}`.trim() + of, part, compared, subject);
    });
  });
}

function figure(title: string, groups: readonly Group[], compared: Compared, subject: string): Figure[] {
  const points: SeriesPoint[] = [];
  const bands: Band[] = [];
  const said: string[] = [];
  const counts: { series: string; count: number }[] = [];
  for (const { name, runs } of groups) {
    const own = runs.flatMap((run) => compared.of(run).get(subject) ?? []);
    const members = runs.filter((run) => compared.of(run).has(subject)).length;
    const found = runs.flatMap((run) => compared.counted?.(run, subject) ?? []);
    if (found.length > 0) said.push(`${name || 'all runs'} ${found.join(', ')}`);
    if (members === 0) continue;
    const series = `${name || 'all runs'} (n = ${members})`;
    counts.push({ series, count: members });
    for (const [step, at] of groupBy(own, (point) => point.step)) {
      // Where a run has no value the mean would be of other runs than before.
      if (at.length < members) continue;
      const values = at.map(({ value }) => value);
      points.push({ step, series, value: values.reduce((sum, value) => sum + value, 0) / members });
      const ends = at.flatMap(({ value, low = value, high = value }) => [low, high]);
      const known = members > 1 || at.some(({ low }) => low !== undefined);
      if (known) bands.push({ step, series, low: Math.min(...ends), high: Math.max(...ends) });
    }
  }
  // Of a role with one slot the amplification is 1.
  if (points.every(({ value }) => value === 1)) return [];
  const series = counts.map((one) => one.series);
  const several = counts.some(({ count }) => count > 1);
  return [
    {
      id: `${compared.id}-${title.replaceAll(/[^\w]+/g, '-')}`,
      title,
      caption: captionOf(compared, several, said),
      svg: (most) => lineChart({ ...compared.chart, points, series, bands, most }),
      legend: legendOf(series),
      numbers: compared.seedBySeed ? rowsWithEnds(points, bands) : wideRows(points),
    },
  ];
}

function captionOf({ caption = '' }: Compared, several: boolean, said: readonly string[]): string {
  const lines = several
    ? 'n: runs that differ in their seeds alone. Line: their mean, at steps that all of them have; band: from the lowest to the highest of them.'
    : 'Each line is one run.';
  const counts = said.length > 0 ? `Steps with a value, of those measured: ${said.join('; ')}.` : '';
  return [caption, lines, counts].filter((text) => text !== '').join(' ');
}

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
<table><thead><tr><th>run</th><th>steps</th><th>base</th><th>peak</th><th>at step</th><th>terminal</th><th>drop</th>
<th>95 % interval</th><th>first alarm</th><th>label</th></tr></thead><tbody>${rows}</tbody></table>
<div class="figures">${figures.map((figure) => figureHtml(figure, 'runs'))}</div></section>
`;
}
