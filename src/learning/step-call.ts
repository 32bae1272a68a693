/**
 * A call of a training step, and what each stage of the step finds of it: rewards, credit, the plan of the updates, the
 * training itself. A stage takes calls and hands them on with its own part added, so that at the end each call has with
 * it whatever is known of it, and its rows in the streams are made of it alone.
 */
import type { TroupeError } from '../config/errors.js';
import type { CallStatistics } from '../engine/types.js';
import type { Episode, RoleCall } from '../workflows/types.js';
import type { GroupedCall } from './estimators/types.js';
import type { RewardValue } from './rewards/types.js';

/** A call of a graded episode. */
export interface EpisodeCall {
  episode: Episode;
  call: RoleCall;
  /** Index of the call in its episode. */
  index: number;
}

/** A call with all that its rewards gave it. */
export interface RewardedCall extends EpisodeCall {
  /** In the order of the configuration. */
  values: RewardValue[];
  /** Σ weight · value over the rewards that say something of it; or why it has none. */
  reward: number | TroupeError;
}

/** A call that has a reward, with its advantage. */
export interface CreditedCall extends RewardedCall, GroupedCall {
  reward: number;
  advantage: number;
  /** The group has nothing to compare: one sample, or none that differ. */
  flat: boolean;
}

/** A call with its part in an update. */
export interface PlannedCall extends CreditedCall {
  /** Index of the update among those of its policy in the step. */
  update: number;
  /** Weight of each of its response tokens: the loss is Σ weight · term over all tokens of the update. */
  weight: number;
  /** backward: it trains. forward: its mismatch is measured alone. none: it is only counted. */
  pass: 'backward' | 'forward' | 'none';
  /** Calls that it stands for in the mismatch: a sample of those without a backward pass stands for all of them. */
  standsFor: number;
  /** Log p of its response in the trainer before the first update of the step, where later updates compare with it. */
  oldLogprobs?: Float32Array;
}

/** A call after its update. */
export interface TrainedCall extends PlannedCall {
  /** Index of its group among the update's gradient groups. */
  gradientGroup: number;
  /** What the trainer measured of it; left out where it had no pass. */
  statistics?: CallStatistics;
}

/** A call at the end of the step, which it left at whatever stage: without a reward, without an update, or trained. */
export type StepCall = RewardedCall & Partial<Omit<TrainedCall, keyof RewardedCall>>;

/** Every call of the episodes, in their order. */
export function callsOf(episodes: readonly Episode[]): EpisodeCall[] {
  return episodes.flatMap((episode) => episode.calls.map((call, index) => ({ episode, call, index })));
}

/** Orders calls by problem, sample and place in the episode: the order of `callsOf` of a step's episodes. */
export function byPlace(a: EpisodeCall, b: EpisodeCall): number {
  return (
    a.episode.problemIndex - b.episode.problemIndex ||
    a.episode.sample - b.episode.sample ||
    a.index - b.index
  );
}

/** Index of the problem in the step: which rank the call belongs to. */
export const problemOf = ({ episode }: EpisodeCall): number => episode.problemIndex;
