/** This program's own rewards: the episode's outcome, and the call's own correctness. */
import { z } from 'zod';
import { TroupeError } from '../../config/errors.js';
import { entry } from '../../config/registry.js';
import { type CallToReward, common, type RewardContext, type RewardSource } from './types.js';

/** What a call earns whose answer its workflow could not read. */
const NOTHING = 0;

/** Broadcast: every call of an episode gets the episode's reward. */
const outcome = ({ episode }: CallToReward): number => episode.grade.reward;

/** What the call itself claimed, graded; the outcome for calls that claim nothing, such as an orchestrator's. */
const own = ({ call, episode }: CallToReward): number => call.ownGrade?.reward ?? episode.grade.reward;

/** What the call earned before its episode broke off and nothing was broadcast, as in the study's code. */
const unbroadcast = ({ call }: CallToReward): number => call.ownGrade?.reward ?? NOTHING;

/** A call that its workflow could not read earns nothing, unless `unread` is reward. */
function paid(
  label: string,
  reward: (one: CallToReward) => number,
  { unread }: Pick<RewardContext, 'unread'>,
) {
  const pays = ({ call }: CallToReward) => unread === 'reward' || !call.unread;
  const source: RewardSource = {
    label,
    values: async (calls) => calls.map((one) => (pays(one) ? reward(one) : NOTHING)),
  };
  return source;
}

const outcomeSettings = z.strictObject({
  ...common,
  broken: z
    .enum(['outcome', 'own'])
    .default('outcome')
    .describe(
      "Calls of an episode that broke off. outcome: its, which counts as wrong. own: what the call's own claim earns, without one nothing, as in the study's code.",
    ),
});

const overlongSettings = z.strictObject({
  ...common,
  buffer: z
    .int()
    .min(1)
    .describe('Tokens before the longest response over which the value falls from 0 to −1.'),
});

/**
 * Soft overlong punishment (DAPO, Yu et al. 2025, eq. 13) of a response of `tokens`, where `most` may be sampled: 0 up to
 * most − buffer, then down to −1 at most.
 */
export function overlong(tokens: number, most: number, buffer: number): number {
  return 0 - Math.min(1, Math.max(0, (tokens - (most - buffer)) / buffer));
}

export const builtIn = {
  outcome: entry(outcomeSettings, ({ broken }, context: RewardContext) =>
    paid(
      'outcome',
      (one) => (broken === 'own' && one.episode.error !== undefined ? unbroadcast : outcome)(one),
      context,
    ),
  ),
  own: entry(z.strictObject(common), (_settings, context: RewardContext) => paid('own', own, context)),
  overlong: entry(overlongSettings, ({ buffer, roles }, { maxTokens, ...context }: RewardContext) => {
    const rewarded = roles === 'all' ? context.roles : roles;
    const short = rewarded.find((role) => maxTokens(role) <= buffer);
    if (short !== undefined) {
      throw new TroupeError(
        `overlong has a buffer of ${buffer} tokens; ${short} has ${maxTokens(short)} for a response.`,
        { where: 'learning.reward', hint: 'Take a smaller buffer.' },
      );
    }
    const source: RewardSource = {
      label: 'overlong',
      values: async (calls) =>
        calls.map(({ call }) => overlong(call.completion.ids.length, maxTokens(call.role), buffer)),
    };
    return source;
  }),
};
