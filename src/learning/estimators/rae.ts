/**
 * Role-conditioned advantages of SPIRAL (Liu et al. 2025): reward minus a running mean of the role's rewards,
 *
 *   A = r − b,   b ← decay · b + (1 − decay) · R
 *
 * episode after episode, with R the mean reward of the role's calls in the episode. The baseline of an episode is the one
 * before it, so that no call is compared with itself (the authors' code, train_spiral.py); it begins at 0.
 */
import { groupBy } from '../../config/group-by.js';
import { ownValue } from '../../config/own-value.js';
import { meanOf } from './statistics.js';
import type { Estimator } from './types.js';

export function rae(decay: number): Estimator {
  return ({ calls, memory }) => {
    const advantages = calls.map(() => 0);
    const ofEpisode = groupBy([...calls.entries()], ([, { episode }]) => episode);
    for (const its of ofEpisode.values()) {
      for (const [role, members] of groupBy(its, ([, { call }]) => call.role)) {
        const baseline = ownValue(memory, role) ?? 0;
        for (const [i, { reward }] of members) advantages[i] = reward - baseline;
        const mean = meanOf(members.map(([, { reward }]) => reward));
        memory[role] = decay * baseline + (1 - decay) * mean;
      }
    }
    return advantages;
  };
}
