/** What is done about alarms: recorded, the run stopped, or rolled back. How they are found: judgement/alarms.ts. */
import type { AlarmConfig } from '../config/schema.js';
import type { Alarm } from '../judgement/alarms.js';
import type { RunStreams } from '../streams/run-streams.js';
import type { LoopState } from './loop-state.js';

export type Action = AlarmConfig['onAlarm'];

/** One of the rules that act must be among the alarms; after the last rollback that is allowed, the run stops. */
export function actionOn(alarms: readonly Alarm[], config: AlarmConfig, state: LoopState): Action {
  if (!alarms.some(({ rule }) => config.actOn.includes(rule))) return 'log';
  if (config.onAlarm === 'rollback' && state.rollbacks >= config.rollbacks) return 'stop';
  return config.onAlarm;
}

/** The state that a run goes on with after `done` steps, when it is rolled back there. */
export function rolledBack(state: LoopState, config: AlarmConfig, done: number): LoopState {
  return {
    skippedInARow: {},
    rateFactor: state.rateFactor * config.rateFactor,
    rollbacks: state.rollbacks + 1,
    since: done,
    boundaryDue: state.boundaryDue,
    memory: state.memory,
    replacedProblems: state.replacedProblems,
  };
}

export interface Response {
  action: Action;
  /** Step of the checkpoint that the run went back to. */
  restoredStep: number | null;
  rateFactor: number;
}

export function recordAlarms(streams: RunStreams, alarms: readonly Alarm[], response: Response): void {
  const rows = streams.columns('alarms');
  for (const { step, rule, role, policy, value, threshold, baseline } of alarms) {
    rows.step.push(step);
    rows.rule.push(rule);
    rows.role.push(role);
    rows.policy.push(policy);
    rows.value.push(value);
    rows.threshold.push(threshold);
    rows.baseline.push(baseline);
    rows.action.push(response.action);
    rows.restored_step.push(response.restoredStep);
    rows.rate_factor.push(response.rateFactor);
  }
  streams.append('alarms', rows);
}

/** "accuracy 0.31, below 0.52", "perplexity of generator 4.1, above 3.8". */
export function describeAlarm({ rule, role, policy, value, threshold }: Alarm): string {
  const subject = role ?? policy;
  const side = value < threshold ? 'below' : 'above';
  const shown = (number: number) => String(Number(number.toPrecision(3)));
  const whose = subject === null ? '' : ` of ${subject}`;
  return `${rule.replace('_', ' ')}${whose} ${shown(value)}, ${side} ${shown(threshold)}`;
}
