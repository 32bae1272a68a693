/** One step of a run: problems, episodes, credit, one round of updates. */
import { append } from '../config/append.js';
import type { RunConfig } from '../config/schema.js';
import type { ImportanceBounds } from '../gradients/mismatch.js';
import type { Episode } from '../workflows/types.js';
import { assignCredit, type Credit } from './credit.js';
import { drawStep, type Replaced } from './draw.js';
import type { OpenLoss } from './losses.js';
import { methodOf } from './method.js';
import { byPlace, type StepCall } from './step-call.js';
import type { StepOptions, Trainer } from './trainer.js';
import { type PolicyUpdate, updatePolicy } from './update-policy.js';

export interface StepRecord {
  step: number;
  episodes: Episode[];
  /** Every call of them with all that became of it, in the order of episodes and their calls. */
  calls: StepCall[];
  credit: Omit<Credit, 'calls' | 'failed'>;
  replaced: Replaced;
  /** In the order of the policies, then of their optimizer steps. */
  updates: PolicyUpdate[];
  /** What the loss clips the ratio to; undefined: nobody knows. */
  clip: OpenLoss['clip'];
  /** What the ratio compares with. */
  old: RunConfig['learning']['oldLogprobs'];
  /** Bounds of importance weights, where there are any. */
  importance: ImportanceBounds | undefined;
  /** Wall-clock seconds. */
  rolloutSeconds: number;
  trainSeconds: number;
}

function importanceBounds({
  level,
  low,
  high,
}: RunConfig['learning']['importance']): ImportanceBounds | undefined {
  return level === 'none' ? undefined : { level, low, high };
}

export async function runStep(trainer: Trainer, step: number, options: StepOptions): Promise<StepRecord> {
  const { config, engine, policies } = trainer;
  const { signal, onEpisodes, onProgress } = options;
  const started = performance.now();
  const drawn = await drawStep(trainer, step, { signal, onProgress });
  const { episodes, rewarded } = drawn;
  // Entries belong to this version of the parameters; training wants the memory.
  await engine.send('clearCache', null);
  await onEpisodes(episodes);
  const collected = performance.now();
  const { estimator, loss } = methodOf(trainer);
  const { memory } = trainer.state;
  const { groups, baseline } = config.learning;
  const { strict } = config;
  const assigned = assignCredit(rewarded, { groups, baseline, strict, estimator, memory });
  const { calls: credited, failed, ...credit } = assigned;
  const calls: StepCall[] = [...failed];
  const updates: PolicyUpdate[] = [];
  for (const policy of policies) {
    const its = credited.filter(({ call }) => call.policy === policy.name);
    const updated = await updatePolicy(trainer, policy, its, { step, signal, onProgress });
    updates.push(...updated.updates);
    append(calls, updated.calls);
  }
  return {
    step,
    episodes,
    calls: calls.sort(byPlace),
    credit,
    replaced: drawn.replaced,
    updates,
    clip: loss.clip,
    old: config.learning.oldLogprobs,
    importance: importanceBounds(config.learning.importance),
    rolloutSeconds: (collected - started) / 1000,
    trainSeconds: (performance.now() - collected) / 1000,
  };
}
