/**
 * The training loop, top to bottom: evaluate, then step after step collect, credit, update, record; checkpoints
 * on step boundaries; a stop signal saves and ends, and so may an alarm. What a step does is in steps.ts.
 */
import { reasonOf } from '../config/errors.js';
import type { RunConfig } from '../config/schema.js';
import { caught, untilAborted, untilBlocked } from '../config/user-code.js';
import type { Engine } from '../engine/engine.js';
import { Ranks } from '../engine/ranks.js';
import { answerAlarms } from './alarms.js';
import type { CheckOptions } from './check-run.js';
import { type Evaluation, evaluate } from './evaluate.js';
import { fingerprint } from './fingerprint.js';
import { countSkipped, restoreLoopState } from './loop-state.js';
import type { RunRecorder } from './recorder.js';
import { restoreParameters } from './restore.js';
import { setUp } from './setup.js';
import { runStep } from './steps.js';
import type { Trainer } from './trainer.js';

/** How far a run came, and what its evaluations gave. */
export interface TrainOutcome {
  before: Evaluation | undefined;
  after: Evaluation | undefined;
  /** Steps that are done; fewer than configured if a signal stopped the run. */
  steps: number;
  stopped: boolean;
  /** The alarm that stopped it. */
  alarm?: string;
}

export interface TrainOptions {
  /** Aborted to stop; with an error as its reason, the run fails with it. Either way it saves first. */
  signal?: AbortSignal;
  /** Where a key of the configuration was written, for errors. */
  locate?: CheckOptions['locate'];
  /** Default: this process is the only one. Their signal takes the place of `signal`. */
  ranks?: Ranks;
}

export async function trainRun(
  engine: Engine,
  config: RunConfig,
  recorder: RunRecorder,
  { signal: given, locate, ranks = Ranks.alone(engine, given) }: TrainOptions = {},
): Promise<TrainOutcome> {
  const { signal } = ranks;
  let trainer: Trainer | undefined;
  try {
    await ranks.together('start', async () => {
      const options = { trainable: true, ranks, ...(locate && { locate }) };
      // What there is to say of the files that all have, one says.
      const quiet = ranks.rank > 0 && { warn: () => {} };
      const loading = untilBlocked(() => setUp(engine, config, { ...options, ...quiet }));
      // A model may take minutes to load: who stops the run then must not wait for it.
      trainer = await untilAborted(loading, signal);
    });
    const started = trainer;
    if (started === undefined) throw new Error('not reached');
    await ranks.agree('start', () => fingerprint(started));
    const slow = await ranks.connectGpus(started.model.device);
    if (slow !== undefined && ranks.rank === 0) console.error(slow);
    return await loop(started, recorder, signal);
  } finally {
    await trainer?.close();
  }
}

async function loop(trainer: Trainer, recorder: RunRecorder, signal: AbortSignal): Promise<TrainOutcome> {
  const { steps } = trainer.config;
  const { step: first, checkpoint } = await recorder.start(trainer);
  if (checkpoint === undefined) trainer.state.boundaryDue = true;
  else {
    await restoreParameters(trainer, checkpoint.folder);
    trainer.state = restoreLoopState(checkpoint.trainer);
  }
  if (first === steps && !trainer.state.boundaryDue) {
    recorder.note(`nothing to do: all ${steps} steps are done; --set steps=N makes the run longer`);
  }
  const outcome: TrainOutcome = { before: undefined, after: undefined, steps: first, stopped: false };
  try {
    if (trainer.state.boundaryDue) await untilBlocked(() => boundary(trainer, recorder, outcome, signal));
    while (outcome.steps < steps && outcome.alarm === undefined && !(await trainer.ranks.stopped())) {
      await untilBlocked(() => step(trainer, recorder, outcome, signal));
      await untilBlocked(() => boundary(trainer, recorder, outcome, signal));
    }
  } catch (error) {
    // A stop signal drops the step or evaluation that it finds: the resumed run begins with it.
    if (!signal.aborted) {
      await saveAfterFailure(trainer, recorder, outcome.steps);
      throw error;
    }
  }
  if (outcome.steps < steps || trainer.state.boundaryDue) {
    outcome.stopped = true;
    if (signal.aborted && !isStop(signal.reason)) {
      await saveAfterFailure(trainer, recorder, outcome.steps);
      throw signal.reason;
    }
    try {
      await recorder.checkpoint(trainer, outcome.steps);
    } catch (error) {
      recorder.note(recorder.saved());
      throw error;
    }
  }
  return outcome;
}

/** Whether a person or the system asked to stop; else an error that no code waited for is the reason. */
export function isStop(reason: unknown): boolean {
  return reason instanceof DOMException && reason.name === 'AbortError';
}

/** What broke is in the error that follows; here is said what is left of the run. */
async function saveAfterFailure(trainer: Trainer, recorder: RunRecorder, done: number): Promise<void> {
  if (trainer.betweenSteps) {
    recorder.note(`step ${done} ended while its policies were being changed; ${recorder.saved()}`);
    return;
  }
  try {
    await recorder.checkpoint(trainer, done);
    recorder.note(`saved after step ${done}`);
  } catch (error) {
    recorder.note(`step ${done} could not be saved: ${reasonOf(caught(error))}; ${recorder.saved()}`);
  }
}

async function step(
  trainer: Trainer,
  recorder: RunRecorder,
  outcome: TrainOutcome,
  signal: AbortSignal,
): Promise<void> {
  const index = outcome.steps;
  const record = await runStep(trainer, index, {
    signal,
    onEpisodes: (episodes) => recorder.episodes(index, episodes),
    onProgress: (what) => recorder.progress(`step ${index}: ${what}`),
  });
  await recorder.step(record);
  trainer.betweenSteps = false;
  trainer.state.memory = record.credit.memory;
  trainer.state.replacedProblems += record.replaced.problems;
  outcome.steps += 1;
  trainer.state.boundaryDue = true;
  countSkipped(trainer.state, record.updates);
}

/** What belongs to a step boundary: evaluation, alarms, checkpoint, where they are due. */
async function boundary(
  trainer: Trainer,
  recorder: RunRecorder,
  outcome: TrainOutcome,
  signal: AbortSignal,
): Promise<void> {
  const { steps, evaluation, checkpoints } = trainer.config;
  const done = outcome.steps;
  const isDue = (every: number) => done > 0 && (done === steps || (every > 0 && done % every === 0));
  if (done === 0 || isDue(evaluation.every)) {
    const onEnded = (ended: number, of: number) => {
      recorder.progress(`evaluation after step ${done}: episodes ${ended}/${of}`);
    };
    const result = await evaluate(trainer, { signal, onEnded });
    await recorder.evaluation(done, result);
    outcome[done === 0 ? 'before' : 'after'] = result;
  }
  const alarm = await answerAlarms(trainer, recorder, done);
  trainer.state.boundaryDue = false;
  if (alarm !== undefined) outcome.alarm = alarm;
  if (isDue(checkpoints.every) || (await recorder.isBest(done))) await recorder.checkpoint(trainer, done);
}
