/** What a run holds while it goes on, and what one of its steps is told. */
import type { RunConfig } from '../config/schema.js';
import type { Engine } from '../engine/engine.js';
import type { ModelDescription } from '../engine/protocol.js';
import type { Ranks } from '../engine/ranks.js';
import type { Tokenizer } from '../engine/tokenizer.js';
import type { ResolvedPolicy } from '../policies/routing.js';
import type { ChatTokenizer } from '../rollout/conversation.js';
import type { Task } from '../tasks/types.js';
import type { OpenWorkflow } from '../workflows/registry.js';
import type { Episode } from '../workflows/types.js';
import type { CheckedRun } from './check-run.js';
import type { LoopState } from './loop-state.js';
import type { Method } from './method.js';
import type { Rewards } from './rewards.js';

/** What a configuration names, opened; no engine and no weights. */
export interface RunParts {
  config: RunConfig;
  task: Task;
  open: OpenWorkflow;
  rewards: Rewards;
  /** undefined where nothing is trained. */
  method: Method | undefined;
  tokenizer: Tokenizer;
  chat: ChatTokenizer;
  policies: ResolvedPolicy[];
  starts: CheckedRun['starts'];
  references: CheckedRun['references'];
  /** Folder of the model. */
  folder: string;
  /** Ends what runs beside the program: of the task, of the rewards. */
  close(): Promise<void>;
}

export interface Trainer extends Omit<RunParts, 'folder'> {
  engine: Engine;
  /** Those that the run is divided among. */
  ranks: Ranks;
  model: ModelDescription & { folder: string };
  state: LoopState;
  /** Some of a step's updates are applied and the step is not recorded, or some policies are rolled back: nothing can be saved. */
  betweenSteps: boolean;
}

/** What happens around a step. */
export interface StepOptions {
  /** Drops the step where it was aborted before the first update was applied; after that the step is finished. */
  signal?: AbortSignal | undefined;
  /** Gets the graded episodes before anything is learnt from them; what it throws ends the step. */
  onEpisodes(episodes: readonly Episode[]): Promise<void>;
  /** Is told how far the step is: "episodes 12/64", "policy shared". */
  onProgress?(what: string): void;
}
