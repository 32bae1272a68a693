/**
 * What the cells of a study have shown so far, from the streams of their runs, and the two tables in the study's
 * folder, Arrow IPC files: results.arrow, one row for each cell, and measures.arrow, every series of every cell.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import {
  Dictionary,
  Float32,
  Float64,
  Int32,
  Table,
  tableToIPC,
  Utf8,
  type Vector,
  vectorFromArray,
} from 'apache-arrow';
import { writeFileWhole } from '../../config/files.js';
import { type Cliff, findCliff } from '../../judgement/cliff.js';
import { type EvaluationPoint, History, MEASURES, type Measure } from '../../judgement/history.js';
import { accuracyOf, type Difference, pairedDifference } from '../../judgement/paired.js';
import { type Verdict, verdict } from '../../judgement/verdict.js';
import { addStreams } from '../../runs/read-history.js';
import { streamPath } from '../../streams/stream-files.js';
import { readStream } from '../../streams/stream-reader.js';
import type { Cell } from './matrix.js';
import { hasEnded, runOf } from './run-cells.js';

/** What the live table shows of a cell. */
export interface CellProgress {
  /** Steps that are done. */
  steps: number;
  cliff: Cliff | null;
}

export function progressOf(folder: string, cell: Cell): CellProgress {
  const run = runOf(folder, cell);
  const [steps, evaluations] = (['steps', 'evaluations'] as const).map((table) => streamPath(run, table));
  if (steps === undefined || evaluations === undefined || !existsSync(steps) || !existsSync(evaluations)) {
    return { steps: 0, cliff: null };
  }
  const history = new History();
  history.add('evaluations', readStream(evaluations).table);
  return { steps: readStream(steps).table.numRows, cliff: findCliff(history.evaluations) };
}

export interface CellResult {
  cell: Cell;
  ended: boolean;
  history: History;
  verdict: Verdict;
  /** Last accuracy minus that of the single agent with the same other values, on the same problems. */
  againstSingle: Difference | null;
  /** The same against the shared policy. */
  againstShared: Difference | null;
}

/** Of the cells that have begun. */
export function resultsOf(folder: string, cells: readonly Cell[]): CellResult[] {
  const found = cells.flatMap((cell) => {
    const run = runOf(folder, cell);
    if (!existsSync(streamPath(run, 'evaluations'))) return [];
    const history = new History();
    addStreams(history, run);
    return [{ cell, ended: hasEnded(folder, cell), history, verdict: verdict(history, cell.config.alarms) }];
  });
  const last = (axes: Cell['axes']): EvaluationPoint | undefined => {
    const key = JSON.stringify(axes);
    return found.find(({ cell }) => JSON.stringify(cell.axes) === key)?.history.evaluations.at(-1);
  };
  return found.map((result) => {
    const { axes } = result.cell;
    const mine = result.history.evaluations.at(-1);
    const against = (other: EvaluationPoint | undefined) =>
      mine === undefined || other === undefined || other === mine
        ? null
        : pairedDifference(mine.correct, other.correct);
    const single = { ...axes, workflow: 'single', ...('sharing' in axes && { sharing: null }) };
    return {
      ...result,
      againstSingle: against(last(single)),
      againstShared: axes.sharing === null ? null : against(last({ ...axes, sharing: 'shared' })),
    };
  });
}

const words = (values: readonly (string | null)[]): Vector =>
  vectorFromArray(values, new Dictionary(new Utf8(), new Int32()));
const numbers = (values: readonly (number | null)[]): Vector => vectorFromArray(values, new Float64());
const counts = (values: readonly (number | null)[]): Vector => vectorFromArray(values, new Int32());

