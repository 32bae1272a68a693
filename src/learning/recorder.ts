/** What keeps the records of a training run, as the loop sees it. */
import type { AlarmConfig } from '../config/schema.js';
import type { Alarm } from '../judgement/alarms.js';
import type { Checkpoint } from '../runs/checkpoint.js';
import type { Episode } from '../workflows/types.js';
import type { Evaluation } from './evaluate.js';
import type { StepRecord } from './steps.js';
import type { Trainer } from './trainer.js';

export type Action = AlarmConfig['onAlarm'];

/** What was done about some alarms. */
export interface Response {
  action: Action;
  /** Step of the checkpoint that the run went back to. */
  restoredStep: number | null;
  /** Factor on every learning rate from here on. */
  rateFactor: number;
}

/** Where a run's records go: the run directory, and what a person sees. It changes nothing of the trainer. */
export interface RunRecorder {
  /** Opens the records; returns what they say of where the run goes on. */
  start(trainer: Trainer): Promise<StartingPoint>;
  evaluation(step: number, evaluation: Evaluation): Promise<void>;
  /** The graded episodes of a step, before anything is learnt from them. Throws where nothing can be. */
  episodes(step: number, episodes: readonly Episode[]): Promise<void>;
  /** The whole step: from here on a checkpoint may come after it. */
  step(record: StepRecord): Promise<void>;
  /** The alarms after `done` steps, as what was measured since step `since` says. */
  alarms(done: number, since: number): Promise<Alarm[]>;
  /** The checkpoint with the best evaluation. */
  best(): Promise<RestorePoint | undefined>;
  /** All that belongs to the boundary after `done` steps, these alarms at last: a checkpoint may come after it. */
  boundary(done: number, alarms: readonly Alarm[], response: Response): Promise<void>;
  /** Whether the parameters that were just evaluated are to be kept: the best so far. */
  isBest(step: number): Promise<boolean>;
  /** Saves everything that continuing at `step` needs. */
  checkpoint(trainer: Trainer, step: number): Promise<void>;
  /** What of the run is saved, in words: "the run goes on from step 20". */
  saved(): string;
  /** How far the step or evaluation is that is going on: "step 3: episodes 12/64". */
  progress(what: string): void;
  /** A line for a person. */
  note(text: string): void;
}

/** A checkpoint that parameters are restored from. */
export type RestorePoint = Pick<Checkpoint, 'step' | 'folder'>;

export interface StartingPoint {
  /** Index of the step to start with. */
  step: number;
  /** Where the run goes on; undefined: it begins. */
  checkpoint?: RestorePoint & Pick<Checkpoint, 'trainer'>;
}
