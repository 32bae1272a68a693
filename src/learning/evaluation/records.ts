/**
 * What an evaluation leaves in its folder, as Arrow IPC files:
 *
 *     results.arrow                    one row for each line-up
 *     episodes/KEY/lineup.json         which line-up, and with what it was evaluated
 *     episodes/KEY/PHASE-000000.arrow  its episodes, from that problem on: sampled, or at temperature 0 (greedy)
 *
 * KEY is a checksum of the configuration and the parameters, so that a repeated evaluation finds its own episodes and no
 * others. A file is there whole or not at all: an evaluation that was ended goes on behind the last one.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  Bool,
  Dictionary,
  Float64,
  Int32,
  Table,
  tableFromIPC,
  tableToIPC,
  Utf8,
  type Vector,
  vectorFromArray,
} from 'apache-arrow';
import { reasonOf, TroupeError } from '../../config/errors.js';
import { onFile, writeFileWhole } from '../../config/files.js';
import type { Task } from '../../tasks/types.js';
import type { Episode } from '../../workflows/types.js';

export type Phase = 'sampled' | 'greedy';

/** One episode, as the files keep it. */
export interface EpisodeRecord {
  problem: string;
  /** Index of the problem among the held-out ones, and of the sample. */
  problemIndex: number;
  sample: number;
  correct: boolean;
  reward: number;
  reason: string;
  calls: number;
  responseTokens: number;
  /** The final answer, and the short one that the task reads in it. */
  answer: string;
  extracted: string | null;
  /** What broke it off. */
  error: string | null;
  /** What the workflow counted, as JSON: {"aggregator.unparsed": 1}. */
  counts: string;
}

export function recordOf(episode: Episode, task: Task): EpisodeRecord {
  const { problem, problemIndex, sample, grade, calls, answer, error, counts } = episode;
  return {
    problem: problem.id,
    problemIndex,
    sample,
    correct: grade.correct,
    reward: grade.reward,
    reason: grade.reason,
    calls: calls.length,
    responseTokens: calls.reduce((sum, { completion }) => sum + completion.ids.length, 0),
    answer,
    extracted: error === undefined ? (task.extract(answer) ?? null) : null,
    error: error ?? null,
    counts: JSON.stringify(counts),
  };
}

const texts = (values: readonly (string | null)[]): Vector => vectorFromArray(values, new Utf8());
const words = (values: readonly (string | null)[]): Vector =>
  vectorFromArray(values, new Dictionary(new Utf8(), new Int32()));
const integers = (values: readonly number[]): Vector => vectorFromArray(values, new Int32());
const numbers = (values: readonly (number | null)[]): Vector => vectorFromArray(values, new Float64());

type Make = (records: readonly EpisodeRecord[]) => Vector;

/** Column name → how it is made; `fromRow` is its inverse. */
const COLUMNS = {
  problem: (all) => texts(all.map(({ problem }) => problem)),
  problem_index: (all) => integers(all.map(({ problemIndex }) => problemIndex)),
  sample: (all) => integers(all.map(({ sample }) => sample)),
  correct: (all) =>
    vectorFromArray(
      all.map(({ correct }) => correct),
      new Bool(),
    ),
  reward: (all) => numbers(all.map(({ reward }) => reward)),
  reason: (all) => words(all.map(({ reason }) => reason)),
  calls: (all) => integers(all.map(({ calls }) => calls)),
  response_tokens: (all) => integers(all.map(({ responseTokens }) => responseTokens)),
  answer: (all) => texts(all.map(({ answer }) => answer)),
  extracted: (all) => texts(all.map(({ extracted }) => extracted)),
  error: (all) => texts(all.map(({ error }) => error)),
  counts: (all) => texts(all.map(({ counts }) => counts)),
} satisfies Record<string, Make>;

type Row = Record<keyof typeof COLUMNS, unknown>;

function fromRow(row: Row): EpisodeRecord {
  return {
    problem: String(row.problem),
    problemIndex: Number(row.problem_index),
    sample: Number(row.sample),
    correct: row.correct === true,
    reward: Number(row.reward),
    reason: String(row.reason),
    calls: Number(row.calls),
    responseTokens: Number(row.response_tokens),
    answer: String(row.answer),
    extracted: row.extracted === null ? null : String(row.extracted),
    error: row.error === null ? null : String(row.error),
    counts: String(row.counts),
  };
}

/** Where one line-up's episodes lie. Without a folder they are kept in memory alone. */
export class EpisodeStore {
  readonly #folder: string | undefined;

  constructor(folder: string | undefined, key: string, lineup: object) {
    this.#folder = folder === undefined ? undefined : join(folder, 'episodes', key);
    if (this.#folder === undefined) return;
    const file = join(this.#folder, 'lineup.json');
    if (!existsSync(file)) writeFileWhole(file, `${JSON.stringify(lineup, undefined, 2)}\n`);
  }

  /**
   * The episodes of a phase that are there, from the first problem on, up to the first one that is missing. Throws a
   * TroupeError for a damaged file.
   */
  read(phase: Phase, samples: number): EpisodeRecord[] {
    const folder = this.#folder;
    if (folder === undefined) return [];
    const records: EpisodeRecord[] = [];
    for (const name of onFile(folder, () => readdirSync(folder)).sort()) {
      if (!name.startsWith(`${phase}-`) || !name.endsWith('.arrow')) continue;
      const part = readPart(join(folder, name));
      if (part[0]?.problemIndex !== records.length / samples) break;
      records.push(...part);
    }
    return records;
  }

  write(phase: Phase, firstProblem: number, records: readonly EpisodeRecord[]): void {
    if (this.#folder === undefined) return;
    const columns = Object.entries(COLUMNS).map(([name, make]) => [name, make(records)]);
    const name = `${phase}-${String(firstProblem).padStart(6, '0')}.arrow`;
    writeFileWhole(join(this.#folder, name), tableToIPC(new Table(Object.fromEntries(columns)), 'file'));
  }
}

function readPart(path: string): EpisodeRecord[] {
  try {
    const rows = tableFromIPC(readFileSync(path)).toArray() as { toJSON(): Row }[];
    return rows.map((row) => fromRow(row.toJSON()));
  } catch (cause) {
    throw new TroupeError(`cannot be read: ${reasonOf(cause)}.`, {
      where: path,
      hint: 'Remove it; its episodes are then evaluated again.',
      cause,
    });
  }
}

/** Values of results.arrow by column; numbers, texts and null. */
export type ResultRow = Record<string, number | string | null>;

/** Writes results.arrow: every column that any row has. */
export function writeResults(folder: string, rows: readonly ResultRow[]): void {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const columns = names.map((name) => {
    const values = rows.map((row) => row[name] ?? null);
    const isText = values.some((value) => typeof value === 'string');
    return [name, isText ? texts(values as (string | null)[]) : numbers(values as (number | null)[])];
  });
  const table = new Table(Object.fromEntries(columns) as Record<string, Vector>);
  writeFileWhole(join(folder, 'results.arrow'), tableToIPC(table, 'file'));
}
