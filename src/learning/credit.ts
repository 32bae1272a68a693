/**
 * Credit assignment: the advantage of each rewarded role call. Calls are compared in groups: those on one problem that
 * share the configured keys (role, slot, turn; none: pooled). What an estimator makes of them is in estimators/, what the
 * loss makes of the advantages in losses/, which calls train and with which weight in update-plan.ts.
 */
import { TroupeError } from '../config/errors.js';
import { groupBy } from '../config/group-by.js';
import type { GroupKey, RunConfig } from '../config/schema.js';
import type { Episode, RoleCall } from '../workflows/types.js';
import { isFlat, meanOf } from './estimators/statistics.js';
import type { Estimator, GroupedCall, RewardGroup } from './estimators/types.js';
import type { RewardedCall } from './rewards.js';

export type CreditOptions = Pick<RunConfig['learning'], 'groups' | 'baseline'> &
  Pick<RunConfig, 'strict'> & {
    estimator: Estimator;
    /** What the estimator kept from the step before; it is not changed. Default: nothing. */
    memory?: Readonly<Record<string, number>>;
  };

/** A call with its reward and advantage. */
export interface CreditedCall extends GroupedCall {
  advantage: number;
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
  /** Groups of one call, or of one episode where episodes are counted. */
  groupsOfOne: number;
  /** Groups of more whose rewards are all the same. */
  groupsWithoutVariance: number;
  /** What the estimator keeps for the next step. */
  memory: Record<string, number>;
}

/**
 * Credits every call. One whose reward failed is left out and counted; it is an error with `strict`, and where a role
 * has no other.
 */
export function assignCredit(rewarded: readonly RewardedCall[], options: CreditOptions): Credit {
  const calls = groupedCalls(rewarded, options.groups);
  const failed = rewarded.flatMap(({ episode, call, reward: error }) =>
    error instanceof TroupeError ? [{ episode, call, error }] : [],
  );
  checkFailures({ calls, failed }, options);
  const groups = rewardGroups(calls, options.baseline);
  const memory = { ...options.memory };
  const advantages = options.estimator({ calls, groups, memory });
  const flat = new Set(groups.flatMap((group) => (group.flat ? group.members : [])));
  const ofOne = groups.filter(({ samples }) => samples.length < 2).length;
  return {
    rewarded,
    calls: calls.map((call, i) => ({ ...call, advantage: advantages[i] ?? 0, flat: flat.has(i) })),
    failed,
    groups: groups.length,
    groupsOfOne: ofOne,
    groupsWithoutVariance: groups.filter((group) => group.flat).length - ofOne,
    memory,
  };
}

/** A role without a single reward would silently not train. */
function checkFailures(
  { calls, failed }: { calls: readonly GroupedCall[]; failed: readonly FailedReward[] },
  { strict }: CreditOptions,
): void {
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

/** Whether any group of a problem's calls has something to compare; calls without a reward do not count. */
export function hasVariance(
  rewarded: readonly RewardedCall[],
  { groups, baseline }: Pick<CreditOptions, 'groups' | 'baseline'>,
): boolean {
  return rewardGroups(groupedCalls(rewarded, groups), baseline).some(({ flat }) => !flat);
}

/** The calls that have a reward. */
function groupedCalls(rewarded: readonly RewardedCall[], keys: readonly GroupKey[]): GroupedCall[] {
  return rewarded.flatMap(({ episode, call, reward }) =>
    reward instanceof TroupeError ? [] : [{ episode, call, reward, group: groupName(episode, call, keys) }],
  );
}

/** The groups of the calls, in the order of their first ones. */
export function rewardGroups(
  calls: readonly GroupedCall[],
  baseline: CreditOptions['baseline'],
): RewardGroup[] {
  const indices = groupBy([...calls.keys()], (i) => calls[i]?.group ?? '');
  return [...indices.values()].map((members) => {
    const rewards = members.map((i) => calls[i]?.reward ?? 0);
    if (baseline === 'calls') {
      return { members, samples: rewards, sampleOf: [...members.keys()], flat: isFlat(rewards) };
    }
    // An episode of many turns counts once.
    const ofEpisode = groupBy([...members.keys()], (k) => calls[members[k] ?? 0]?.episode);
    const sampleOf = members.map(() => 0);
    for (const [sample, its] of [...ofEpisode.values()].entries()) for (const k of its) sampleOf[k] = sample;
    const samples = [...ofEpisode.values()].map((its) => meanOf(its.map((k) => rewards[k] ?? 0)));
    return { members, samples, sampleOf, flat: isFlat(samples) };
  });
}
