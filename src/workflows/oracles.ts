/**
 * Role oracles: what the roles of a workflow could have done, counted over graded episodes. They hold whatever
 * the reward was, because they come from what each call claimed (`claim` in types.ts) and how that was graded.
 * Episodes that broke off before the calls in question do not count. A share of nothing is null.
 */
import { parseStrategies } from './parse-strategies.js';
import type { Episode, RoleCall, RoleSignal } from './types.js';

/** Share of `of` that holds; null for none. */
function share<T>(of: readonly T[], holds: (one: T) => boolean): number | null {
  return of.length === 0 ? null : of.filter(holds).length / of.length;
}

const callsOf = (episode: Episode, role: string) => episode.calls.filter((call) => call.role === role);

/** Whether any of the role's calls is right by itself; undefined where none was graded. */
function anyCorrect(episode: Episode, role: string): boolean | undefined {
  const graded = callsOf(episode, role).flatMap(({ ownGrade }) => (ownGrade === undefined ? [] : [ownGrade]));
  return graded.length === 0 ? undefined : graded.some(({ correct }) => correct);
}

/**
 * `any_correct_share` of a role: share of episodes in which at least one of its graded calls is right. Of voting's
 * generators and of workers it is what a perfect choice among them would reach.
 */
export function anyCorrectShare(episodes: readonly Episode[], role: string): number | null {
  const known = episodes.map((episode) => anyCorrect(episode, role)).filter((any) => any !== undefined);
  return share(known, (any) => any);
}

/**
 * `regret` of a role that makes one answer of what `candidates` offer (aggregator, synthesizer): share of episodes
 * in which a candidate was right and the answer is wrong.
 */
export function regret(episodes: readonly Episode[], role: string, candidates: string): RoleSignal {
  const decided = episodes.filter((episode) => {
    return callsOf(episode, role).length > 0 && anyCorrect(episode, candidates) !== undefined;
  });
  const lost = (episode: Episode) => anyCorrect(episode, candidates) === true && !episode.grade.correct;
  return { role, signal: 'regret', value: share(decided, lost) };
}

/**
 * Of a role that picks one of what `candidates` offer, over the episodes whose candidates are partly right:
 * `pick_right_share`, the share of its picks that are right (an unreadable one is not), beside
 * `random_right_share`, what a candidate drawn at random would be.
 */
export function picks(episodes: readonly Episode[], role: string, candidates: string): RoleSignal[] {
  const contested = episodes.flatMap((episode) => {
    const offered = callsOf(episode, candidates).flatMap(({ ownGrade }) => ownGrade?.correct ?? []);
    const random = share(offered, (correct) => correct) ?? 0;
    const [pick] = callsOf(episode, role);
    if (pick === undefined || random === 0 || random === 1) return [];
    return [{ random, picked: pick.unread === undefined && pick.ownGrade?.correct === true }];
  });
  const total = contested.reduce((sum, { random }) => sum + random, 0);
  return [
    { role, signal: 'pick_right_share', value: share(contested, ({ picked }) => picked) },
    { role, signal: 'random_right_share', value: contested.length === 0 ? null : total / contested.length },
  ];
}

/**
 * Confusion matrix of a role that accepts or rejects drafts, against the drafts' grades: the shares of all graded
 * verdicts, which add up to 1. A verdict that no rule could read is what the workflow made of it.
 */
export function confusion(episodes: readonly Episode[], role: string): RoleSignal[] {
  const verdicts = episodes
    .flatMap((episode) => callsOf(episode, role))
    .flatMap(({ claimed, ownGrade }) => {
      if (claimed === undefined || ownGrade === undefined) return [];
      const { accepts } = claimed;
      // Accepting is right where the draft is right, rejecting where it is wrong.
      return [{ accepts, draftIsRight: accepts === ownGrade.correct }];
    });
  const cell = (signal: string, accepts: boolean, draftIsRight: boolean): RoleSignal => {
    const value = share(verdicts, (one) => one.accepts === accepts && one.draftIsRight === draftIsRight);
    return { role, signal, value };
  };
  return [
    cell('true_accept_share', true, true),
    cell('false_accept_share', true, false),
    cell('true_reject_share', false, false),
    cell('false_reject_share', false, true),
  ];
}

/**
 * Of a role that revises its drafts turn by turn, over all pairs of a draft and its revision: `revision_gain`, the
 * share of revisions that are right after a wrong draft; `revision_loss`, of wrong ones after a right draft.
 */
export function revisions(episodes: readonly Episode[], role: string): RoleSignal[] {
  const pairs = episodes.flatMap((episode) => {
    const drafts = callsOf(episode, role).sort((a, b) => a.turn - b.turn);
    return drafts.slice(1).flatMap((after, i) => pairOf(drafts[i], after));
  });
  return [
    { role, signal: 'revision_gain', value: share(pairs, ({ before, after }) => !before && after) },
    { role, signal: 'revision_loss', value: share(pairs, ({ before, after }) => before && !after) },
  ];
}

function pairOf(before: RoleCall | undefined, after: RoleCall): { before: boolean; after: boolean }[] {
  if (before?.ownGrade === undefined || after.ownGrade === undefined) return [];
  return [{ before: before.ownGrade.correct, after: after.ownGrade.correct }];
}

/** `distinct_strategies` of a planning role: strategies of a plan that differ in more than case, mean over plans. */
export function distinctStrategies(episodes: readonly Episode[], role: string, most: number): RoleSignal {
  const counts = episodes
    .flatMap((episode) => callsOf(episode, role))
    .map(({ text }) => new Set(parseStrategies(text).slice(0, most).map(normal)).size);
  const total = counts.reduce((sum, count) => sum + count, 0);
  return { role, signal: 'distinct_strategies', value: counts.length === 0 ? null : total / counts.length };
}

function normal(strategy: string): string {
  return strategy.toLowerCase().replace(/\s+/g, ' ').trim();
}
