/**
 * Credit assignment: the advantage of each rewarded role call. Calls are compared in groups: those on one problem that
 * share the configured keys (role, slot, turn; none: pooled). What an estimator makes of them is in estimators/, what the
 * loss makes of the advantages in losses/, which calls train and with which weight in update-plan.ts.
 */
import { TroupeError } from '../config/errors.js';
import { groupBy } from '../config/group-by.js';
import type { GroupKey, RunConfig } from '../config/schema.js';
import { isFlat, meanOf } from './estimators/statistics.js';
import type { Estimator, GroupedCall, RewardGroup } from './estimators/types.js';
import type { CreditedCall, RewardedCall } from './step-call.js';

export type CreditOptions = Pick<RunConfig['learning'], 'groups' | 'baseline'> &
  Pick<RunConfig, 'strict'> & {
    estimator: Estimator;
    /** What the estimator kept from the step before; it is not changed. Default: nothing. */
    memory?: Readonly<Record<string, number>>;
  };

export interface Credit {
  /** The calls that have a reward, in the order that they were given in. */
  calls: CreditedCall[];
  /** Those that have none: a function of theirs threw, or gave no finite number. */
  failed: RewardedCall[];
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
  const failed = rewarded.filter(({ reward }) => reward instanceof TroupeError);
  checkFailures({ calls, failed }, options);
  const groups = rewardGroups(calls, options.baseline);
  const memory = { ...options.memory };
  const advantages = options.estimator({ calls, groups, memory });
  const flat = new Set(groups.flatMap((group) => (group.flat ? group.members : [])));
  const ofOne = groups.filter(({ samples }) => samples.length < 2).length;
  return {
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
  { calls, failed }: { calls: readonly GroupedCall[]; failed: readonly RewardedCall[] },
  { strict }: CreditOptions,
): void {
  const rewarded = new Set(calls.map(({ call }) => call.role));
  for (const { call, reward: error } of failed) {
    if (!(error instanceof TroupeError)) continue;
    if (strict) throw error;
    if (rewarded.has(call.role)) continue;
    const count = failed.filter((one) => one.call.role === call.role).length;
    throw new TroupeError(`${error.message} None of the ${count} calls of ${call.role} has a reward.`);
  }
}

function groupName({ episode, call }: RewardedCall, keys: readonly GroupKey[]): string {
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
function groupedCalls(
  rewarded: readonly RewardedCall[],
  keys: readonly GroupKey[],
): (RewardedCall & GroupedCall)[] {
  return rewarded.flatMap((one) => {
    const { reward } = one;
    return reward instanceof TroupeError ? [] : [{ ...one, reward, group: groupName(one, keys) }];
  });
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
