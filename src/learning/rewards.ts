/** Rewards of role calls: the episode's outcome, the call's own correctness, or a user's function. */
import { importUserModule } from '../config/import-module.js';
import { findPath } from '../config/package.js';
import type { RunConfig } from '../config/schema.js';
import { shownFile } from '../config/user-code.js';
import type { Episode, RoleCall } from '../workflows/types.js';

/**
 * Reward of one call of a graded episode; a finite number. A user's file exports one as default. An example:
 * `export default (call, episode) => episode.grade.reward - (call.completion.finish === 'length' ? 0.5 : 0)`.
 */
export type RewardFunction = (call: RoleCall, episode: Episode) => number | Promise<number>;

/** What a call earns whose answer its workflow could not read. */
export const NOTHING = 0;

/** Broadcast: every call of an episode gets the episode's reward, broken-off episodes included. */
export const outcomeReward: RewardFunction = (_call, episode) => episode.grade.reward;

/** What the call itself claimed, graded; the outcome for calls that claim nothing, such as an orchestrator's. */
export const ownReward: RewardFunction = (call, episode) => call.ownGrade?.reward ?? episode.grade.reward;

/**
 * The reward that `learning.credit` names. Of this program's own ones a call that its workflow could not read earns
 * nothing, unless `unread` is reward; a user's function sees `call.unread` and decides.
 */
export async function openReward({
  credit,
  unread,
}: Pick<RunConfig['learning'], 'credit' | 'unread'>): Promise<RewardFunction> {
  if (credit === 'outcome' || credit === 'own') {
    const reward = credit === 'outcome' ? outcomeReward : ownReward;
    if (unread === 'reward') return reward;
    return (call, episode) => (call.unread ? NOTHING : reward(call, episode));
  }
  return importUserModule(credit.module, {
    what: 'reward',
    takes: 'a function (call, episode) => number',
    is: (value): value is RewardFunction => typeof value === 'function',
  });
}

/** What errors call it: its file, or the key that names it. */
export function rewardName(credit: RunConfig['learning']['credit']): string {
  return typeof credit === 'string' ? 'learning.credit' : shownFile(findPath(credit.module));
}
