/** The pictures of one run, by section. A picture without anything to show is left out. */

import type { EvaluationPoint, Measure } from '../judgement/history.js';
import { accuracyOf } from '../judgement/paired.js';
import type { Verdict } from '../judgement/verdict.js';
import { accuracy } from '../learning/accuracy.js';
import { areaChart, type LineChart, legendOf, lineChart, type Mark, seriesOf } from './charts.js';
import { type Figure, type Section, wideRows } from './figure.js';
import { layerFigures } from './layer-figures.js';
import {
  CORRECTED_CAPTION,
  CORRECTED_CHART,
  correctedCosines,
  FLOOR_CAPTION,
  FLOOR_CHART,
  rowsWithEnds,
  valuesOfMeasured,
} from './noise-floor.js';
import type { RunData, SeriesPoint } from './run-data.js';

export function sectionsOf(run: RunData, found: Verdict): Section[] {
  const sections: Section[] = [
    { id: 'accuracy', title: 'Accuracy', figures: accuracyFigures(run, found) },
    { id: 'gradients', title: 'Role gradients', figures: gradientFigures(run) },
    {
      id: 'layers',
      title: 'Layers',
      text: 'Red pulls apart, blue pulls together. A layer of −1 holds the parameters of no layer.',
      figures: layerFigures(run),
    },
    { id: 'mismatch', title: 'Mismatch', figures: mismatchFigures(run) },
    { id: 'signatures', title: 'Signatures and oracles', figures: signalFigures(run) },
    { id: 'time', title: 'Time', figures: timeFigures(run) },
  ];
  return sections.filter(({ figures }) => figures.length > 0);
}

interface Described extends Omit<LineChart, 'points'> {
  id: string;
  title: string;
  caption: string;
}

function lines({ id, title, caption, ...chart }: Described, points: readonly SeriesPoint[]): Figure[] {
  if (points.length === 0) return [];
  const series = chart.series ?? seriesOf(points);
  const svg = (most?: number) => lineChart({ ...chart, series, points, most });
  return [{ id, title, caption, svg, legend: legendOf(series), numbers: wideRows(points) }];
}

function accuracyFigures(run: RunData, { cliff, alarms }: Verdict): Figure[] {
  const evaluated = [
    ...evaluatedPoints(run.history.evaluations, 'sampled'),
    ...evaluatedPoints(run.history.greedyEvaluations, 'greedy'),
  ];
  const marks: Mark[] = [];
  if (cliff !== null) marks.push({ step: cliff.peak.step, label: 'peak' });
  if (cliff !== null && cliff.onset !== null) marks.push({ step: cliff.onset, label: 'onset' });
  const warned = alarms.find(({ rule }) => rule !== 'accuracy' && rule !== 'capture');
  if (warned !== undefined) marks.push({ step: warned.step, label: 'first warning' });
  // What a step trains on was sampled by the parameters before it.
  const trained = run.trainAccuracy.map((point) => ({ ...point, series: 'training' }));
  return [
    ...lines(
      {
        id: 'accuracy',
        title: 'Accuracy on problems that training never sees',
        caption: 'Band: 95 % interval of each evaluation by itself; the cliff is judged on paired problems.',
        unit: 'accuracy (%)',
        percent: true,
        domain: [0, 100],
        dots: true,
        bands: evaluated,
        marks: spread(marks),
      },
      evaluated,
    ),
    ...lines(
      {
        id: 'training-accuracy',
        title: 'Accuracy of the training episodes',
        caption:
          'Share of right answers among the episodes of a step. Thick, where there are many: mean over 11 steps.',
        unit: 'accuracy (%)',
        percent: true,
        domain: [0, 100],
      },
      trained,
    ),
  ];
}

function evaluatedPoints(evaluations: readonly EvaluationPoint[], series: string) {
  return evaluations.flatMap(({ step, correct }) => {
    const mean = accuracyOf(correct);
    const outcomes = [...correct.values()].flat();
    if (mean === null) return [];
    const { low, high } = accuracy(outcomes.filter((one) => one).length, outcomes.length, correct.size);
    return [{ step, series, value: mean, low: low ?? mean, high: high ?? mean }];
  });
}

/** Labels of marks at the same step stand together. */
function spread(marks: readonly Mark[]): Mark[] {
  const steps = [...new Set(marks.map(({ step }) => step))];
  return steps.map((step) => {
    const labels = marks.filter((mark) => mark.step === step).map(({ label }) => label);
    return { step, label: labels.join(', ') };
  });
}

function measured(run: RunData, measure: Measure): SeriesPoint[] {
  return run.history.subjects(measure).flatMap((series) => {
    return run.history.series(measure, series).map((point) => ({ ...point, series }));
  });
}

const PERCENT = { unit: 'share (%)', percent: true, domain: [0, 100] } as const;

