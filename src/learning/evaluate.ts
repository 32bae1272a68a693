/** Accuracy of the current policies on held-out problems. */
import { type Accuracy, accuracy } from './interval.js';
import { collect } from './collect.js';
import type { Trainer } from './setup.js';
import type { Episode } from '../workflows/types.js';

/**
 * The counter's step in evaluations: no training step has it. Every evaluation draws the same random numbers, so
 * that evaluations of one run compare in pairs.
 */
const EVALUATION_STEP = 0xffff_ffff;

export interface Evaluation {
  accuracy: Accuracy;
  /** Mean reward; differs from accuracy where a task grades in parts. */
  reward: number;
  episodes: Episode[];
}

export interface EvaluateOptions {
  signal?: AbortSignal;
  onEpisode?: (done: number, total: number) => void;
}

export async function evaluate(trainer: Trainer, options: EvaluateOptions = {}): Promise<Evaluation> {
  const { problems, episodes: episodesPerProblem, sampling } = trainer.config.evaluation;
  const episodes = await collect(trainer, trainer.task.evaluation(problems), {
    step: EVALUATION_STEP,
    episodesPerProblem,
    sampling,
    ...options,
  });
  const correct = episodes.filter((episode) => episode.grade.correct).length;
  const reward = episodes.reduce((sum, episode) => sum + episode.grade.reward, 0) / Math.max(1, episodes.length);
  return { accuracy: accuracy(correct, episodes.length), reward, episodes };
}
