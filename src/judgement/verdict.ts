/** How a run went: its cliff, its captures, its alarms and its label, from its history. */
import type { AlarmConfig } from '../config/schema.js';
import { type Alarm, capturesOf, evaluationsOf, findAlarms, type Segment, segmentsOf } from './alarms.js';
import type { Capture } from './capture.js';
import { type Cliff, findCliff, type Label, LEAST_DROP, terminalLabel } from './cliff.js';
import { between, type History } from './history.js';
import { type RoleAtEnd, rolesAtEnd } from './roles-at-end.js';

/** How a run went, as its streams say. */
export interface Verdict {
  label: Label | null;
  /** Over all evaluations, also those before a rollback. */
  cliff: Cliff | null;
  /** At the end of the run. */
  captures: Capture[];
  /** How its roles answer at the end. */
  roles: RoleAtEnd[];
  /** Of every segment between rollbacks. */
  alarms: Alarm[];
  /**
   * Steps done when the run first went wrong: the onset of the first segment that ended below its peak, or the
   * capture before it. Null: it never did.
   */
  trouble: number | null;
  /** Prompts whose chat template changed an earlier answer, so that they did not continue its ids. */
  brokenPrefixes: number;
}

/** Works on unfinished runs too: the end is then what has been measured last. An empty run has no label. */
export function verdict(history: History, config: AlarmConfig): Verdict {
  const least = config.accuracy ?? LEAST_DROP;
  const segments = segmentsOf(history);
  const last = segments.at(-1) ?? { since: 0 };
  const cliff = findCliff(history.evaluations, least);
  const captures = capturesOf(history, config, last);
  const alarms = segments.flatMap((segment) => findAlarms(history, config, segment));
  const troubles = segments.flatMap((segment) => onsetOf(history, segment, least));
  const captured = alarms.flatMap(({ rule, step }) => (rule === 'capture' ? [step] : []));
  const roles = rolesAtEnd(between(history, last.since), config.window);
  const dead = roles.filter(({ deadSince }) => deadSince !== null).map(({ role }) => role);
  const label = terminalLabel(cliff, captures, dead);
  const first = Math.min(...troubles, ...(label === 'capture' ? captured : []));
  const trouble = Number.isFinite(first) ? first : null;
  return { label, cliff, captures, roles, alarms, trouble, brokenPrefixes: history.brokenPrefixes };
}

function onsetOf(history: History, segment: Segment, least: number): number[] {
  const onset = findCliff(evaluationsOf(history, segment), least)?.onset;
  return onset === undefined || onset === null ? [] : [onset];
}
