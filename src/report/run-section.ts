/** The part of a page that is about one run. */
import { basename } from 'node:path';
import { percent } from '../config/percent.js';
import type { Alarm } from '../judgement/alarms.js';
import { describeCapture } from '../judgement/capture.js';
import { accuracyOf } from '../judgement/paired.js';
import { describeRole } from '../judgement/roles-at-end.js';
import type { Verdict } from '../judgement/verdict.js';
import { describeAlarm } from '../learning/alarms.js';
import type { Figure, Row, Section } from './figure.js';
import { type Html, html, raw } from './html.js';
import type { RunData } from './run-data.js';
import { sectionsOf } from './run-figures.js';
import type { SampleCall, SampleEpisode } from './sample-episodes.js';

/** Rows of numbers that stand under a picture; all of them are in its file. */
const MOST_ROWS = 24;
/** Points of a line in a report of many runs. */
const BRIEF_POINTS = 60;
/** Characters of a response that are shown. */
const MOST_CHARACTERS = 4000;
/** Steps whose episodes are shown. */
const EPISODE_STEPS = 4;

export interface RunPictures {
  run: RunData;
  verdict: Verdict;
  sections: readonly Section[];
}

export function picturesOf(run: RunData): RunPictures {
  const verdict = run.verdict();
  return { run, verdict, sections: sectionsOf(run, verdict) };
}

export interface RunSectionOptions {
  /** One of many on its page: without the numbers under its pictures, and with fewer points of a line. */
  brief?: boolean;
}

/** `id`: unique among the runs of the page. */
export function runSection(
  { run, verdict, sections }: RunPictures,
  id: string,
  { brief = false }: RunSectionOptions = {},
): Html {
  return html`<section id="${id}" class="run">
<h2>${run.name} <span class="label ${verdict.label ?? 'none'}">${verdict.label ?? 'no verdict yet'}</span></h2>
${facts(run)}
${run.leftOut.map((text) => html`<p class="warning">${text}</p>`)}
${run.steps === 0 ? html`<p>No step of this run has been recorded.</p>` : outcome(run, verdict)}
${incidents(run, verdict.alarms)}
${brief ? html`<p>The numbers under these pictures: <code>troupe report</code> of this run alone.</p>` : ''}
${sections.map((section) => sectionHtml(section, id, brief))}
${episodes(run, verdict, id)}
${evaluatedEpisodes(run, id)}
</section>
`;
}

function facts(run: RunData): Html {
  const { config, environments } = run;
  const { name, module } = config.workflow;
  const { sharing } = config.policies;
  const machine = environments.at(-1)?.machine;
  const parts = [
    `workflow ${module ?? name}`,
    `policies ${typeof sharing === 'string' ? sharing : JSON.stringify(sharing)}`,
    `model ${basename(config.model.path)}`,
    `task ${config.task.module ?? config.task.python ?? config.task.name}`,
    `seed ${config.seed}`,
    `${run.steps} of ${config.steps} steps`,
    ...(machine === undefined
      ? []
      : [`${machine.processor}, ${machine.cores} ${machine.cores === 1 ? 'core' : 'cores'}`]),
    ...(environments.at(-1)?.devices ?? []),
  ];
  return html`<p class="facts">${parts.join(' · ')}</p>${changes(run)}`;
}

/** What a run that went on took with --set. */
function changes({ changes: all }: RunData): Html {
  const value = (one: unknown) => JSON.stringify(one ?? null);
  const listed = all.map(({ step, key, from, to }) => `step ${step}: ${key} ${value(from)} → ${value(to)}`);
  return listed.length === 0 ? html`` : html`<p class="facts">Changed on the way: ${listed.join(' · ')}</p>`;
}