/** One row for each cell. Accuracies are shares; docs/study.md names the columns. */
function resultsTable(results: readonly CellResult[], axes: readonly string[]): Table {
  const cliff = <T>(value: (cliff: Cliff) => T) =>
    results.map((one) => (one.verdict.cliff === null ? null : value(one.verdict.cliff)));
  const interval = (name: string, differences: readonly (Difference | null | undefined)[]) => ({
    [name]: numbers(differences.map((one) => one?.difference ?? null)),
    [`${name}_low`]: numbers(differences.map((one) => one?.low ?? null)),
    [`${name}_high`]: numbers(differences.map((one) => one?.high ?? null)),
  });
  return new Table({
    cell: words(results.map(({ cell }) => cell.id)),
    ...Object.fromEntries(
      axes.map((axis) => [axis, words(results.map(({ cell }) => cell.axes[axis] ?? null))]),
    ),
    state: words(results.map(({ ended }) => (ended ? 'ended' : 'unfinished'))),
    label: words(results.map(({ verdict: { label } }) => label)),
    base: numbers(cliff(({ first }) => first.accuracy)),
    peak: numbers(cliff(({ peak }) => peak.accuracy)),
    peak_step: counts(cliff(({ peak }) => peak.step)),
    terminal: numbers(cliff(({ current }) => current.accuracy)),
    terminal_step: counts(cliff(({ current }) => current.step)),
    greedy_base: numbers(results.map(({ history }) => greedyAccuracy(history, 0))),
    greedy_terminal: numbers(results.map(({ history }) => greedyAccuracy(history, -1))),
    dead_roles: words(results.map(({ verdict: { roles } }) => deadRoles(roles))),
    ...interval(
      'gain',
      cliff(({ gain }) => gain),
    ),
    ...interval(
      'drop',
      cliff(({ drop }) => drop),
    ),
    onset: counts(cliff(({ onset }) => onset)),
    trouble: counts(results.map(({ verdict: { trouble } }) => trouble)),
    alarms: counts(results.map(({ verdict: { alarms } }) => alarms.length)),
    first_alarm: counts(results.map(({ verdict: { alarms } }) => alarms[0]?.step ?? null)),
    ...interval(
      'against_single',
      results.map(({ againstSingle }) => againstSingle),
    ),
    ...interval(
      'against_shared',
      results.map(({ againstShared }) => againstShared),
    ),
  });
}

function greedyAccuracy({ greedyEvaluations }: History, at: number): number | null {
  const evaluation = greedyEvaluations.at(at);
  return evaluation === undefined ? null : accuracyOf(evaluation.correct);
}

/** "aggregator, worker"; null: none. */
function deadRoles(roles: Verdict['roles']): string | null {
  const dead = roles.filter(({ deadSince }) => deadSince !== null).map(({ role }) => role);
  return dead.length === 0 ? null : dead.join(', ');
}

/** Every measure of every cell: cell, measure, subject (a role, a policy, "a × b", or none), step, value. */
function measuresTable(results: readonly CellResult[]): Table {
  const columns = {
    cell: [] as string[],
    measure: [] as string[],
    subject: [] as (string | null)[],
    step: [] as number[],
    value: [] as number[],
  };
  const add = (cell: Cell, measure: string, subject: string | null, step: number, value: number) => {
    columns.cell.push(cell.id);
    columns.measure.push(measure);
    columns.subject.push(subject);
    columns.step.push(step);
    columns.value.push(value);
  };
  for (const { cell, history } of results) {
    for (const { step, correct } of history.evaluations) {
      const accuracy = accuracyOf(correct);
      if (accuracy !== null) add(cell, 'accuracy', null, step, accuracy);
    }
    for (const { step, correct } of history.greedyEvaluations) {
      const accuracy = accuracyOf(correct);
      if (accuracy !== null) add(cell, 'greedy_accuracy', null, step, accuracy);
    }
    for (const measure of Object.keys(MEASURES) as Measure[]) {
      for (const subject of history.subjects(measure)) {
        for (const { step, value } of history.series(measure, subject)) {
          add(cell, measure, subject, step, value);
        }
      }
    }
  }
  return new Table({
    cell: words(columns.cell),
    measure: words(columns.measure),
    subject: words(columns.subject),
    step: counts(columns.step),
    value: vectorFromArray(columns.value, new Float32()),
  });
}

/** Writes both tables, each whole. */
export function writeResults(folder: string, results: readonly CellResult[], axes: readonly string[]): void {
  const tables = { results: resultsTable(results, axes), measures: measuresTable(results) };
  for (const [name, table] of Object.entries(tables)) {
    writeFileWhole(join(folder, `${name}.arrow`), tableToIPC(table, 'file'));
  }
}