function gradientFigures(run: RunData): Figure[] {
  return [
    ...lines(
      {
        id: 'mass-share',
        title: 'Gradient mass of roles',
        caption:
          'Norm of a role’s gradient over the sum over all roles. Within one policy it says who owns the parameters.',
        ...PERCENT,
      },
      massShares(run),
    ),
    ...lines(
      {
        id: 'role-norm',
        title: 'Gradient norms of roles',
        caption: 'Before clipping.',
        unit: 'norm',
      },
      measured(run, 'role_norm'),
    ),
    ...lines(
      {
        id: 'role-cosine',
        title: 'Cosine between roles',
        caption: 'Of one policy only: gradients of two policies live in different spaces.',
        unit: 'cosine',
        domain: [-1, 1],
        level: 0,
      },
      measured(run, 'role_cosine'),
    ),
    ...noiseFigures(run),
    ...lines(
      {
        id: 'amplification',
        title: 'Amplification by parallel slots',
        caption: 'N aligned slots push N times as hard; √N is what independent ones would do.',
        unit: 'amplification',
      },
      measured(run, 'amplification'),
    ),
    ...lines(
      {
        id: 'optimizer-share',
        title: 'Roles’ shares of what the optimizer did',
        caption: 'After clipping and AdamW; negative: the parameters moved against the role.',
        unit: 'share (%)',
        percent: true,
      },
      measured(run, 'optimizer_share'),
    ),
    ...lines(
      {
        id: 'applied-share',
        title: 'Gradient mass of roles after interventions',
        caption: 'What the optimizer got.',
        ...PERCENT,
      },
      measured(run, 'applied_share'),
    ),
  ];
}

/** Norms compare across policies too, so that isolated roles have their shares as well. */
export function massShares(run: RunData): SeriesPoint[] {
  const norms = measured(run, 'role_norm');
  const sums = new Map<number, number>();
  for (const { step, value } of norms) sums.set(step, (sums.get(step) ?? 0) + value);
  return norms.flatMap((point) => {
    const sum = sums.get(point.step) ?? 0;
    return sum > 0 ? [{ ...point, value: point.value / sum }] : [];
  });
}

function noiseFigures(run: RunData): Figure[] {
  const found = [...correctedCosines(run)].flatMap(([series, points]) =>
    points.map((point) => ({ ...point, series })),
  );
  const bands = found.flatMap(({ step, series, low, high }) => {
    return low === undefined || high === undefined ? [] : [{ step, series, low, high }];
  });
  const points = found.map(({ step, series, value }) => ({ step, series, value }));
  const counts = run.history.subjects('role_cosine').flatMap((pair) => {
    const values = valuesOfMeasured(run, pair);
    return values === undefined ? [] : [`${pair}: ${values}`];
  });
  const corrected = lines(
    {
      ...CORRECTED_CHART,
      id: 'corrected-cosine',
      title: 'Cosine between roles, corrected for noise',
      caption: CORRECTED_CAPTION,
      bands,
    },
    points,
  );
  return [
    ...corrected.map((figure) => ({ ...figure, numbers: rowsWithEnds(points, bands) })),
    ...lines(
      {
        ...FLOOR_CHART,
        id: 'noise-floor',
        title: 'Noise floor: cosine of a role with itself on other prompts',
        caption: [
          FLOOR_CAPTION,
          ...(counts.length > 0 ? [`Corrected at measured steps, ${counts.join('; ')}.`] : []),
        ].join(' '),
      },
      measured(run, 'split_half'),
    ),
  ];
}

function mismatchFigures(run: RunData): Figure[] {
  const series = (measure: Measure, title: string, unit: string, caption: string) => {
    return lines({ id: measure.replaceAll('_', '-'), title, unit, caption }, measured(run, measure));
  };
  return [
    ...series('kl', 'Rollout against trainer', 'nats', 'k3 estimate, at the sampling temperature.'),
    ...series('perplexity', 'Perplexity of responses', 'perplexity', 'By the trainer, mean over responses.'),
    ...series('entropy', 'Entropy of the next token', 'nats', 'Mean over response tokens.'),
    ...series('gradient_norm', 'Gradient norm of policies', 'norm', 'After interventions, before clipping.'),
  ];
}

/** Signals that other sections show, or that follow from another one. */
const SHOWN_ELSEWHERE = new Set(['length_drift']);

function signalFigures(run: RunData): Figure[] {
  return [...run.signals].flatMap(([name, points]) => {
    // A signal that never was anything but 0 says nothing.
    if (SHOWN_ELSEWHERE.has(name) || points.every(({ value }) => value === 0)) return [];
    const share = /_share$|regret|overlap|revision/.test(name);
    const zeros = stepsWithout(run, name, points);
    const counted = zeros === undefined ? 'value' : 'count';
    const unit = share ? PERCENT : { unit: name === 'length_mean' ? 'tokens' : counted };
    const title = name.replaceAll('_', ' ').replace(' mean', ', mean');
    const all = [...points, ...(zeros ?? [])].sort((a, b) => a.step - b.step);
    return lines({ id: name.replaceAll(/\W|_/g, '-'), title, caption: '', ...unit }, all);
  });
}

/** Of a count, which has a row only where something was counted: 0 at the other steps. undefined: it is none. */
function stepsWithout(run: RunData, name: string, points: readonly SeriesPoint[]): SeriesPoint[] | undefined {
  const [series, ...others] = seriesOf(points);
  const isCount = points.every(({ value }) => Number.isInteger(value) && value > 0);
  if (!isCount || series === undefined || others.length > 0) return undefined;
  const counted = run.stepsOfSignal.get(name) ?? new Set();
  const without = [...run.signalSteps].filter((step) => !counted.has(step));
  return without.length === 0 ? undefined : without.map((step) => ({ step, series, value: 0 }));
}

function timeFigures(run: RunData): Figure[] {
  const points = run.seconds;
  if (points.length === 0) return [];
  const series = seriesOf(points).filter((name) => {
    return points.some((point) => point.series === name && point.value > 0);
  });
  const kept = points.filter((point) => series.includes(point.series));
  return [
    {
      id: 'seconds',
      title: 'Seconds of a step',
      caption: 'What a step spends its time on.',
      svg: (most) => areaChart({ unit: 'seconds', points: kept, series, most }),
      legend: legendOf(series),
      numbers: wideRows(kept),
    },
  ];
}
