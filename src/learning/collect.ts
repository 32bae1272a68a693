/** Runs and grades the episodes of a step or an evaluation. */
import type { RunConfig } from '../config/schema.js';
import type { CompletionRequest } from '../engine/types.js';
import { PromptEncoder } from '../rollout/conversation.js';
import { type Complete, type EpisodePlace, runEpisode, type UngradedEpisode } from '../rollout/episode.js';
import { Gate } from '../rollout/gate.js';
import { gradeEpisodes } from '../rollout/grading.js';
import type { Problem } from '../tasks/types.js';
import type { Episode } from '../workflows/types.js';
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
 * Every problem `episodesPerProblem` times, all at once, each rank its own problems; in the order of problems and samples.
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
  let ended = 0;
  const own = places.filter(({ problemIndex }) => trainer.ranks.owns(problemIndex)).length;
  const episodes = await trainer.ranks.each(
    `episodes of ${step === EVALUATION_STEP ? 'an evaluation' : `step ${step}`}`,
    places,
    ({ problemIndex }) => problemIndex,
    (places) => runOwn(trainer, places, { sampling, signal, onEnded: () => onEnded?.(++ended, own) }),
  );
  // Of another rank's episodes the problem is a copy.
  return episodes.map((episode) => ({
    ...episode,
    problem: byIndex.get(episode.problemIndex) ?? episode.problem,
  }));
}

async function runOwn(
  trainer: Trainer,
  places: readonly EpisodePlace[],
  { sampling, signal, onEnded }: Pick<CollectOptions, 'sampling' | 'signal'> & { onEnded: () => void },
): Promise<Episode[]> {
  const setting = {
    open: trainer.open,
    task: trainer.task,
    policies: trainer.policies,
    rollout: trainer.config.rollout,
    prompts: new PromptEncoder(trainer.chat),
    ...(sampling === undefined ? {} : { sampling }),
  };
  const admission = admissionFor(trainer, places);
  const run = async (place: EpisodePlace): Promise<UngradedEpisode> => {
    try {
      return await runEpisode(place, setting, admission.completeFor(place.index), signal);
    } finally {
      admission.end(place.index);
      onEnded();
    }
  };
  return gradeEpisodes(await Promise.all(places.map(run)), trainer.task, signal);
}

/**
 * The counter's step in evaluations: no training step has it. Every evaluation draws the same random numbers, so
 * that evaluations of one run compare in pairs.
 */
export const EVALUATION_STEP = 0xffff_ffff;

interface Admission {
  completeFor(episode: number): Complete;
  end(episode: number): void;
}

/** Deterministic runs send calls in waves (gate.ts); others as they come. */
function admissionFor(trainer: Trainer, places: readonly EpisodePlace[]): Admission {
  const direct: Complete = (request: CompletionRequest, signal) => trainer.engine.complete(request, signal);
  if (!trainer.config.deterministic) return { completeFor: () => direct, end: () => undefined };
  const gate = new Gate(direct);
  for (const place of places) gate.begin(place.index);
  return {
    completeFor: (episode) => (request, signal) => gate.complete(episode, request, signal),
    end: (episode) => gate.end(episode),
  };
}
