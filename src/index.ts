/** What a user's own workflow, loss, reward or task needs: `import { Tensor, type LossFunction } from 'troupe'`. */

export type { LossFunction, LossInputs } from './engine/loss.js';
export { Tensor } from './engine/tensor.js';

export type {
  Estimator,
  EstimatorFunction,
  EstimatorInput,
  GroupedCall,
  RewardGroup,
} from './learning/estimators/types.js';
export type { RewardFunction } from './learning/rewards.js';
export type { Grade, Problem, Task } from './tasks/types.js';
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
} from './workflows/types.js';
