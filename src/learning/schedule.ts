/** Learning-rate schedules: a factor on each policy's rate. */
import type { RunConfig } from '../config/schema.js';

/**
 * Factor of the rate at `step` (0-based) of `steps`: linear warm-up, then constant, or linear or cosine decay
 * that reaches 0 after the last step. `roles`: of the workflow; with `per: role` each of them moves the schedule on by one,
 * so that warm-up and decay take that many times fewer steps, and what has reached 0 stays there.
 */
export function scheduleFactor(
  schedule: RunConfig['learning']['schedule'],
  step: number,
  steps: number,
  roles = 1,
): number {
  const { warmupSteps, kind, per } = schedule;
  const place = per === 'role' ? step * roles : step;
  if (place < warmupSteps) return (place + 1) / warmupSteps;
  if (kind === 'constant') return 1;
  const progress = Math.min(1, (place - warmupSteps) / Math.max(1, steps - warmupSteps));
  return kind === 'linear' ? 1 - progress : 0.5 * (1 + Math.cos(Math.PI * progress));
}
