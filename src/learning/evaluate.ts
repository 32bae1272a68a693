/** Accuracy of the current policies on held-out problems. */

import type { Episode } from '../workflows/types.js';
import { collect } from './collect.js';
import { type Accuracy, accuracy } from './interval.js';
import type { Trainer } from './setup.js';

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
  /** Wall-clock seconds. */
  seconds: number;
}

export interface EvaluateOptions {
  signal?: AbortSignal;
}

export async function evaluate(trainer: Trainer, options: EvaluateOptions = {}): Promise<Evaluation> {
  const started = performance.now();
  const { problems, episodes: episodesPerProblem, sampling } = trainer.config.evaluation;
  const episodes = await collect(trainer, trainer.task.evaluation(problems), {
    step: EVALUATION_STEP,
    episodesPerProblem,
    sampling,
    ...options,
  });
  const correct = episodes.filter((episode) => episode.grade.correct).length;
  const reward =
    episodes.reduce((sum, episode) => sum + episode.grade.reward, 0) / Math.max(1, episodes.length);
  await trainer.engine.send('clearCache', null);
  const seconds = (performance.now() - started) / 1000;
  return { accuracy: accuracy(correct, episodes.length), reward, episodes, seconds };
}
