/** One step of a run: problems, episodes, credit, one round of updates. */
import type { RunConfig } from '../config/schema.js';
import type { Episode } from '../workflows/types.js';
import { assignCredit, type Credit } from './credit.js';
import { drawStep, type Replaced } from './draw.js';
import type { OpenLoss } from './losses.js';
import { methodOf } from './method.js';
import type { StepOptions, Trainer } from './trainer.js';
import { type PolicyUpdate, updatePolicy } from './update-policy.js';

export interface StepRecord {
  step: number;
  episodes: Episode[];
  credit: Credit;
  replaced: Replaced;
  /** In the order of the policies, then of their optimizer steps. */
  updates: PolicyUpdate[];
  /** What the loss clips the ratio to; undefined: nobody knows. */
  clip: OpenLoss['clip'];
  /** What the ratio compares with. */
  old: RunConfig['learning']['oldLogprobs'];
  /** Wall-clock seconds. */
  rolloutSeconds: number;
  trainSeconds: number;
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
  const credit = assignCredit(rewarded, { groups, baseline, strict: config.strict, estimator, memory });
  const updates: PolicyUpdate[] = [];
  for (const policy of policies) {
    const calls = credit.calls.filter(({ call }) => call.policy === policy.name);
    updates.push(...(await updatePolicy(trainer, policy, calls, { step, signal, onProgress })));
  }
  return {
    step,
    episodes,
    credit,
    replaced: drawn.replaced,
    updates,
    clip: loss.clip,
    old: config.learning.oldLogprobs,
    rolloutSeconds: (collected - started) / 1000,
    trainSeconds: (performance.now() - collected) / 1000,
  };
}
