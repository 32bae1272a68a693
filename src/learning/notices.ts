/** What a person must hear of a step or an evaluation, in one line each: what broke off, failed, or cannot teach. */
import { TroupeError } from '../config/errors.js';
import type { RunConfig } from '../config/schema.js';
import type { EngineStatistics } from '../engine/protocol.js';
import { filters, roleSampling, UNLIKE } from '../policies/sampling.js';
import type { Episode } from '../workflows/types.js';
import type { RewardedCall } from './step-call.js';
import type { StepRecord } from './steps.js';

/** Kinds of errors that a line names. */
const SHOWN = 3;

interface Kind {
  /** The first of them. */
  message: string;
  count: number;
}

/** Errors of the episodes by kind, the most frequent first: the same sentence, whatever numbers and problem it names. */
function brokenOffKinds(episodes: readonly Pick<Episode, 'error' | 'problem'>[]): Kind[] {
  const kinds = new Map<string, Kind>();
  for (const { error: message, problem } of episodes) {
    if (message === undefined) continue;
    const key = message.replaceAll(problem.id, '#').replace(/\d+(\.\d+)?/g, '#');
    const kind = kinds.get(key) ?? { message, count: 0 };
    kind.count += 1;
    kinds.set(key, kind);
  }
  return [...kinds.values()].sort((a, b) => b.count - a.count);
}

/** "5 of 64 episodes broke off: 4 × …; 1 × …"; undefined where none did. */
export function brokenOff(episodes: readonly Pick<Episode, 'error' | 'problem'>[]): string | undefined {
  const kinds = brokenOffKinds(episodes);
  if (kinds.length === 0) return undefined;
  const broken = kinds.reduce((sum, { count }) => sum + count, 0);
  const named = kinds.slice(0, SHOWN).map(({ message, count }) => `${count} × ${oneLine(message)}`);
  const rest = kinds.length > SHOWN ? [`and ${kinds.length - SHOWN} other kinds`] : [];
  return `${broken} of ${episodes.length} episodes broke off: ${[...named, ...rest].join('; ')}`;
}

/** Throws where there are episodes and every one broke off: nothing can be learnt or measured. */
export function throwIfAllBrokeOff(
  episodes: readonly Pick<Episode, 'error' | 'problem'>[],
  where: string,
): void {
  if (episodes.length === 0 || episodes.some(({ error }) => error === undefined)) return;
  const [first, ...others] = brokenOffKinds(episodes);
  const more = others.length === 0 ? '' : ` (and ${others.length} other kinds)`;
  throw new TroupeError(
    `every one of ${episodes.length} episodes broke off: ${first?.message ?? ''}${more}`,
    {
      where,
    },
  );
}

/** A cache that is smaller by less is not spoken of: the free memory of a CPU is never the same twice. */
const SMALLER = 0.9;

/**
 * What the engine's memory came to since `before`: tokens that the KV cache holds, when first known and where they have become
 * fewer than those told of last, and passes that memory ran out in.
 */
export function memoryNotes(
  step: number,
  toldTokens: number,
  before: Pick<EngineStatistics, 'memoryRestarts'>,
  now: Pick<EngineStatistics, 'memoryRestarts' | 'cacheTokens'>,
): { notes: string[]; toldTokens: number } {
  const notes: string[] = [];
  const { cacheTokens } = now;
  const holds = `the KV cache holds ${cacheTokens.toLocaleString('en')} tokens`;
  const tells = cacheTokens > 0 && (toldTokens === 0 || cacheTokens < SMALLER * toldTokens);
  if (tells && toldTokens === 0) notes.push(holds);
  else if (tells)
    notes.push(
      `step ${step}: ${holds} now, and held ${toldTokens.toLocaleString('en')}: less memory was free`,
    );
  const restarts = now.memoryRestarts - before.memoryRestarts;
  if (restarts > 0)
    notes.push(
      `step ${step}: memory ran out ${restarts} times in rollouts or passes without gradients, which went on with less at a time, or without recorded steps`,
    );
  return { notes, toldTokens: tells ? cacheTokens : toldTokens };
}

/** "3 of 64 rewards failed: …"; undefined where none did. */
export function failedRewards(calls: readonly Pick<RewardedCall, 'reward'>[]): string | undefined {
  const errors = calls.flatMap(({ reward }) => (reward instanceof TroupeError ? [reward.message] : []));
  const [first] = errors;
  if (first === undefined) return undefined;
  return `${errors.length} of ${calls.length} rewards failed: ${oneLine(first)}`;
}

/** "5 of 64 calls have no value of length (None)"; undefined where every reward says something of its calls. */
export function silentRewards(calls: readonly Pick<RewardedCall, 'values'>[]): string | undefined {
  const values = calls.flatMap((one) => one.values);
  const parts = [...new Set(values.map(({ name }) => name))].flatMap((name) => {
    const its = values.filter((one) => one.name === name);
    const silent = its.filter(({ value, error }) => value === null && error === undefined).length;
    return silent === 0 ? [] : [`${name} says nothing (None) of ${silent} of ${its.length} calls`];
  });
  return parts.length === 0 ? undefined : parts.join('; ');
}

/** What of the step's groups teaches nothing, as values of its line: { flat: '5/24 groups' }. */
export function idleGroups({
  credit,
  replaced,
}: Pick<StepRecord, 'credit' | 'replaced'>): Record<string, string> {
  const { groups, groupsOfOne, groupsWithoutVariance } = credit;
  const share = (count: number) => `${count}/${groups}`;
  return {
    ...(groupsOfOne > 0 && { 'groups of one': share(groupsOfOne) }),
    ...(replaced.problems > 0 && { 'problems replaced': `${replaced.problems}` }),
    ...(groupsWithoutVariance > 0 && { 'groups without variance': share(groupsWithoutVariance) }),
  };
}

/** Filters that a workflow asks for in single calls, beyond what the configuration says (and warns of), a line each. */
export function filteredCalls(episodes: readonly Episode[], rollout: RunConfig['rollout']): string[] {
  const lines = new Set<string>();
  for (const { role, slot, turn, sampling } of episodes.flatMap(({ calls }) => calls)) {
    const own = filters(sampling);
    if (own === undefined || own === filters(roleSampling(rollout, role))) continue;
    lines.add(`the workflow's call ${role}/${slot}/${turn} samples with ${own}: ${UNLIKE}`);
  }
  return [...lines];
}

const oneLine = (text: string) => text.trim().replace(/\s*\n\s*/g, ' ');
