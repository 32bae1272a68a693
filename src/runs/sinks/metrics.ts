/**
 * What a dashboard shows of a step or an evaluation, made of the rows that go to the streams: numbers under the names that
 * TRL and verl give them where they have one (docs/dashboards.md), everything else under roles/, policies/, gradients/,
 * signals/ and timing_s/; distributions of lengths and advantages; a text of each role.
 */
import type { Table } from 'apache-arrow';
import type { TableName } from '../../streams/tables.js';

export type Phase = 'train' | 'evaluation';

export interface Metrics {
  /** Steps that are done, as TRL and verl count: the first step of a run is 1, the evaluation before it 0. */
  step: number;
  phase: Phase;
  scalars: Record<string, number>;
  histograms: Record<string, number[]>;
  texts: Record<string, string>;
}

type Row = Record<string, unknown>;
export type Rows = Partial<Record<TableName, Row[]>>;

/** Rows of a table as objects; 64-bit integers become numbers. */
export function rowsOf(table: Table): Row[] {
  return (table.toArray() as { toJSON(): Row }[]).map((row) => {
    const entries = Object.entries(row.toJSON());
    return Object.fromEntries(
      entries.map(([key, value]) => [key, typeof value === 'bigint' ? Number(value) : value]),
    );
  });
}

/** Collects scalars; what was not measured has none. */
class Scalars {
  readonly values: Record<string, number> = {};

  add(name: string, value: unknown): void {
    if (typeof value === 'number' && Number.isFinite(value)) this.values[name] = value;
  }

  /** Every number of a row but those of `without`, as PREFIX/COLUMN. */
  addRow(prefix: string, row: Row, without: readonly string[]): void {
    for (const [column, value] of Object.entries(row)) {
      if (!without.includes(column)) this.add(`${prefix}/${column}`, value);
    }
  }
}

const numbersOf = (rows: readonly Row[], column: string): number[] =>
  rows
    .map((row) => row[column])
    .filter((value) => typeof value === 'number' && Number.isFinite(value)) as number[];

const meanOf = (values: readonly number[]) =>
  values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length;

/** Unbiased; null for fewer than two. */
function deviationOf(values: readonly number[]): number | null {
  const mean = meanOf(values);
  if (mean === null || values.length < 2) return null;
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1));
}

/** Mean of `column` over rows, each counted `weight` times; null without any. */
function weightedMean(rows: readonly Row[], column: string, weight: string): number | null {
  const known = rows.filter((row) => typeof row[column] === 'number' && Number(row[weight]) > 0);
  const total = known.reduce((sum, row) => sum + Number(row[weight]), 0);
  if (total === 0) return null;
  return known.reduce((sum, row) => sum + Number(row[column]) * Number(row[weight]), 0) / total;
}

/** Of a training step's rows; undefined where there are none. */
export function trainMetrics(rows: Rows): Metrics | undefined {
  const [totals] = rows.steps ?? [];
  if (totals === undefined) return undefined;
  const scalars = new Scalars();
  addTotals(scalars, totals, rows);
  for (const row of rows.roles ?? []) scalars.addRow(`roles/${row.role}`, row, ['step']);
  for (const name of new Set((rows.rewards ?? []).map((row) => String(row.name)))) {
    const values = numbersOf(
      (rows.rewards ?? []).filter((row) => row.name === name),
      'value',
    );
    scalars.add(`train/rewards/${name}/mean`, meanOf(values));
    scalars.add(`train/rewards/${name}/std`, deviationOf(values));
  }
  addPolicies(scalars, rows.updates ?? []);
  addGradients(scalars, rows.gradients ?? []);
  addSignals(scalars, 'signals', rows.signals ?? []);
  const calls = rows.calls ?? [];
  const histograms: Metrics['histograms'] = {};
  const texts: Metrics['texts'] = {};
  for (const role of new Set(calls.map((row) => String(row.role)))) {
    const its = calls.filter((row) => row.role === role);
    histograms[`advantages/${role}`] = numbersOf(its, 'advantage');
    histograms[`response_length/${role}`] = numbersOf(its, 'response_tokens');
    texts[`samples/${role}`] = sampleText(its[0] ?? {}, rows.prompts ?? []);
  }
  return { step: Number(totals.step) + 1, phase: 'train', scalars: scalars.values, histograms, texts };
}

