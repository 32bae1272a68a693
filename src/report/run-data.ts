/**
 * All that the pages show of one run, gathered from its streams: at once for a report, batch by batch as steps
 * land for `troupe watch`.
 */
import { basename, resolve } from 'node:path';
import type { Table } from 'apache-arrow';
import type { RunConfig } from '../config/schema.js';
import { History, type Point } from '../judgement/history.js';
import { type Verdict, verdict } from '../judgement/verdict.js';
import type { Environment } from '../runs/environment.js';
import { type FileDigest, readFileRecord } from '../runs/file-record.js';
import { modelDigest } from '../runs/model-record.js';
import { readTables } from '../runs/read-tables.js';
import { loadRun } from '../runs/run-config.js';
import { type RecordedChange, readChanges, readEnvironments } from '../runs/run-directory.js';
import type { TableName } from '../streams/tables.js';
import { LayerGrams } from './layers.js';
import { SampleEpisodes } from './sample-episodes.js';
import { columnsOf } from './table-rows.js';

/** A value of a named series at a step. */
export interface SeriesPoint extends Point {
  series: string;
}

/** An alarm as it was recorded, or an update that was skipped. */
export interface Incident {
  step: number;
  text: string;
}

const PHASES = ['rollout', 'forward', 'backward', 'optimizer', 'statistics', 'evaluation', 'checkpoint'];

export class RunData {
  readonly name: string;
  readonly config: RunConfig;
  readonly environments: readonly Environment[];
  /** What of the configuration changed on the way. */
  readonly changes: readonly RecordedChange[];
  /** The files of a user's own that it works with. */
  readonly files: readonly FileDigest[];
  /** One digest of the files of the model that it trains, where the run has written them down. */
  readonly model: string | undefined;
  readonly history = new History();
  readonly layers = new LayerGrams();
  readonly episodes = new SampleEpisodes('train');
  readonly evaluated = new SampleEpisodes('evaluation');
  /** Share of right episodes in training. */
  readonly trainAccuracy: Point[] = [];
  /** Seconds of each step by what they were spent on. */
  readonly seconds: SeriesPoint[] = [];
  /** Values of training signals by their name; `series` is the role, or "workflow". */
  readonly signals = new Map<string, SeriesPoint[]>();
  /** The steps that have rows of signals, and those that have one of each, be it null. */
  readonly signalSteps = new Set<number>();
  readonly stepsOfSignal = new Map<string, Set<number>>();
  readonly skipped: Incident[] = [];
  /** What of its streams could not be read. */
  readonly leftOut: string[] = [];

  /** Throws a TroupeError if the folder is no run. */
  constructor(folder: string) {
    this.name = basename(resolve(folder));
    this.config = loadRun(folder).config;
    this.environments = readEnvironments(folder);
    this.changes = readChanges(folder);
    this.files = readFileRecord(folder) ?? [];
    this.model = modelDigest(folder);
  }

  /** Takes rows of a table of the streams, in the order of the stream. */
  add(name: TableName, table: Table): void {
    this.history.add(name, table);
    if (name === 'gradients' || name === 'gradient_pairs') this.layers.add(name, table);
    if (name === 'calls' || name === 'episodes' || name === 'prompts') this.episodes.add(name, table);
    if (name === 'evaluation_calls') this.evaluated.add('calls', table);
    if (name === 'evaluation_prompts') this.evaluated.add('prompts', table);
    if (name === 'episodes') this.evaluated.add(name, table);
    if (name === 'steps') this.#addSteps(table);
    if (name === 'timings') this.#addTimings(table);
    if (name === 'signals') this.#addSignals(table);
    if (name === 'updates') this.#addSkipped(table);
  }

  /** Steps that are done. */
  get steps(): number {
    return (this.history.lastStep ?? -1) + 1;
  }

  verdict(): Verdict {
    return verdict(this.history, this.config.alarms);
  }

  #addSteps(table: Table): void {
    const columns = columnsOf(table, ['step', 'correct_share']);
    for (let row = 0, rows = table.numRows; row < rows; row++) {
      const value = columns.number('correct_share', row);
      if (value !== null) this.trainAccuracy.push({ step: columns.number('step', row) ?? 0, value });
    }
  }

  #addTimings(table: Table): void {
    const columns = columnsOf(
      table,
      ['step', 'total_seconds'],
      PHASES.map((phase) => `${phase}_seconds`),
    );
    for (let row = 0, rows = table.numRows; row < rows; row++) {
      const step = columns.number('step', row) ?? 0;
      for (const series of PHASES) {
        this.seconds.push({ step, series, value: columns.number(`${series}_seconds`, row) ?? 0 });
      }
    }
  }

  #addSignals(table: Table): void {
    const columns = columnsOf(table, ['step', 'phase', 'role', 'signal', 'value']);
    for (let row = 0, rows = table.numRows; row < rows; row++) {
      if (columns.text('phase', row) !== 'train') continue;
      const value = columns.number('value', row);
      const name = columns.text('signal', row) ?? '';
      const step = columns.number('step', row) ?? 0;
      const steps = this.stepsOfSignal.get(name) ?? new Set();
      this.stepsOfSignal.set(name, steps.add(step));
      this.signalSteps.add(step);
      if (value === null) continue;
      const points = this.signals.get(name) ?? [];
      this.signals.set(name, points);
      const series = columns.text('role', row) ?? 'workflow';
      points.push({ step, series, value });
    }
  }

  #addSkipped(table: Table): void {
    const columns = columnsOf(table, ['step', 'skipped']);
    for (let row = 0, rows = table.numRows; row < rows; row++) {
      const why = columns.text('skipped', row);
      if (why !== null) this.skipped.push({ step: columns.number('step', row) ?? 0, text: why });
    }
  }
}

/** A run as its streams show it now. Throws a TroupeError if the folder is no run or a stream cannot be read. */
export function readRun(folder: string): RunData {
  const data = new RunData(folder);
  for (const { name, table, leftOut } of readTables(folder)) {
    if (leftOut !== undefined) data.leftOut.push(leftOut);
    data.add(name, table);
  }
  return data;
}
