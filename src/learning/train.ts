/**
 * The training loop, top to bottom: evaluate, then step after step collect, credit, update, record; checkpoints
 * on step boundaries; a stop signal saves and ends, and so may an alarm. What a step does is in steps.ts.
 */
import type { RunConfig } from '../config/schema.js';
import type { Engine } from '../engine/engine.js';
import { type Evaluation, evaluate } from './evaluate.js';
import { countSkipped } from './loop-state.js';
import { setUp, type Trainer } from './setup.js';
import { runStep, type StepRecord } from './steps.js';

/** Where a run's records go: the run directory, and what a person sees. */
export interface RunRecorder {
  /** After it is called, parameters and `trainer.state` are those of the step to start with. */
  start(trainer: Trainer): Promise<StartingPoint>;
  evaluation(step: number, evaluation: Evaluation): Promise<void>;
  step(record: StepRecord): Promise<void>;
  /** Looks for alarms after `done` steps and does what they ask for, save stopping. Returns why the run is to stop. */
  alarms(trainer: Trainer, done: number): Promise<string | undefined>;
  /** Whether a rollback may need the parameters that were just evaluated. */
  isBest(step: number): boolean;
  /** Saves everything that continuing at `step` needs. */
  checkpoint(trainer: Trainer, step: number): Promise<void>;
}

export interface StartingPoint {
  /** Index of the step to start with. */
  step: number;
  /** Whether the run goes on; else its first evaluation is still to come. */
  resumed: boolean;
}

export interface TrainOutcome {
  before: Evaluation | undefined;
  after: Evaluation | undefined;
  /** Steps that are done; fewer than configured if a signal stopped the run. */
  steps: number;
  stopped: boolean;
  /** The alarm that stopped it. */
  alarm?: string;
}

export async function trainRun(
  engine: Engine,
  config: RunConfig,
  recorder: RunRecorder,
  signal?: AbortSignal,
): Promise<TrainOutcome> {
  const trainer = await setUp(engine, config, { trainable: true });
  try {
    return await loop(trainer, recorder, signal);
  } finally {
    await trainer.task.close();
  }
}

async function loop(
  trainer: Trainer,
  recorder: RunRecorder,
  signal: AbortSignal | undefined,
): Promise<TrainOutcome> {
  const { steps } = trainer.config;
  const { step: first, resumed } = await recorder.start(trainer);
  const outcome: TrainOutcome = { before: undefined, after: undefined, steps: first, stopped: false };
  if (!resumed) trainer.state.boundaryDue = true;
  try {
    if (trainer.state.boundaryDue) await boundary(trainer, recorder, outcome, signal);
    while (outcome.steps < steps && outcome.alarm === undefined && !signal?.aborted) {
      const record = await runStep(trainer, outcome.steps);
      await recorder.step(record);
      countSkipped(trainer.state, record.updates);
      outcome.steps += 1;
      await boundary(trainer, recorder, outcome, signal);
    }
  } catch (error) {
    // An evaluation that was broken off: the resumed run begins with it.
    if (!signal?.aborted || error !== signal.reason) throw error;
  }
  if (outcome.steps < steps || trainer.state.boundaryDue) {
    outcome.stopped = true;
    await recorder.checkpoint(trainer, outcome.steps);
  }
  return outcome;
}

/** What belongs to a step boundary: evaluation, alarms, checkpoint, where they are due. */
async function boundary(
  trainer: Trainer,
  recorder: RunRecorder,
  outcome: TrainOutcome,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { steps, evaluation, checkpoints } = trainer.config;
  const done = outcome.steps;
  const isDue = (every: number) => done > 0 && (done === steps || (every > 0 && done % every === 0));
  trainer.state.boundaryDue = true;
  if (done === 0 || isDue(evaluation.every)) {
    const result = await evaluate(trainer, signal === undefined ? {} : { signal });
    await recorder.evaluation(done, result);
    outcome[done === 0 ? 'before' : 'after'] = result;
  }
  const alarm = await recorder.alarms(trainer, done);
  trainer.state.boundaryDue = false;
  if (alarm !== undefined) outcome.alarm = alarm;
  if (isDue(checkpoints.every) || recorder.isBest(done)) await recorder.checkpoint(trainer, done);
}