function outcome(run: RunData, { cliff, captures, roles }: Verdict): Html {
  if (cliff === null) return html`<p>It has not been evaluated.</p>`;
  const { first, peak, current, drop, onset } = cliff;
  const numbers: [string, string, string][] = [
    ['Base', percent(first.accuracy), `step ${first.step}`],
    ['Peak', percent(peak.accuracy), `step ${peak.step}`],
    ['Terminal', percent(current.accuracy), `step ${current.step}`],
  ];
  const greedy = run.history.greedyEvaluations.flatMap(({ step, correct }) => {
    const accuracy = accuracyOf(correct);
    return accuracy === null ? [] : [{ step, accuracy }];
  });
  for (const [name, point] of [
    ['Greedy base', greedy[0]],
    ['Greedy terminal', greedy.at(-1)],
  ] as const) {
    if (point !== undefined) numbers.push([name, percent(point.accuracy), `step ${point.step}`]);
  }
  if (drop !== null) {
    numbers.push([
      'Drop from the peak',
      percent(drop.difference),
      `95 % interval ${percent(drop.low)} to ${percent(drop.high)}`,
    ]);
  }
  if (onset !== null)
    numbers.push(['Below the peak since', `step ${onset}`, 'and on every evaluation after']);
  const captured = captures.map((one) => html`<p class="warning">Captured: ${describeCapture(one)}.</p>`);
  return html`<dl class="numbers">${numbers.map(
    ([name, value, note]) => html`<div><dt>${name}</dt><dd>${value}<small>${note}</small></dd></div>`,
  )}</dl>${captured}${roles.map(
    (role) =>
      html`<p${role.deadSince === null ? '' : raw(' class="warning"')}><b>${role.role}</b> ${describeRole(role)}.</p>`,
  )}`;
}

function incidents(run: RunData, alarms: readonly Alarm[]): Html {
  const rollbacks = run.history.rollbacks.map((step) => ({ step, text: 'rolled back to a checkpoint' }));
  const skipped = run.skipped.map(({ step, text }) => ({ step: step + 1, text: `update skipped: ${text}` }));
  const all = [...alarms.map((alarm) => ({ step: alarm.step, text: describeAlarm(alarm) })), ...rollbacks];
  const list = [...all, ...skipped].sort((a, b) => a.step - b.step);
  if (list.length === 0) return html`<p>No alarms.</p>`;
  return html`<details${list.length <= 6 ? raw(' open') : ''}><summary>${list.length} alarms and incidents</summary>
<ul class="incidents">${list.map(({ step, text }) => html`<li><b>Step ${step}</b> ${text}</li>`)}</ul></details>`;
}

function sectionHtml({ id, title, text, figures }: Section, run: string, brief: boolean): Html {
  return html`<section id="${run}-${id}"><h3>${title}</h3>${text === undefined ? '' : html`<p>${text}</p>`}
<div class="figures">${figures.map((figure) => figureHtml(figure, run, brief))}</div></section>
`;
}

/** The picture with its title for those who cannot see it. */
export function labelled({ title }: Figure, svg: string): Html {
  return raw(svg.replace('role="img"', () => html`role="img" aria-label="${title}"`.text));
}

export function figureHtml(figure: Figure, run: string, brief = false): Html {
  const { id, title, caption, legend, numbers } = figure;
  return html`<figure id="${run}-${id}"><h4>${title}</h4>${
    legend.length === 0
      ? ''
      : html`<p class="legend">${legend.map(
          ({ name, color }) => html`<span><i style="background:${color}"></i>${name}</span>`,
        )}</p>`
  }${labelled(figure, figure.svg(brief ? BRIEF_POINTS : undefined))}<figcaption>${caption}</figcaption>
${brief ? '' : html`<details><summary>Numbers</summary>${numbersTable(numbers)}<a download="${run}-${id}.csv" href="${dataUrl(numbers)}">All ${numbers.length} rows as CSV</a></details>`}</figure>
`;
}

function numbersTable(rows: readonly Row[]): Html {
  const columns = Object.keys(rows[0] ?? {});
  const step = Math.max(1, Math.ceil(rows.length / MOST_ROWS));
  const shown = rows.filter((_, i) => i % step === 0 || i === rows.length - 1);
  return html`<table><thead><tr>${columns.map((column) => html`<th>${column}</th>`)}</tr></thead><tbody>${shown.map(
    (row) => html`<tr>${columns.map((column) => html`<td>${numberText(row[column])}</td>`)}</tr>`,
  )}</tbody></table>`;
}

