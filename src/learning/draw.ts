/**
 * The problems of a step, with their episodes and rewards. With `learning.dynamicSampling` (DAPO, Yu et al. 2025) a problem
 * whose groups all lack variance, and so teach nothing, gives its place to a fresh one, a bounded number of times.
 */
import { TroupeError } from '../config/errors.js';
import { groupBy } from '../config/group-by.js';
import type { Episode } from '../workflows/types.js';
import { collect } from './collect.js';
import { hasVariance } from './credit.js';
import { withKlReward } from './kl-reward.js';
import type { RewardTime, RewardValue } from './rewards/types.js';
import { byPlace, callsOf, problemOf, type RewardedCall } from './step-call.js';
import type { StepOptions, Trainer } from './trainer.js';

/** Problems that gave their place to others, and how their episodes went: nothing is learnt from them. */
export interface Replaced {
  problems: number;
  episodes: number;
  /** Episodes among them whose answer is right. */
  correct: number;
}

export interface DrawnStep {
  /** In the order of problems and samples. */
  episodes: Episode[];
  /** Every call of them. */
  rewarded: RewardedCall[];
  replaced: Replaced;
}

/** A problem's place in the step. */
interface Drawn {
  episodes: Episode[];
  rewarded: RewardedCall[];
}

export async function drawStep(
  trainer: Trainer,
  step: number,
  { signal, onProgress }: Pick<StepOptions, 'signal' | 'onProgress'>,
): Promise<DrawnStep> {
  const { task, config, state } = trainer;
  const { promptsPerStep, episodesPerPrompt } = config.rollout;
  const { dynamicSampling, groups, baseline } = config.learning;
  const places = new Map<number, Drawn>();
  const replaced: Replaced = { problems: 0, episodes: 0, correct: 0 };
  let next = step * promptsPerStep + state.replacedProblems;
  let wanted = Array.from({ length: promptsPerStep }, (_, i) => i);
  for (let round = 0; wanted.length > 0; round++) {
    const problems = wanted.map(() => task.train(config.seed, next++));
    const episodes = await collect(trainer, problems, {
      step,
      episodesPerProblem: episodesPerPrompt,
      indices: wanted,
      firstEpisode: round * promptsPerStep * episodesPerPrompt,
      signal,
      onEnded: (ended, of) => onProgress?.(`${round === 0 ? '' : 'fresh '}episodes ${ended}/${of}`),
    });
    const given = await rewardEpisodes(trainer, episodes, { step, steps: config.steps, signal });
    const rewarded = groupBy(await withKlReward(trainer, given, signal), problemOf);
    for (const [index, its] of groupBy(episodes, ({ problemIndex }) => problemIndex)) {
      places.set(index, { episodes: its, rewarded: rewarded.get(index) ?? [] });
    }
    if (round === dynamicSampling) break;
    wanted = wanted.filter((index) => !hasVariance(places.get(index)?.rewarded ?? [], { groups, baseline }));
    for (const { episodes: lost } of wanted.flatMap((index) => places.get(index) ?? [])) {
      replaced.problems += 1;
      replaced.episodes += lost.length;
      replaced.correct += lost.filter(({ grade }) => grade.correct).length;
    }
  }
  const ordered = [...places].sort(([a], [b]) => a - b).map(([, drawn]) => drawn);
  return {
    episodes: ordered.flatMap(({ episodes }) => episodes),
    rewarded: ordered.flatMap(({ rewarded }) => rewarded).sort(byPlace),
    replaced,
  };
}

/** A call's rewards as they go from one rank to another: errors as their messages. */
interface SentRewards {
  values: (Omit<RewardValue, 'error'> & { error?: string })[];
  reward: number | { error: string };
}

/** Every rank asks for the rewards of its own problems. */
async function rewardEpisodes(
  { ranks, rewards }: Trainer,
  episodes: readonly Episode[],
  time: RewardTime,
): Promise<RewardedCall[]> {
  const places = callsOf(episodes);
  const own = episodes.filter(({ problemIndex }) => ranks.owns(problemIndex));
  const ask = async () => (await rewards.of(own, time)).map(toSend);
  const given = await ranks.each('rewards', places, (one) => ranks.ownerOf(problemOf(one)), ask);
  return places.map((place, i) => ({ ...place, ...fromSent(given[i] as SentRewards) }));
}

function toSend({ values, reward }: RewardedCall): SentRewards {
  return {
    values: values.map(({ error, ...value }) => ({ ...value, ...(error && { error: error.message }) })),
    reward: typeof reward === 'number' ? reward : { error: reward.message },
  };
}

function fromSent({ values, reward }: SentRewards): Pick<RewardedCall, 'values' | 'reward'> {
  return {
    values: values.map(({ error, ...value }) => ({
      ...value,
      ...(error !== undefined && { error: new TroupeError(error) }),
    })),
    reward: typeof reward === 'number' ? reward : new TroupeError(reward.error),
  };
}
