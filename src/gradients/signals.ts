/**
 * The rows of the stream `signals` for some episodes: text signatures and oracles of every role, and what the
 * workflow counted. The same rows in every step and for every sharing of policies: what a workflow does not have
 * is null.
 */
import type { Task } from '../tasks/types.js';
import { anyCorrectShare } from '../workflows/oracles.js';
import type { OpenWorkflow } from '../workflows/registry.js';
import type { Episode, RoleSignal } from '../workflows/types.js';
import { signatures } from './signatures.js';

export interface SignalSetting {
  open: Pick<OpenWorkflow, 'workflow' | 'options'>;
  task: Task;
  /** Mean response length of a role in the first measurement of the run; undefined: this is the first one. */
  firstLength(role: string): number | null | undefined;
}

/** In the order of the workflow's roles; oracles of the workflow and counts last. */
export function roleSignals(episodes: readonly Episode[], setting: SignalSetting): RoleSignal[] {
  const { workflow, options } = setting.open;
  return [
    ...workflow.roles.flatMap((role) => signalsOf(role, episodes, setting)),
    ...(workflow.oracles?.(episodes, options) ?? []),
    ...countSignals(episodes, workflow.roles),
  ];
}

function signalsOf(role: string, episodes: readonly Episode[], setting: SignalSetting): RoleSignal[] {
  const { workflow, options } = setting.open;
  const isFormed = workflow.formats?.[role];
  const calls = episodes.map((episode) => episode.calls.filter((call) => call.role === role));
  const found = signatures(calls, isFormed && ((text) => isFormed(text, { task: setting.task, options })));
  const first = setting.firstLength(role) ?? found.length_mean;
  const values = {
    ...found,
    length_drift: found.length_mean === null || !first ? null : found.length_mean / first,
    any_correct_share: anyCorrectShare(episodes, role),
  };
  return Object.entries(values).map(([signal, value]) => ({ role, signal, value }));
}

/** Sums of what the workflow counted, by name; "aggregator.unparsed" is about the role aggregator. */
function countSignals(episodes: readonly Episode[], roles: readonly string[]): RoleSignal[] {
  const totals = new Map<string, number>();
  for (const { counts } of episodes) {
    for (const [name, count] of Object.entries(counts)) totals.set(name, (totals.get(name) ?? 0) + count);
  }
  return [...totals]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([signal, value]) => ({
      role: roles.find((role) => signal.startsWith(`${role}.`)) ?? null,
      signal,
      value,
    }));
}