/** Names of TRL, then those of verl where TRL has none. */
function addTotals(
  scalars: Scalars,
  totals: Row,
  { calls = [], roles = [], updates = [], timings = [] }: Rows,
): void {
  const lengths = numbersOf(calls, 'response_tokens');
  const idle = Number(totals.groups_of_one) + Number(totals.groups_without_variance);
  scalars.add('train/reward', totals.reward_mean);
  scalars.add('train/reward_std', totals.reward_std);
  if (Number(totals.groups) > 0) scalars.add('train/frac_reward_zero_std', idle / Number(totals.groups));
  scalars.add('train/completions/mean_length', meanOf(lengths));
  if (lengths.length > 0) {
    scalars.add(
      'train/completions/min_length',
      lengths.reduce((a, b) => Math.min(a, b)),
    );
    scalars.add(
      'train/completions/max_length',
      lengths.reduce((a, b) => Math.max(a, b)),
    );
    const cut = calls.filter(({ finish }) => finish === 'length').length;
    scalars.add('train/completions/clipped_ratio', cut / calls.length);
  }
  scalars.add('train/entropy', weightedMean(roles, 'entropy', 'mismatch_tokens'));
  scalars.add('train/clip_ratio/low_mean', weightedMean(roles, 'clip_low_share', 'mismatch_tokens'));
  scalars.add('train/clip_ratio/high_mean', weightedMean(roles, 'clip_high_share', 'mismatch_tokens'));
  // Of several policies there is no one loss, norm or rate: policies/NAME has each.
  if (new Set(updates.map(({ policy }) => policy)).size === 1) {
    scalars.add('train/loss', meanOf(numbersOf(updates, 'loss')));
    scalars.add('train/grad_norm', meanOf(numbersOf(updates, 'gradient_norm')));
    scalars.add('train/learning_rate', meanOf(numbersOf(updates, 'learning_rate')));
  }
  scalars.add('train/accuracy', totals.correct_share);
  scalars.add('prompt_length/mean', meanOf(numbersOf(calls, 'prompt_tokens')));
  const counts = ['episodes', 'broken_episodes', 'failed_rewards', 'groups', 'response_tokens'];
  for (const name of counts) scalars.add(`train/${name}`, totals[name]);
  const [time] = timings;
  if (time === undefined) return;
  scalars.add('train/step_time', time.total_seconds);
  scalars.add('timing_s/gen', time.rollout_seconds);
  const update = ['forward_seconds', 'backward_seconds', 'optimizer_seconds'].map((name) =>
    Number(time[name]),
  );
  scalars.add(
    'timing_s/update_actor',
    update.reduce((sum, seconds) => sum + seconds, 0),
  );
  scalars.add('timing_s/testing', time.evaluation_seconds);
  scalars.add('timing_s/save_checkpoint', time.checkpoint_seconds);
}

/** Means over the updates of each policy. */
function addPolicies(scalars: Scalars, updates: readonly Row[]): void {
  const names = {
    loss: 'loss',
    gradient_norm: 'grad_norm',
    learning_rate: 'learning_rate',
    clip_factor: 'clip_factor',
  };
  for (const policy of new Set(updates.map((row) => row.policy))) {
    const its = updates.filter((row) => row.policy === policy);
    for (const [column, name] of Object.entries(names)) {
      scalars.add(`policies/${policy}/${name}`, meanOf(numbersOf(its, column)));
    }
    scalars.add(`policies/${policy}/skipped_updates`, its.filter(({ skipped }) => skipped !== null).length);
  }
}

const GRADIENT_COLUMNS = [
  'norm',
  'mass_share',
  'projection_share',
  'optimizer_share',
  'coherence',
  'amplification',
];

/** Of each role's whole gradient, means over updates. */
function addGradients(scalars: Scalars, gradients: readonly Row[]): void {
  const whole = gradients.filter(({ grouping, scope }) => grouping === 'role' && scope === 'total');
  for (const role of new Set(whole.map((row) => row.role))) {
    const its = whole.filter((row) => row.role === role);
    for (const column of GRADIENT_COLUMNS) {
      scalars.add(`gradients/${role}/${column}`, meanOf(numbersOf(its, column)));
    }
  }
}

function addSignals(scalars: Scalars, prefix: string, signals: readonly Row[]): void {
  for (const { role, signal, value } of signals)
    scalars.add(`${prefix}/${role ?? 'workflow'}/${signal}`, value);
}

/** A call as Markdown, fenced so that nothing in it is obeyed. */
function sampleText(call: Row, prompts: readonly Row[]): string {
  const prompt = prompts.find((row) => row.prompt === call.prompt)?.text ?? '';
  const fenced = (text: unknown) => `\n\n${String(text).replace(/^/gm, '    ')}\n\n`;
  const about = `problem ${call.problem}, reward ${call.reward ?? 'none'}, advantage ${call.advantage ?? 'none'}`;
  return `${about.replace(/[`<>]/g, ' ')}${fenced(prompt)}answer:${fenced(call.text ?? '')}`;
}

/** Of an evaluation's rows; undefined where there are none. */
export function evaluationMetrics(rows: Rows): Metrics | undefined {
  const { evaluations = [], greedy_evaluations: greedy = [], signals = [] } = rows;
  const [first] = evaluations;
  if (first === undefined) return undefined;
  const scalars = new Scalars();
  const accuracy = (of: readonly Row[]) => meanOf(of.map(({ correct }) => Number(correct)));
  scalars.add('eval/accuracy', accuracy(evaluations));
  scalars.add('eval/greedy_accuracy', accuracy(greedy));
  scalars.add('eval/reward', meanOf(numbersOf(evaluations, 'reward')));
  scalars.add('eval/broken_episodes', evaluations.filter(({ broken }) => broken === true).length);
  scalars.add('eval/response_tokens', meanOf(numbersOf(evaluations, 'response_tokens')));
  addSignals(scalars, 'eval/signals', signals);
  return {
    step: Number(first.step),
    phase: 'evaluation',
    scalars: scalars.values,
    histograms: {},
    texts: {},
  };
}
