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
  /** Whether the run goes on: its first evaluation is then already recorded. */
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
  const { steps, evaluation, checkpoints } = trainer.config;
  const { step: first, resumed } = await recorder.start(trainer);
  const outcome: TrainOutcome = { before: undefined, after: undefined, steps: first, stopped: false };
  const runEvaluation = async (step: number) => {
    const result = await evaluate(trainer, {
      ...(signal === undefined ? {} : { signal }),
    });
    await recorder.evaluation(step, result);
    return result;
  };
  if (!resumed) {
    outcome.before = await runEvaluation(0);
    if (recorder.isBest(0)) await recorder.checkpoint(trainer, 0);
  }
  for (let step = first; step < steps && !signal?.aborted; step++) {
    const record = await runStep(trainer, step);
    await recorder.step(record);
    countSkipped(trainer.state, record.updates);
    const done = step + 1;
    outcome.steps = done;
    const last = done === steps;
    if (last || (evaluation.every > 0 && done % evaluation.every === 0))
      outcome.after = await runEvaluation(done);
    const alarm = await recorder.alarms(trainer, done);
    if (alarm !== undefined) outcome.alarm = alarm;
    const due = last || (checkpoints.every > 0 && done % checkpoints.every === 0);
    if (due || recorder.isBest(done)) await recorder.checkpoint(trainer, done);
    if (alarm !== undefined) break;
  }
  if (outcome.steps < steps) {
    outcome.stopped = true;
    await recorder.checkpoint(trainer, outcome.steps);
  }
  return outcome;
}
