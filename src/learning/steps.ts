/** One step of a run: problems, episodes, credit, one round of updates. */
import { TroupeError } from '../config/errors.js';
import type { RunConfig } from '../config/schema.js';
import type { Episode } from '../workflows/types.js';
import { collect } from './collect.js';
import { assignCredit, type Credit } from './credit.js';
import { withKlReward } from './kl-reward.js';
import type { OpenLoss } from './losses.js';
import { methodOf } from './method.js';
import type { RewardTime, RewardValue } from './rewards/types.js';
import type { RewardedCall } from './rewards.js';
import type { Trainer } from './setup.js';
import { type PolicyUpdate, updatePolicy } from './update-policy.js';

export interface StepRecord {
  step: number;
  episodes: Episode[];
  credit: Credit;
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

export interface StepOptions {
  /** Drops the step where it was aborted before the first update was applied; after that the step is finished. */
  signal?: AbortSignal | undefined;
  /** Gets the graded episodes before anything is learnt from them; what it throws ends the step. */
  onEpisodes(episodes: readonly Episode[]): Promise<void>;
  /** Is told how far the step is: "episodes 12/64", "policy shared". */
  onProgress?(what: string): void;
}

export async function runStep(trainer: Trainer, step: number, options: StepOptions): Promise<StepRecord> {
  const { config, task, engine, policies } = trainer;
  const { signal, onEpisodes, onProgress } = options;
  const { promptsPerStep, episodesPerPrompt } = config.rollout;
  const problems = Array.from({ length: promptsPerStep }, (_, i) =>
    task.train(config.seed, step * promptsPerStep + i),
  );
  const started = performance.now();
  const episodes = await collect(trainer, problems, {
    step,
    episodesPerProblem: episodesPerPrompt,
    signal,
    onEnded: (ended, of) => onProgress?.(`episodes ${ended}/${of}`),
  });
  // Entries belong to this version of the parameters; training wants the memory.
  await engine.send('clearCache', null);
  const collected = performance.now();
  await onEpisodes(episodes);
  const given = await rewardEpisodes(trainer, episodes, { step, steps: config.steps, signal });
  const rewarded = await withKlReward(trainer, given, signal);
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
    updates,
    clip: loss.clip,
    old: config.learning.oldLogprobs,
    rolloutSeconds: (collected - started) / 1000,
    trainSeconds: (performance.now() - collected) / 1000,
  };
}

/** A call's rewards as they go from one rank to another: errors as their messages. */
interface PlainRewards {
  values: (Omit<RewardValue, 'error'> & { error?: string })[];
  reward: number | { error: string };
}

/** Every rank asks for the rewards of its own problems. */
async function rewardEpisodes(
  { ranks, rewards }: Trainer,
  episodes: readonly Episode[],
  time: RewardTime,
): Promise<RewardedCall[]> {
  const places = episodes.flatMap((episode) => episode.calls.map((call) => ({ episode, call })));
  const own = episodes.filter(({ problemIndex }) => ranks.owns(problemIndex));
  const ask = async () => (await rewards.of(own, time)).map(toPlain);
  const given = await ranks.each('rewards', places, ({ episode }) => episode.problemIndex, ask);
  return places.map((place, i) => ({ ...place, ...fromPlain(given[i] as PlainRewards) }));
}

function toPlain({ values, reward }: RewardedCall): PlainRewards {
  return {
    values: values.map(({ error, ...value }) => ({ ...value, ...(error && { error: error.message }) })),
    reward: typeof reward === 'number' ? reward : { error: reward.message },
  };
}

function fromPlain({ values, reward }: PlainRewards): Pick<RewardedCall, 'values' | 'reward'> {
  return {
    values: values.map(({ error, ...value }) => ({
      ...value,
      ...(error !== undefined && { error: new TroupeError(error) }),
    })),
    reward: typeof reward === 'number' ? reward : new TroupeError(reward.error),
  };
}
