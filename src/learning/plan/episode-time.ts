/** How long the main thread takes for a step's episodes where their calls are answered at once. */
import { deserialize, serialize } from 'node:v8';
import type { Completion } from '../../engine/types.js';
import { type ChatTokenizer, PromptEncoder } from '../../rollout/conversation.js';
import { type Complete, type EpisodePlace, type EpisodeSetting, runEpisodes } from '../../rollout/episode.js';
import { gradeEpisodes } from '../../rollout/grading.js';

/** Answers that calls have had, by their counters. */
export class KnownAnswers {
  readonly #known = new Map<string, Completion>();
  readonly #complete: Complete;

  constructor(complete: Complete) {
    this.#complete = complete;
  }

  readonly complete: Complete = async (request) => {
    const key = request.counter.join();
    const answer = this.#known.get(key) ?? (await this.#complete(request));
    this.#known.set(key, answer);
    return answer;
  };
}

export interface EpisodesToTime {
  places: readonly EpisodePlace[];
  setting: Omit<EpisodeSetting, 'prompts'>;
  tokenizer: ChatTokenizer;
  /** Answers each of their calls. */
  complete: Complete;
  /** Devices that tell their episodes to each other. */
  devices: number;
  /** Whether filler shows what grading takes: not of programs, whose sandbox waits for real ones, nor of a user's grader. */
  graded: boolean;
}

/**
 * Seconds of workflows, templates, tokenizer, grading. `clock` gives seconds. As a run's later steps do, they find their code
 * compiled where they have run before.
 */
export async function timeEpisodes(
  { places, setting, tokenizer, complete, devices, graded }: EpisodesToTime,
  clock: () => number,
): Promise<number> {
  const started = clock();
  const prompts = new PromptEncoder(tokenizer);
  const episodes = await runEpisodes(places, { ...setting, prompts }, () => complete);
  if (graded) await gradeEpisodes(episodes, setting.task);
  for (let i = 1; i < devices; i++) deserialize(serialize(episodes));
  return clock() - started;
}
