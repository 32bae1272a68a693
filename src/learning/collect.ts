/** Runs and grades the episodes of a step or an evaluation. */
import { groupBy } from '../config/group-by.js';
import type { RunConfig } from '../config/schema.js';
import type { CompletionRequest } from '../engine/types.js';
import { PromptEncoder } from '../rollout/conversation.js';
import { type Complete, type EpisodePlace, runEpisode, type UngradedEpisode } from '../rollout/episode.js';
import { Gate } from '../rollout/gate.js';
import { gradeEpisodes } from '../rollout/grading.js';
import type { Problem } from '../tasks/types.js';
import type { Episode } from '../workflows/types.js';
import { beginByRoom, Room } from './room.js';
import type { Trainer } from './trainer.js';

export interface CollectOptions {
  /** First part of every random number's counter. */
  step: number;
  episodesPerProblem: number;
  /** Index of each problem in the step, where they are a part of its list. Default: from 0 on. */
  indices?: readonly number[];
  /** Index of the step's first episode, where it has had others before: every episode draws its own random numbers. */
  firstEpisode?: number;
  /** Overrides of every role's sampling. */
  sampling?: RunConfig['evaluation']['sampling'];
  signal?: AbortSignal | undefined;
  /** Is told how many of the episodes have ended. */
  onEnded?: ((ended: number, of: number) => void) | undefined;
}

/**
 * Every problem `episodesPerProblem` times, each on one of the ranks; in the order of problems and samples. One that runs
 * alone begins all at once, and so do deterministic ones, each its own; others begin as there is room in the engine's
 * batch, so that a rank that is done can take problems over from one that is not.
 */
export async function collect(
  trainer: Trainer,
  problems: readonly Problem[],
  options: CollectOptions,
): Promise<Episode[]> {
  const { step, episodesPerProblem, indices = [], firstEpisode = 0, sampling, signal, onEnded } = options;
  const byIndex = new Map(problems.map((problem, i) => [indices[i] ?? i, problem]));
  const places: EpisodePlace[] = [...byIndex].flatMap(([problemIndex, problem]) =>
    Array.from({ length: episodesPerProblem }, (_, sample) => ({
      problem,
      step,
      problemIndex,
      sample,
      index: firstEpisode + problemIndex * episodesPerProblem + sample,
    })),
  );
  const { ranks } = trainer;
  const what = `episodes of ${step === EVALUATION_STEP ? 'an evaluation' : `step ${step}`}`;
  const byRank = await ranks.together(what, () => runHere(trainer, places, { sampling, signal, onEnded }));
  for (const { takenOver } of byRank) {
    ranks.takenOver.problems += takenOver.problems;
    ranks.takenOver.seconds += takenOver.seconds;
  }
  return (
    byRank
      .flatMap(({ episodes }) => episodes)
      .sort((a, b) => a.problemIndex - b.problemIndex || a.sample - b.sample)
      // Of another rank's episodes the problem is a copy.
      .map((episode) => ({ ...episode, problem: byIndex.get(episode.problemIndex) ?? episode.problem }))
  );
}

interface Ran {
  episodes: Episode[];
  /** Of other ranks' problems: how many, and from the first one on. */
  takenOver: { problems: number; seconds: number };
}

/** What this rank runs of the places. */
async function runHere(
  trainer: Trainer,
  places: readonly EpisodePlace[],
  { sampling, signal, onEnded }: Pick<CollectOptions, 'sampling' | 'signal' | 'onEnded'>,
): Promise<Ran> {
  const { ranks, config, engine, task } = trainer;
  const setting = {
    open: trainer.open,
    task,
    policies: trainer.policies,
    rollout: config.rollout,
    prompts: new PromptEncoder(trainer.chat),
    ...(sampling === undefined ? {} : { sampling }),
  };
  const own = places.filter(({ problemIndex }) => ranks.owns(problemIndex));
  let ended = 0;
  const run = async (place: EpisodePlace, complete: Complete): Promise<UngradedEpisode> => {
    try {
      return await runEpisode(place, setting, complete, signal);
    } finally {
      ended += 1;
      // Of those that another rank has taken over the end is not seen.
      onEnded?.(ended, Math.max(ended, own.length));
    }
  };
  const graded = async (running: Promise<UngradedEpisode>[]) =>
    gradeEpisodes(await Promise.all(running), task, signal);
  const direct: Complete = (request: CompletionRequest, signal) => engine.complete(request, signal);
  if (config.deterministic || ranks.size === 1) {
    const running = config.deterministic ? inWaves(own, direct, run) : own.map((place) => run(place, direct));
    return { episodes: await graded(running), takenOver: { problems: 0, seconds: 0 } };
  }
  const room = new Room(direct, config.rollout.maxBatch);
  const byProblem = groupBy(places, ({ problemIndex }) => problemIndex);
  const most = Math.max(1, ...[...byProblem.values()].map(({ length }) => length));
  const begin = (problem: number) =>
    (byProblem.get(problem) ?? []).map((place) => room.during(() => run(place, room.complete)));
  const { episodes, takenOver } = await beginByRoom(ranks.deal([...byProblem.keys()]), room, most, begin);
  await Promise.all(episodes);
  const seconds = takenOver.since === undefined ? 0 : (performance.now() - takenOver.since) / 1000;
  return { episodes: await graded(episodes), takenOver: { problems: takenOver.problems, seconds } };
}

/**
 * The counter's step in evaluations: no training step has it. Every evaluation draws the same random numbers, so
 * that evaluations of one run compare in pairs.
 */
export const EVALUATION_STEP = 0xffff_ffff;

/** Deterministic runs send calls in waves (gate.ts); others as they come. */
function inWaves(
  places: readonly EpisodePlace[],
  direct: Complete,
  run: (place: EpisodePlace, complete: Complete) => Promise<UngradedEpisode>,
): Promise<UngradedEpisode>[] {
  const gate = new Gate(direct);
  for (const { index } of places) gate.begin(index);
  return places.map((place) => {
    const complete: Complete = (request, signal) => gate.complete(place.index, request, signal);
    return run(place, complete).finally(() => gate.end(place.index));
  });
}
