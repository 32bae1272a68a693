/** Accuracy of the current policies on held-out problems. */

import type { Episode } from '../workflows/types.js';
import { type Accuracy, accuracy } from './accuracy.js';
import { type CollectOptions, collect, EVALUATION_STEP } from './collect.js';
import type { Trainer } from './trainer.js';

/** An evaluation of the current policies on held-out problems. */
export interface Evaluation {
  accuracy: Accuracy;
  /** Mean reward; differs from accuracy where a task grades in parts. */
  reward: number;
  episodes: Episode[];
  /** The same at temperature 0, one episode of each problem; undefined where not asked for, or the same. */
  greedy: { accuracy: Accuracy; episodes: Episode[] } | undefined;
  /** Wall-clock seconds. */
  seconds: number;
}

export type EvaluateOptions = Pick<CollectOptions, 'signal' | 'onEnded'>;

export async function evaluate(trainer: Trainer, options: EvaluateOptions = {}): Promise<Evaluation> {
  const started = performance.now();
  const { episodes: episodesPerProblem, sampling, greedy } = trainer.config.evaluation;
  const episodes = await evaluationEpisodes(trainer, { episodesPerProblem, sampling, ...options });
  const again = greedy && sampling.temperature !== 0;
  const atZero = again
    ? await evaluationEpisodes(trainer, {
        episodesPerProblem: 1,
        sampling: { ...sampling, temperature: 0 },
        ...options,
      })
    : undefined;
  const reward =
    episodes.reduce((sum, episode) => sum + episode.grade.reward, 0) / Math.max(1, episodes.length);
  await trainer.engine.send('clearCache', null);
  return {
    accuracy: accuracyOf(episodes),
    reward,
    episodes,
    greedy: atZero && { accuracy: accuracyOf(atZero), episodes: atZero },
    seconds: (performance.now() - started) / 1000,
  };
}

function evaluationEpisodes(trainer: Trainer, options: Omit<CollectOptions, 'step'>): Promise<Episode[]> {
  const { problems } = trainer.config.evaluation;
  return collect(trainer, trainer.task.evaluation(problems), { step: EVALUATION_STEP, ...options });
}

function accuracyOf(episodes: readonly Episode[]): Accuracy {
  const problems = new Set(episodes.map(({ problemIndex }) => problemIndex)).size;
  return accuracy(episodes.filter(({ grade }) => grade.correct).length, episodes.length, problems);
}
