/** Learning-rate schedules: a factor on each policy's rate. */
import type { RunConfig } from '../config/schema.js';

/**
 * Factor of the rate at `step` (0-based) of `steps`: linear warm-up, then constant, or linear or cosine decay
 * that reaches 0 after the last step.
 */
export function scheduleFactor(
  schedule: RunConfig['learning']['schedule'],
  step: number,
  steps: number,
): number {
  const { warmupSteps, kind } = schedule;
  if (step < warmupSteps) return (step + 1) / warmupSteps;
  if (kind === 'constant') return 1;
  const progress = (step - warmupSteps) / Math.max(1, steps - warmupSteps);
  return kind === 'linear' ? 1 - progress : 0.5 * (1 + Math.cos(Math.PI * progress));
}
