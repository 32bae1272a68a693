/**
 * The training loop, top to bottom: evaluate, then step after step collect, credit, update, record; checkpoints
 * on step boundaries; a stop signal saves and ends. What a step does is in steps.ts.
 */
import type { RunConfig } from '../config/schema.js';
import type { Engine } from '../engine/engine.js';
import { type Evaluation, evaluate } from './evaluate.js';
import { setUp, type Trainer } from './setup.js';
import { runStep, type StepRecord } from './steps.js';

/** Where a run's records go: the run directory, and what a person sees. */
export interface RunRecorder {
  /** The step to start with; after it is called, parameters are those of that step. */
  start(trainer: Trainer): Promise<number>;
  evaluation(step: number, evaluation: Evaluation): Promise<void>;
  step(record: StepRecord): Promise<void>;
  /** Saves everything that continuing at `step` needs. */
  checkpoint(trainer: Trainer, step: number): Promise<void>;
}

export interface TrainOutcome {
  before: Evaluation | undefined;
  after: Evaluation | undefined;
  /** Steps that are done; fewer than configured if a signal stopped the run. */
  steps: number;
  stopped: boolean;
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
  const first = await recorder.start(trainer);
  const outcome: TrainOutcome = { before: undefined, after: undefined, steps: first, stopped: false };
  const runEvaluation = async (step: number) => {
    const result = await evaluate(trainer, {
      ...(signal === undefined ? {} : { signal }),
    });
    await recorder.evaluation(step, result);
    return result;
  };
  if (first === 0) outcome.before = await runEvaluation(0);
  for (let step = first; step < steps && !signal?.aborted; step++) {
    await recorder.step(await runStep(trainer, step));
    const done = step + 1;
    outcome.steps = done;
    const last = done === steps;
    if (last || (evaluation.every > 0 && done % evaluation.every === 0))
      outcome.after = await runEvaluation(done);
    if (last || (checkpoints.every > 0 && done % checkpoints.every === 0))
      await recorder.checkpoint(trainer, done);
  }
  if (outcome.steps < steps) {
    outcome.stopped = true;
    await recorder.checkpoint(trainer, outcome.steps);
  }
  return outcome;
}
