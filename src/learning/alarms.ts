/** What is done about alarms: recorded, the run stopped, or rolled back. How they are found: judgement/alarms.ts. */
import type { AlarmConfig } from '../config/schema.js';
import type { Alarm } from '../judgement/alarms.js';
import type { RunStreams } from '../streams/run-streams.js';
import type { LoopState } from './loop-state.js';
import type { Action, Response, RunRecorder } from './recorder.js';
import { restoreParameters } from './restore.js';
import type { Trainer } from './trainer.js';

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

/**
 * Ends the boundary after `done` steps: looks for alarms, does what they ask for, save stopping, and has both recorded.
 * Returns why the run is to stop.
 */
export async function answerAlarms(
  trainer: Trainer,
  recorder: Pick<RunRecorder, 'alarms' | 'best' | 'boundary'>,
  done: number,
): Promise<string | undefined> {
  const { alarms: config } = trainer.config;
  const alarms = await recorder.alarms(done, trainer.state.since);
  const wanted = actionOn(alarms, config, trainer.state);
  const best = wanted === 'rollback' ? await recorder.best() : undefined;
  if (best !== undefined) {
    trainer.betweenSteps = true;
    await restoreParameters(trainer, best.folder);
    trainer.state = rolledBack(trainer.state, config, done);
    trainer.betweenSteps = false;
  }
  // Nothing to go back to: the configuration was changed on the way.
  const action = wanted === 'rollback' && best === undefined ? 'stop' : wanted;
  const { rateFactor } = trainer.state;
  await recorder.boundary(done, alarms, { action, restoredStep: best?.step ?? null, rateFactor });
  return action === 'stop' ? describeAlarms(alarms) : undefined;
}

export function recordAlarms(streams: RunStreams, alarms: readonly Alarm[], response: Response): void {
  const { action, restoredStep: restored_step, rateFactor: rate_factor } = response;
  streams.append(
    'alarms',
    alarms.map(({ step, rule, role, policy, value, threshold, baseline }) => ({
      ...{ step, rule, role, policy, value, threshold, baseline },
      ...{ action, restored_step, rate_factor },
    })),
  );
}

export const describeAlarms = (alarms: readonly Alarm[]) => alarms.map(describeAlarm).join('; ');

/** "accuracy 0.31, below 0.52", "perplexity of generator 4.1, above 3.8". */
export function describeAlarm({ rule, role, policy, value, threshold }: Alarm): string {
  const subject = role ?? policy;
  const side = value < threshold ? 'below' : 'above';
  const shown = (number: number) => String(Number(number.toPrecision(3)));
  const whose = subject === null ? '' : ` of ${subject}`;
  return `${rule.replace('_', ' ')}${whose} ${shown(value)}, ${side} ${shown(threshold)}`;
}
