/**
 * What evaluations leave in their folder, as Arrow IPC files:
 *
 *     results.arrow                    one row for each line-up of each evaluation
 *     episodes/KEY/lineup.json         which line-up, and with what it was evaluated
 *     episodes/KEY/PHASE-000000.arrow  its episodes, from that problem on: sampled, or at temperature 0 (greedy)
 *
 * KEY is a checksum of the configuration and the parameters, so that a repeated evaluation finds its own episodes and no
 * others. A file is there whole or not at all: an evaluation that was ended goes on behind the last one.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Table, tableFromIPC, tableToIPC } from 'apache-arrow';
import { reasonOf, TroupeError } from '../../config/errors.js';
import { onFile, writeFileWhole } from '../../config/files.js';
import { batchOf } from '../../streams/batch.js';
import { bool, float64, int32, optional, type Row, type Specs, text } from '../../streams/column-kinds.js';
import type { Task } from '../../tasks/types.js';
import type { Episode } from '../../workflows/types.js';

export type Phase = 'sampled' | 'greedy';

const EPISODES = {
  name: 'episodes',
  description: 'One row for each episode of a line-up.',
  columns: {
    problem: text('Identifier of the problem.'),
    problem_index: int32('Index of the problem among the held-out ones.'),
    sample: int32('Index of the episode among those of its problem.'),
    correct: bool('Whether the answer is right.'),
    reward: float64('Reward of the episode.'),
    reason: text("The grader's word for the verdict."),
    calls: int32('Role calls that were answered.'),
    response_tokens: int32('Response tokens of all calls.'),
    answer: text('The final answer.'),
    extracted: optional(text('What the task reads in it; null: nothing.')),
    error: optional(text('What broke the episode off; null: nothing.')),
    counts: text('What the workflow counted, as JSON: {"aggregator.unparsed": 1}.'),
    question: text('The question as the roles read it.'),
    right_answer: optional(text('The right answer; null where the grader compares with none.')),
    said: text('Every call with its messages, as JSON: [{"role", "slot", "turn", "messages", "text"}].'),
  },
};

/** One episode, as the files keep it. */
export type EpisodeRecord = Row<typeof EPISODES.columns>;

export function recordOf(episode: Episode, task: Task): EpisodeRecord {
  const { problem, problemIndex, sample, grade, calls, answer, error, counts } = episode;
  return {
    problem: problem.id,
    problem_index: problemIndex,
    sample,
    correct: grade.correct,
    reward: grade.reward,
    reason: grade.reason,
    calls: calls.length,
    response_tokens: calls.reduce((sum, { completion }) => sum + completion.ids.length, 0),
    answer,
    extracted: error === undefined ? (task.extract(answer) ?? null) : null,
    error: error ?? null,
    counts: JSON.stringify(counts),
    question: problem.question,
    right_answer: problem.answer ?? null,
    said: JSON.stringify(
      calls.map(({ role, slot, turn, messages, text }) => ({ role, slot, turn, messages, text })),
    ),
  };
}

/** Rows as an Arrow file. None of its words are the run's. */
function arrowFile(table: { name: string; description: string; columns: Specs }, rows: readonly object[]) {
  const batch = batchOf(table, rows, { roles: [], policies: [] });
  return tableToIPC(new Table([batch]), 'file');
}

function rowsOfFile(path: string): Record<string, unknown>[] {
  return tableFromIPC(readFileSync(path))
    .toArray()
    .map((row) => row.toJSON());
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
      if (part[0]?.problem_index !== records.length / samples) break;
      records.push(...part);
    }
    return records;
  }

  write(phase: Phase, firstProblem: number, records: readonly EpisodeRecord[]): void {
    if (this.#folder === undefined) return;
    const name = `${phase}-${String(firstProblem).padStart(6, '0')}.arrow`;
    writeFileWhole(join(this.#folder, name), arrowFile(EPISODES, records));
  }
}

function readPart(path: string): EpisodeRecord[] {
  try {
    return rowsOfFile(path) as EpisodeRecord[];
  } catch (cause) {
    throw new TroupeError(`cannot be read: ${reasonOf(cause)}.`, {
      where: path,
      hint: 'Remove it; its episodes are then evaluated again.',
      cause,
    });
  }
}

/** A row of results.arrow by column; numbers, texts and null. */
export interface ResultRow {
  [column: string]: number | string | null;
  /** Which evaluation it is of: a checksum of its line-ups and of what they were evaluated with. */
  evaluation: string;
}

/**
 * Adds the rows of an evaluation to results.arrow, which has every column that any row has. Rows of other evaluations stay
 * before them; those of the same one, made before, are these. Throws a TroupeError for a file that cannot be read.
 */
export function addResults(folder: string, evaluation: string, own: readonly ResultRow[]): void {
  const path = join(folder, 'results.arrow');
  const others = existsSync(path) ? readResults(path).filter((row) => row.evaluation !== evaluation) : [];
  const rows = [...others, ...own];
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const columns = names.map((name) => {
    const isText = rows.some((row) => typeof row[name] === 'string');
    return [name, isText ? optional(text('')) : optional(float64(''))];
  });
  const table = { name: 'results', description: 'Line-ups.', columns: Object.fromEntries(columns) as Specs };
  const whole = rows.map((row) => Object.fromEntries(names.map((name) => [name, row[name] ?? null])));
  writeFileWhole(path, arrowFile(table, whole));
}

function readResults(path: string): Record<string, unknown>[] {
  try {
    return rowsOfFile(path);
  } catch (cause) {
    throw new TroupeError(`cannot be read: ${reasonOf(cause)}.`, {
      where: path,
      hint: 'Move it away; a repeated evaluation writes its results again.',
      cause,
    });
  }
}
