/**
 * The rows of the stream `signals` for some episodes: text signatures and oracles of every role, and what the
 * workflow counted. The same rows in every step and for every sharing of policies: what a workflow does not have
 * is null.
 */
import { TroupeError } from '../config/errors.js';
import { readOnly } from '../config/read-only.js';
import { shownValue } from '../config/thrown.js';
import { userError } from '../config/user-code.js';
import { signatures } from '../gradients/signatures.js';
import type { Task } from '../tasks/types.js';
import { asksForm, isInForm } from '../workflows/in-form.js';
import { anyCorrectShare } from '../workflows/oracles.js';
import type { OpenWorkflow } from '../workflows/registry.js';
import type { Episode, RoleSignal } from '../workflows/types.js';

export interface SignalSetting {
  open: Pick<OpenWorkflow, 'workflow' | 'options' | 'where'>;
  task: Task;
  /** Mean response length of a role in the first measurement of the run; undefined: this is the first one. */
  firstLength(role: string): number | null | undefined;
}

/**
 * In the order of the workflow's roles; oracles of the workflow and counts last. Throws a TroupeError where the
 * workflow's `formats` or `oracles` do, or where they return something else than they should.
 */
export function roleSignals(episodes: readonly Episode[], setting: SignalSetting): RoleSignal[] {
  const { workflow } = setting.open;
  return [
    ...workflow.roles.flatMap((role) => signalsOf(role, episodes, setting)),
    ...oracleSignals(episodes, setting),
    ...countSignals(episodes, workflow.roles),
  ];
}

function signalsOf(role: string, episodes: readonly Episode[], setting: SignalSetting): RoleSignal[] {
  const { open, task } = setting;
  const asked = asksForm(open.workflow, role);
  const calls = episodes.map((episode) => episode.calls.filter((call) => call.role === role));
  const inForm = (text: string) => isInForm(open, role, text, task) === true;
  const found = signatures(calls, asked ? inForm : undefined);
  const first = setting.firstLength(role) ?? found.length_mean;
  const values = {
    ...found,
    length_drift: found.length_mean === null || !first ? null : found.length_mean / first,
    any_correct_share: anyCorrectShare(episodes, role),
  };
  return Object.entries(values).map(([signal, value]) => ({ role, signal, value }));
}

function oracleSignals(episodes: readonly Episode[], { open }: SignalSetting): RoleSignal[] {
  const { workflow, options, where } = open;
  const isSignal = (one: Partial<RoleSignal> | null) =>
    typeof one?.signal === 'string' &&
    (one.role === null || workflow.roles.includes(one.role ?? '')) &&
    (one.value === null || Number.isFinite(one.value));
  let found: unknown;
  try {
    found = workflow.oracles?.(readOnly(episodes), options) ?? [];
    if (Array.isArray(found) && [...found].every(isSignal)) return found as RoleSignal[];
  } catch (error) {
    throw userError(where, 'oracles', error);
  }
  const takes =
    'a list of { role: one of its roles or null, signal: a name, value: a finite number or null }';
  throw new TroupeError(`oracles returned ${shownValue(found)}; it takes ${takes}.`, {
    where,
  });
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
