/**
 * What the training loop remembers from step to step besides the parameters. Every checkpoint holds it, so that a
 * resumed run goes on as the uninterrupted one would have.
 */
import { TroupeError } from '../config/errors.js';
import { ownValue } from '../config/own-value.js';
import type { Json } from '../runs/checkpoint.js';

export interface LoopState {
  /** Optimizer steps of each policy that were skipped without an applied one in between. */
  skippedInARow: Record<string, number>;
  /** Factor on every learning rate; a rollback lowers it. */
  rateFactor: number;
  /** Rollbacks so far. */
  rollbacks: number;
  /** The step that the run went on at after its last rollback: alarms compare with nothing before it. */
  since: number;
  /** Whether evaluation and alarms of the last step boundary are still to come: a stop signal broke them off. */
  boundaryDue: boolean;
  /** What the estimator keeps from step to step (estimators/types.ts). */
  memory: Record<string, number>;
  /** Training problems that were drawn in the place of others so far (draw.ts). */
  replacedProblems: number;
}

export function newLoopState(): LoopState {
  return {
    skippedInARow: {},
    rateFactor: 1,
    rollbacks: 0,
    since: 0,
    boundaryDue: false,
    memory: {},
    replacedProblems: 0,
  };
}

export function saveLoopState(state: LoopState): Json {
  return { ...state, skippedInARow: { ...state.skippedInARow }, memory: { ...state.memory } };
}

/** Whatever a checkpoint does not say is as in a new run. */
export function restoreLoopState(saved: Json): LoopState {
  return { ...newLoopState(), ...(saved as Partial<LoopState> | null) };
}

/** Steps in a row that a policy may lose to gradients that are not finite. */
const SKIPS = 3;

/**
 * Counts the skipped optimizer steps. Throws a TroupeError when a policy had three in a row: its parameters or the
 * loss are beyond repair, and waiting would only burn time.
 */
export function countSkipped(
  state: LoopState,
  updates: readonly { policy: string; result: { skipped?: string } }[],
): void {
  for (const { policy, result } of updates) {
    const count = result.skipped === undefined ? 0 : (ownValue(state.skippedInARow, policy) ?? 0) + 1;
    state.skippedInARow[policy] = count;
    if (count < SKIPS) continue;
    throw new TroupeError(`${SKIPS} optimizer steps in a row were skipped: ${result.skipped}.`, {
      where: `policy ${policy}`,
      hint: 'Lower its learning rate, or resume from an earlier checkpoint with other settings.',
    });
  }
}
