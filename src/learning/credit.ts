/**
 * Credit assignment: a reward for each role call, and its advantage within its group. Groups are the calls on
 * one problem that share the configured keys (role, slot, turn; none: pooled). What the loss makes of the
 * advantages is in losses/, which calls train and with which weight in updates.ts.
 */
import { TroupeError } from '../config/errors.js';
import type { GroupKey, RunConfig } from '../config/schema.js';
import type { Episode, RoleCall } from '../workflows/types.js';
import type { RewardFunction } from './rewards.js';

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
}

export interface Credit {
  /** In the order of episodes and their calls; calls whose reward failed are left out. */
  calls: CreditedCall[];
  groups: number;
  /** Groups of one call (or of one episode, where episodes are counted): advantage 0. */
  groupsOfOne: number;
  /** Groups of more whose rewards are all the same: advantage 0. */
  groupsWithoutVariance: number;
  /** Calls that were left out because the reward function threw or gave no finite number. */
  failedRewards: number;
  /** What the first of them said. */
  firstFailure: string | undefined;
}

/** Added to the standard deviation, as in TRL's and verl's GRPO (verl: 1e-6). */
const EPSILON = 1e-6;

/**
 * Credits every call of the episodes. A reward that throws or is not finite leaves its call out and is counted;
 * it is an error with `strict`, and when no call has a reward.
 */
export async function assignCredit(
  episodes: readonly Episode[],
  reward: RewardFunction,
  options: CreditOptions,
): Promise<Credit> {
  const credit: Credit = {
    calls: [],
    groups: 0,
    groupsOfOne: 0,
    groupsWithoutVariance: 0,
    failedRewards: 0,
    firstFailure: undefined,
  };
  for (const episode of episodes) {
    for (const call of episode.calls) {
      const value = await rewardOf(call, episode, reward);
      if (typeof value === 'number') {
        const group = groupName(episode, call, options.groups);
        credit.calls.push({ episode, call, reward: value, advantage: 0, group });
      } else {
        if (options.strict) throw value;
        credit.failedRewards++;
        credit.firstFailure ??= value.message;
      }
    }
  }
  if (credit.calls.length === 0 && credit.firstFailure !== undefined) {
    throw new TroupeError(`no call has a reward. ${credit.firstFailure}`);
  }
  for (const members of groupsOf(credit.calls).values()) addAdvantages(members, options, credit);
  return credit;
}

async function rewardOf(
  call: RoleCall,
  episode: Episode,
  reward: RewardFunction,
): Promise<number | TroupeError> {
  const where = `reward of ${call.role}/${call.slot}/${call.turn} on ${episode.problem.id}`;
  try {
    const value: unknown = await reward(call, episode);
    if (typeof value === 'number' && Number.isFinite(value)) return value;
    return new TroupeError(`the reward function returned ${String(value)}; it takes a finite number.`, {
      where,
    });
  } catch (error) {
    return new TroupeError(
      `the reward function threw: ${error instanceof Error ? error.message : String(error)}`,
      {
        where,
        cause: error,
      },
    );
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

/** GRPO (Shao et al. 2024): reward minus the group's mean, over its unbiased standard deviation if asked for. */
function addAdvantages(members: CreditedCall[], options: CreditOptions, credit: Credit): void {
  credit.groups++;
  const samples = options.baseline === 'calls' ? members.map(({ reward }) => reward) : episodeMeans(members);
  if (samples.length < 2) {
    credit.groupsOfOne++;
    return;
  }
  // Equal rewards give exactly 0, which (r − mean) of rounded means would not.
  if (members.every(({ reward }) => reward === members[0]?.reward)) {
    credit.groupsWithoutVariance++;
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
