/** What the episodes of a line-up amount to, as an object and as a row of results.arrow. */

import { ownValue } from '../../config/own-value.js';
import { type Difference, pairedDifference } from '../../judgement/paired.js';
import { brokenOff } from '../notices.js';
import { type Lineup, playerName } from './lineups.js';
import { type Estimate, estimate, majorityAtK, passAtK, type Sample } from './measures.js';
import type { EpisodeRecord, ResultRow } from './records.js';

/** What a line-up achieved. */
export interface LineupResult {
  /** "step 20", "generator=a aggregator=b", "base". */
  name: string;
  /** Who played each role: "RUN@STEP:POLICY", or "base". */
  players: Record<string, string>;
  problems: number;
  /** Samples of each problem. */
  samples: number;
  /** Share of right samples, mean over problems. */
  accuracy: Estimate;
  /** The same at temperature 0, one sample each; undefined where `evaluation.greedy` is off or samples are greedy. */
  greedy: Estimate | undefined;
  /** Mean reward of the samples; differs from accuracy where a task grades in parts. */
  reward: number;
  /** By k. */
  pass: Record<number, Estimate>;
  majority: Record<number, Estimate>;
  /** Accuracy minus that of the first line-up, on the same problems; null of the first. */
  againstFirst: Difference | null;
  /** Samples that broke off, and why in a sentence. */
  broken: number;
  brokenOff: string | undefined;
  /** What the workflow counted. */
  counts: Record<string, number>;
}

export interface PlayedLineup {
  sampled: EpisodeRecord[];
  greedy: EpisodeRecord[] | undefined;
}

export const playersOf = ({ players }: Lineup): Record<string, string> =>
  Object.fromEntries(Object.entries(players).map(([role, player]) => [role, playerName(player)]));

export interface Comparison {
  ks: readonly number[];
  first: readonly EpisodeRecord[];
  samples: number;
}

export function resultOf(
  lineup: Lineup,
  played: PlayedLineup,
  { ks, first, samples }: Comparison,
): LineupResult {
  const { sampled, greedy } = played;
  const problems = [...byProblem(sampled).values()];
  const right = (one: readonly Sample[]) => one.filter(({ correct }) => correct).length;
  const byK = (measure: (one: readonly Sample[], k: number) => number) =>
    Object.fromEntries(ks.map((k) => [k, estimate(problems, (one) => measure(one, k))]));
  const counts: Record<string, number> = {};
  for (const record of sampled) {
    const counted = Object.entries(JSON.parse(record.counts) as Record<string, number>);
    for (const [name, count] of counted) counts[name] = (ownValue(counts, name) ?? 0) + count;
  }
  const broken = sampled.flatMap(({ error, problem }) => ({
    ...(error === null ? {} : { error }),
    problem: { id: problem, question: '' },
  }));
  return {
    name: lineup.name,
    players: playersOf(lineup),
    problems: problems.length,
    samples,
    accuracy: estimate(problems, (one) => right(one) / one.length),
    greedy: greedy && estimate([...byProblem(greedy).values()], right),
    reward: sampled.reduce((sum, { reward }) => sum + reward, 0) / Math.max(1, sampled.length),
    pass: byK((one, k) => passAtK(one.length, right(one), k)),
    majority: byK(majorityAtK),
    againstFirst: first === sampled ? null : pairedDifference(outcomesOf(sampled), outcomesOf(first)),
    broken: broken.filter((one) => 'error' in one).length,
    brokenOff: brokenOff(broken),
    counts,
  };
}

function byProblem(records: readonly EpisodeRecord[]): Map<number, Sample[]> {
  const problems = new Map<number, Sample[]>();
  for (const { problem_index: index, correct, extracted } of records) {
    const samples = problems.get(index) ?? [];
    samples.push({ correct, answer: extracted ?? undefined });
    problems.set(index, samples);
  }
  return problems;
}

const outcomesOf = (records: readonly EpisodeRecord[]) =>
  new Map([...byProblem(records)].map(([index, one]) => [String(index), one.map(({ correct }) => correct)]));

/** Where a row of results.arrow comes from. */
export interface ResultPlace {
  evaluation: string;
  /** The folder of the line-up's episodes: episodes/KEY. */
  episodes: string;
  workflow: string;
  task: string;
}

/** A row of results.arrow. */
export function rowOf(result: LineupResult, place: ResultPlace): ResultRow {
  const { name, players, problems, samples, accuracy, greedy, reward, pass, majority, againstFirst } = result;
  const interval = (column: string, value: Estimate | undefined) => ({
    [column]: value?.mean ?? null,
    [`${column}_low`]: value?.low ?? null,
    [`${column}_high`]: value?.high ?? null,
  });
  const byK = (column: string, values: Record<number, Estimate>) =>
    Object.assign({}, ...Object.entries(values).map(([k, value]) => interval(`${column}_at_${k}`, value)));
  return {
    ...place,
    lineup: name,
    ...Object.fromEntries(Object.entries(players).map(([role, player]) => [`player_${role}`, player])),
    problems,
    samples,
    ...interval('accuracy', accuracy),
    ...interval('greedy', greedy),
    reward,
    ...byK('pass', pass),
    ...byK('majority', majority),
    against_first: againstFirst?.difference ?? null,
    against_first_low: againstFirst?.low ?? null,
    against_first_high: againstFirst?.high ?? null,
    broken: result.broken,
  };
}
