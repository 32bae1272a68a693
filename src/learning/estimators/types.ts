/** What an estimator of advantages gets and gives. */
import type { Episode, RoleCall } from '../../workflows/types.js';

/** A call with its reward, and with whom it is compared. */
export interface GroupedCall {
  episode: Episode;
  call: RoleCall;
  reward: number;
  /** Name of its group, e.g. "3:generator" (problem of the step, then the keys of `learning.groups`). */
  group: string;
}

/** Calls on one problem that are compared with each other. */
export interface RewardGroup {
  /** Indices into the calls of the step. */
  members: number[];
  /** What is compared: the members' rewards, or with `learning.baseline: episodes` one mean for each episode. */
  samples: number[];
  /** For each member the index of its sample. */
  sampleOf: number[];
  /** There is nothing to compare: one sample, or none that differ. */
  flat: boolean;
}

/** What an estimator gets: a whole step. */
export interface EstimatorInput {
  /** Every call of the step that has a reward, in the order of episodes and their calls. */
  calls: readonly GroupedCall[];
  /** Every call is in one of them. */
  groups: readonly RewardGroup[];
  /**
   * Numbers that the estimator keeps from step to step: what it writes here is there in the next step, and in the run
   * that goes on from a checkpoint. Empty in a new run.
   */
  memory: Record<string, number>;
}

/** The advantage of each call, in their order; finite numbers. */
export type Estimator = (input: EstimatorInput) => readonly number[];

/** What a user's file exports as default. Its settings stand beside `module`. */
export type EstimatorFunction = (
  input: EstimatorInput,
  settings: Record<string, unknown>,
) => readonly number[];
