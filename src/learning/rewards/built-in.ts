/** This program's own rewards: the episode's outcome, and the call's own correctness. */
import { z } from 'zod';
import { entry } from '../../config/registry.js';
import { type CallToReward, common, type RewardContext, type RewardSource } from './types.js';

/** What a call earns whose answer its workflow could not read. */
export const NOTHING = 0;

/** Broadcast: every call of an episode gets the episode's reward, broken-off episodes included. */
const outcome = ({ episode }: CallToReward): number => episode.grade.reward;

/** What the call itself claimed, graded; the outcome for calls that claim nothing, such as an orchestrator's. */
const own = ({ call, episode }: CallToReward): number => call.ownGrade?.reward ?? episode.grade.reward;

/** A call that its workflow could not read earns nothing, unless `unread` is reward. */
function paid(label: string, reward: (one: CallToReward) => number) {
  return entry(
    z.strictObject(common),
    (_settings, { unread }: Pick<RewardContext, 'unread'>): RewardSource => {
      const pays = ({ call }: CallToReward) => unread === 'reward' || !call.unread;
      return { label, values: async (calls) => calls.map((one) => (pays(one) ? reward(one) : NOTHING)) };
    },
  );
}

export const builtIn = {
  outcome: paid('outcome', outcome),
  own: paid('own', own),
};