function numberText(value: Row[string] | undefined): string {
  if (value === null || value === undefined) return '–';
  return typeof value === 'number' ? String(Number(value.toPrecision(4))) : value;
}

/** RFC 4180; the numbers in full. */
function dataUrl(rows: readonly Row[]): string {
  const columns = Object.keys(rows[0] ?? {});
  const quoted = (value: string | number | null | undefined) => {
    const text = String(value ?? '');
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = [columns, ...rows.map((row) => columns.map((column) => row[column]))];
  const csv = lines.map((line) => line.map(quoted).join(',')).join('\n');
  return `data:text/csv;base64,${Buffer.from(csv).toString('base64')}`;
}

function episodes(run: RunData, { cliff }: Verdict, id: string): Html {
  const { steps } = run.episodes;
  if (steps.length === 0) return html``;
  const wanted = [steps[0], cliff === null ? undefined : cliff.peak.step - 1, cliff?.onset, steps.at(-1)];
  const shown = [...new Set(wanted.flatMap((step) => step ?? []))]
    .filter((step) => steps.includes(step))
    .sort((a, b) => a - b)
    .slice(0, EPISODE_STEPS);
  return html`<section id="${id}-episodes"><h3>Episodes</h3>
<p>The best and the worst episode of one problem: what each role said, its reward and its advantage.</p>
${shown.map((step) => run.episodes.at(step).map((episode) => episodeHtml(episode, `Step ${step}`)))}</section>
`;
}

function evaluatedEpisodes(run: RunData, id: string): Html {
  const { steps } = run.evaluated;
  if (steps.length === 0) return html``;
  const shown = [...new Set([steps[0] ?? 0, steps.at(-1) ?? 0])];
  return html`<section id="${id}-evaluated"><h3>Evaluated episodes</h3>
<p>The best and the worst episode of one held-out problem, or of all where each has one, at the first evaluation and at the last.</p>
${shown.map((step) => run.evaluated.at(step).map((episode) => episodeHtml(episode, `After ${step} steps`)))}</section>
`;
}

function episodeHtml(episode: SampleEpisode, when: string): Html {
  const { problem, sample, reward, reason, calls } = episode;
  const asked = [
    ['Question', episode.question],
    ['Right answer', episode.rightAnswer],
    ['Answer as it was read', episode.question === null ? null : (episode.extracted ?? 'none')],
    ['Broken off', episode.error],
  ].flatMap(([name, text]) =>
    text === null ? [] : [html`<dt>${name}</dt><dd><pre>${shortened(text ?? '')}</pre></dd>`],
  );
  return html`<details class="episode" open><summary>${when}, ${problem}, sample ${sample}: reward ${rounded(reward)} (${reason})</summary>
${asked.length === 0 ? '' : html`<dl class="asked">${asked}</dl>`}<div class="calls">${calls.map(callHtml)}</div></details>
`;
}

function callHtml({ role, slot, turn, reward, advantage, tokens, finish, prompt, text }: SampleCall): Html {
  const learnt = [
    ['reward', reward],
    ['advantage', advantage],
  ] as const;
  const parts = [
    ...learnt.flatMap(([name, value]) => (value === null ? [] : [`${name} ${rounded(value)}`])),
    `${tokens} tokens`,
    finish,
  ];
  return html`<div class="call"><p><b>${role}</b> slot ${slot}, turn ${turn} · ${parts.join(' · ')}</p>
<pre>${text === null ? 'not recorded' : shortened(text)}</pre>${
    prompt === null ? '' : html`<details><summary>Prompt</summary><pre>${shortened(prompt)}</pre></details>`
  }</div>
`;
}

function shortened(text: string): string {
  const more = text.length - MOST_CHARACTERS;
  return more > 0 ? `${text.slice(0, MOST_CHARACTERS)} … ${more} more characters` : text;
}

function rounded(value: number): string {
  return String(Number(value.toPrecision(3)));
}
