/**
 * What alarms are worth, measured over finished runs: how often a rule cries where nothing went wrong, how often it
 * is heard before something does, and how long before.
 */
import { ALARM_RULES, type AlarmRule } from '../config/alarm-rules.js';
import type { Verdict } from './verdict.js';

export interface AlarmRate {
  rule: AlarmRule;
  /** Runs that never went wrong, and those of them with an alarm of this rule. */
  sound: number;
  falseAlarms: number;
  /** Runs that went wrong, and those of them with an alarm at or before that step. */
  failed: number;
  warned: number;
  /** Steps from the first alarm to the trouble it came before, median over the warned runs; null without any. */
  medianLead: number | null;
}

/** One entry for each rule. Runs without a label (empty, or evaluated less than twice) do not count. */
export function alarmRates(verdicts: readonly Verdict[]): AlarmRate[] {
  const labelled = verdicts.filter(({ label }) => label !== null);
  const sound = labelled.filter(({ trouble }) => trouble === null);
  const failed = labelled.filter(({ trouble }) => trouble !== null);
  return ALARM_RULES.map((rule) => {
    const leads = failed.flatMap((run) => leadOf(run, rule)).sort((a, b) => a - b);
    return {
      rule,
      sound: sound.length,
      falseAlarms: sound.filter(({ alarms }) => alarms.some((alarm) => alarm.rule === rule)).length,
      failed: failed.length,
      warned: leads.length,
      medianLead: median(leads),
    };
  });
}

function leadOf({ alarms, trouble }: Verdict, rule: AlarmRule): number[] {
  const first = alarms.find((alarm) => alarm.rule === rule)?.step;
  return first === undefined || trouble === null || first > trouble ? [] : [trouble - first];
}

function median(sorted: readonly number[]): number | null {
  const middle = (sorted.length - 1) / 2;
  const [below, above] = [sorted[Math.floor(middle)], sorted[Math.ceil(middle)]];
  return below === undefined || above === undefined ? null : (below + above) / 2;
}
