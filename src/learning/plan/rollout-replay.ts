/** How long a step's whole rollout takes: its episodes run again, with the engine at work on each of their calls. */
import type { RunConfig } from '../../config/schema.js';
import type { Engine } from '../../engine/engine.js';
import type { Ranks } from '../../engine/ranks.js';
import type { UngradedEpisode } from '../../rollout/episode.js';
import { createTask } from '../../tasks/registry.js';
import { policyRequest } from '../setup.js';
import { type BeforeAnswer, timeEpisodes } from './episode-time.js';
import type { PlannedStep } from './planned-calls.js';

/** Seconds of replays, three at least: short ones are mostly JavaScript, which takes half as long once it is compiled. */
const REPLAYED = 3;

const now = () => performance.now() / 1000;

/** An engine and its place among others that do the same at the same time. */
export interface ProbedRank {
  engine: Engine;
  ranks: Ranks;
}

/**
 * Median seconds of the later half of some replays, on an engine that has the model. A call draws as many tokens as its
 * planned answer has, and then has that answer: drawn tokens would be other texts, and episodes other calls. What later
 * prompts quote of answers is therefore not found in the cache as it would be where a prompt goes on after an answer.
 */
export async function replayRollout(
  { engine, ranks }: ProbedRank,
  config: RunConfig,
  step: PlannedStep,
): Promise<number> {
  for (const policy of step.policies)
    await engine.send('createPolicy', { ...policyRequest(config, policy), trainable: !policy.freeze });
  const draw: BeforeAnswer = ({ sampling, ...request }, { ids }) =>
    engine.complete({
      ...request,
      sampling: { ...sampling, maxTokens: ids.length, stop: [] },
      ignoreStop: true,
    });
  const task = await createTask(config.task, { strict: config.strict });
  const tell = (episodes: UngradedEpisode[]) => ranks.together('episodes', async () => episodes);
  const again = { ...step.episodes, setting: { ...step.episodes.setting, task }, tell };
  try {
    const replay = async () => {
      const seconds = await timeEpisodes(again, now, draw);
      // As after every rollout of a run: the next one computes its prompts anew.
      await engine.send('clearCache', null);
      return seconds;
    };
    // Ranks that tell each other of episodes replay equally often.
    const [first = 0] = await ranks.together('a first replay', replay);
    const times: number[] = [];
    while (times.length < Math.max(3, REPLAYED / first)) times.push(await replay());
    const later = times.slice(times.length >> 1).sort((a, b) => a - b);
    return later[later.length >> 1] as number;
  } finally {
    await task.close();
  }
}
