/** What a user's own workflow, loss, reward or task is typed with: `import type { Workflow } from 'troupe'`. */

export type { RewardFunction } from './learning/rewards.js';
export type { Grade, Problem, Task } from './tasks/types.js';
export type {
  CallPlace,
  Episode,
  Message,
  Reply,
  RoleCall,
  Workflow,
  WorkflowContext,
} from './workflows/types.js';
