/**
 * Credit assignment: a reward for each role call, and its advantage within its group. Groups are the calls on
 * one problem that share the configured keys (role, slot, turn; none: pooled). What the loss makes of the
 * advantages is in losses/, which calls train and with which weight in updates.ts.
 */
import { TroupeError } from '../config/errors.js';
import type { GroupKey, RunConfig } from '../config/schema.js';
import type { Episode, RoleCall } from '../workflows/types.js';
import type { RewardedCall } from './rewards.js';

export type CreditOptions = Pick<RunConfig['learning'], 'groups' | 'baseline' | 'normalise'> &
  Pick<RunConfig, 'strict'>;

/** A call with its reward and advantage. */
export interface CreditedCall {
  episode: Episode;
  call: RoleCall;
  reward: number;
  advantage: number;
  /** Name of its group, e.g. "3:generator" (problem of the step, then the keys). */
  group: string;
  /** The group has nothing to compare: one sample, or none that differ. */
  flat: boolean;
}

/** A call without a reward: a function of its threw, or gave no finite number. */
export interface FailedReward {
  episode: Episode;
  call: RoleCall;
  error: TroupeError;
}

export interface Credit {
  /** Every call with what each reward gave it, in the order of episodes and their calls. */
  rewarded: readonly RewardedCall[];
  /** In the same order; calls whose reward failed are left out. */
  calls: CreditedCall[];
  /** Those calls. */
  failed: FailedReward[];
  groups: number;
  /** Groups of one call (or of one episode, where episodes are counted): advantage 0. */
  groupsOfOne: number;
  /** Groups of more whose rewards are all the same: advantage 0. */
  groupsWithoutVariance: number;
}

/** Added to the standard deviation, as in TRL's and verl's GRPO (verl: 1e-6). */
const EPSILON = 1e-6;

/** Rewards that differ by less, relative to the largest, differ by rounding alone: means of the same values may. */
const ROUNDING = 1e-12;

/**
 * Credits every call. One whose reward failed is left out and counted; it is an error with `strict`, and where a role
 * has no other.
 */
export function assignCredit(rewarded: readonly RewardedCall[], options: CreditOptions): Credit {
  const credit: Credit = {
    rewarded,
    calls: [],
    failed: [],
    groups: 0,
    groupsOfOne: 0,
    groupsWithoutVariance: 0,
  };
  for (const { episode, call, reward } of rewarded) {
    if (reward instanceof TroupeError) credit.failed.push({ episode, call, error: reward });
    else {
      const group = groupName(episode, call, options.groups);
      credit.calls.push({ episode, call, reward, advantage: 0, group, flat: false });
    }
  }
  checkFailures(credit, options);
  for (const members of groupsOf(credit.calls).values()) addAdvantages(members, options, credit);
  return credit;
}

/** A role without a single reward would silently not train. */
function checkFailures({ calls, failed }: Credit, { strict }: CreditOptions): void {
  const [first] = failed;
  if (strict && first !== undefined) throw first.error;
  const rewarded = new Set(calls.map(({ call }) => call.role));
  for (const { call, error } of failed) {
    if (rewarded.has(call.role)) continue;
    const count = failed.filter((one) => one.call.role === call.role).length;
    throw new TroupeError(`${error.message} None of the ${count} calls of ${call.role} has a reward.`);
  }
}

function groupName(episode: Episode, call: RoleCall, keys: readonly GroupKey[]): string {
  return [`${episode.problemIndex}`, ...keys.map((key) => `${key === 'role' ? '' : key}${call[key]}`)].join(
    ':',
  );
}

function groupsOf(calls: readonly CreditedCall[]): Map<string, CreditedCall[]> {
  const groups = new Map<string, CreditedCall[]>();
  for (const call of calls) {
    const members = groups.get(call.group);
    if (members === undefined) groups.set(call.group, [call]);
    else members.push(call);
  }
  return groups;
}

/**
 * GRPO (Shao et al. 2024): reward minus the group's mean, over its unbiased standard deviation if asked for. Mean,
 * deviation, and whether there is any variance, are all of the same samples: calls, or episodes.
 */
function addAdvantages(members: CreditedCall[], options: CreditOptions, credit: Credit): void {
  credit.groups++;
  const samples = options.baseline === 'calls' ? members.map(({ reward }) => reward) : episodeMeans(members);
  const lowest = Math.min(...samples);
  const highest = Math.max(...samples);
  const flat = highest - lowest <= ROUNDING * Math.max(Math.abs(lowest), Math.abs(highest));
  if (samples.length < 2) credit.groupsOfOne++;
  else if (flat) credit.groupsWithoutVariance++;
  if (flat) {
    for (const member of members) member.flat = true;
    return;
  }
  const mean = samples.reduce((sum, value) => sum + value, 0) / samples.length;
  const squares = samples.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  const scale = options.normalise === 'std' ? Math.sqrt(squares / (samples.length - 1)) + EPSILON : 1;
  for (const member of members) member.advantage = (member.reward - mean) / scale;
}

/** Mean reward of each episode's calls in the group: an episode of many turns counts once. */
function episodeMeans(members: readonly CreditedCall[]): number[] {
  const rewards = new Map<Episode, number[]>();
  for (const { episode, reward } of members) rewards.set(episode, [...(rewards.get(episode) ?? []), reward]);
  return [...rewards.values()].map((values) => values.reduce((sum, value) => sum + value, 0) / values.length);
}
