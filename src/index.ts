/**
 * The package: running Troupe from a program (`import { train, evaluate, openRun, readStream } from 'troupe'`), and what a
 * user's own workflow, loss, estimator, reward or task imports (docs/your-own.md). Nothing else of this package is meant
 * to be imported.
 */

export type { AlarmRule } from './config/alarm-rules.js';
export type { Change } from './config/changes.js';
export { type ErrorDetails, TroupeError } from './config/errors.js';
export type { RunConfig, RunInput } from './config/schema.js';
export type { LossFunction, LossInputs } from './engine/loss.js';
export type { DType } from './engine/native-model.js';
export { scope } from './engine/scope.js';
export { liveTensors, noGrad, type Operand, operator, Tensor, type TensorOptions } from './engine/tensor.js';
export type { TensorData, TensorHandle } from './engine/tensor-handle.js';
export type { Completion, Sampling } from './engine/types.js';
export type { Alarm } from './judgement/alarms.js';
export type { Capture, Signature } from './judgement/capture.js';
export type { AccuracyPoint, Cliff, Label } from './judgement/cliff.js';
export type { Measure } from './judgement/history.js';
export type { Difference } from './judgement/paired.js';
export type { RoleAtEnd } from './judgement/roles-at-end.js';
export type { Verdict } from './judgement/verdict.js';
export type { Accuracy } from './learning/accuracy.js';
export type {
  EstimatorFunction,
  EstimatorInput,
  GroupedCall,
  RewardGroup,
} from './learning/estimators/types.js';
export type { Evaluation } from './learning/evaluate.js';
export { type EvaluateOptions, type EvaluationResults, evaluate } from './learning/evaluation/evaluate.js';
export type { Estimate } from './learning/evaluation/measures.js';
export type { LineupResult } from './learning/evaluation/results.js';
export { type ResumeOptions, resume, type StartOptions, type Trained, train } from './learning/launch.js';
export { type OpenRun, openRun } from './learning/open-run.js';
export type { RewardFunction } from './learning/rewards.js';
export type { TrainOutcome } from './learning/train.js';
export type { KeptCheckpoint } from './runs/checkpoint.js';
export type { Environment } from './runs/environment.js';
export type { RecordedChange } from './runs/run-directory.js';
export { readStream, type StreamContents } from './streams/stream-reader.js';
export type { TableName } from './streams/tables.js';
export type { TaskModule } from './tasks/registry.js';
export type { Grade, Problem, SplitRecord, Task, TaskContext } from './tasks/types.js';
export { parsePick } from './workflows/parse-pick.js';
export { parseStrategies } from './workflows/parse-strategies.js';
export { parseVerdict } from './workflows/parse-verdict.js';
export type {
  CallPlace,
  Episode,
  FormatContext,
  Message,
  Reply,
  RoleCall,
  RoleSignal,
  Workflow,
  WorkflowContext,
  WorkflowResult,
} from './workflows/types.js';
