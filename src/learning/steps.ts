/** One step of a run: problems, episodes, credit, one round of updates. */
import type { Episode } from '../workflows/types.js';
import { collect } from './collect.js';
import { assignCredit, type Credit } from './credit.js';
import type { Trainer } from './setup.js';
import { type PolicyUpdate, updatePolicy } from './update-policy.js';

export interface StepRecord {
  step: number;
  episodes: Episode[];
  credit: Credit;
  /** In the order of the policies, then of their optimizer steps. */
  updates: PolicyUpdate[];
  /** Wall-clock seconds. */
  rolloutSeconds: number;
  trainSeconds: number;
}

export async function runStep(trainer: Trainer, step: number): Promise<StepRecord> {
  const { config, task, engine, policies } = trainer;
  const { promptsPerStep, episodesPerPrompt } = config.rollout;
  const problems = Array.from({ length: promptsPerStep }, (_, i) =>
    task.train(config.seed, step * promptsPerStep + i),
  );
  const started = performance.now();
  const episodes = await collect(trainer, problems, { step, episodesPerProblem: episodesPerPrompt });
  // Entries belong to this version of the parameters; training wants the memory.
  await engine.send('clearCache', null);
  const collected = performance.now();
  const credit = await assignCredit(episodes, trainer.reward, { ...config.learning, strict: config.strict });
  const updates: PolicyUpdate[] = [];
  for (const policy of policies) {
    const calls = credit.calls.filter(({ call }) => call.policy === policy.name);
    updates.push(...(await updatePolicy(trainer, policy, calls, step)));
  }
  return {
    step,
    episodes,
    credit,
    updates,
    rolloutSeconds: (collected - started) / 1000,
    trainSeconds: (performance.now() - collected) / 1000,
  };
}
