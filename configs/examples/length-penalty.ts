// A reward of a user's own: the outcome, less up to 0.5 for long responses.
import type { RewardFunction } from 'troupe';

const FREE_TOKENS = 64;

const lengthPenalty: RewardFunction = (call, episode) => {
  const over = Math.max(0, call.completion.ids.length - FREE_TOKENS);
  return episode.grade.reward - Math.min(0.5, over / 512);
};

export default lengthPenalty;
