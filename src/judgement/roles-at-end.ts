/**
 * How the roles of a run answer at its end: whether the workflow can read them, and what an aggregator's picks are
 * worth. A role that its workflow no longer reads is dead: a fallback, or nothing, does its work, whatever the
 * accuracy says.
 */

import { percent } from '../config/percent.js';
import type { Measurements, Point } from './history.js';

/** A role of which the workflow reads less than this share is dead. */
const LEAST_READABLE = 0.1;

/** How a role answers at the end of a run. */
export interface RoleAtEnd {
  role: string;
  /** Mean share of its responses that the workflow could read, over the last steps. */
  readable: number;
  /** Steps done when its last stretch of steps below `LEAST_READABLE` began; null: it is not dead. */
  deadSince: number | null;
  /** Over the last steps, where candidates were partly right: its picks' share of right ones, and a random one's. */
  picks: { right: number; random: number } | null;
}

/** Roles whose form the workflow names, in its order. `window`: steps at the end whose mean counts. */
export function rolesAtEnd(history: Measurements, window: number): RoleAtEnd[] {
  return history.subjects('format').flatMap((role) => {
    const format = history.series('format', role);
    const readable = lastMean(format, window);
    if (readable === null) return [];
    const right = lastMean(history.series('pick_right', role), window);
    const random = lastMean(history.series('random_right', role), window);
    return [
      {
        role,
        readable,
        deadSince: readable < LEAST_READABLE ? deadSince(format) : null,
        picks: right === null || random === null ? null : { right, random },
      },
    ];
  });
}

function deadSince(format: readonly Point[]): number {
  const lastRead = format.findLastIndex(({ value }) => value >= LEAST_READABLE);
  return format[lastRead + 1]?.step ?? format.at(-1)?.step ?? 0;
}

function lastMean(points: readonly Point[], window: number): number | null {
  const last = points.slice(-window);
  return last.length === 0 ? null : last.reduce((sum, { value }) => sum + value, 0) / last.length;
}

/** One line, e.g. "dead: its workflow reads 0.0 % of its responses, since step 25". */
export function describeRole({ readable, deadSince, picks }: RoleAtEnd): string {
  const form =
    deadSince === null
      ? `${percent(readable)} readable`
      : `dead: its workflow reads ${percent(readable)} of its responses, since step ${deadSince}`;
  if (picks === null) return form;
  return `${form}; where candidates differ it picks a right one in ${percent(picks.right)}, a random pick in ${percent(picks.random)}`;
}
