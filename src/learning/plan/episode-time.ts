/** How long a step's episodes take where their calls are answered at once, or once something else has been done for them. */
import type { Completion, CompletionRequest } from '../../engine/types.js';
import { type ChatTokenizer, PromptEncoder } from '../../rollout/conversation.js';
import {
  type Complete,
  type EpisodePlace,
  type EpisodeSetting,
  runEpisodes,
  type UngradedEpisode,
} from '../../rollout/episode.js';
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
  /** Tells them to the other devices, and hears of theirs. */
  tell(episodes: UngradedEpisode[]): Promise<unknown>;
  /** Whether filler shows what grading takes: not of programs, whose sandbox waits for real ones, nor of a user's grader. */
  graded: boolean;
}

/** What is done for a call before it has its answer. */
export type BeforeAnswer = (request: CompletionRequest, answer: Completion) => Promise<unknown>;

/**
 * Seconds of workflows, templates, tokenizer, grading, and of what is waited for before an answer. `clock` gives seconds. As
 * a run's later steps do, they find their code compiled where they have run before.
 */
export async function timeEpisodes(
  { places, setting, tokenizer, complete, tell, graded }: EpisodesToTime,
  clock: () => number,
  before?: BeforeAnswer,
): Promise<number> {
  const answered: Complete = async (request) => {
    const answer = await complete(request);
    await before?.(request, answer);
    return answer;
  };
  const started = clock();
  const prompts = new PromptEncoder(tokenizer);
  const episodes = await runEpisodes(places, { ...setting, prompts }, () => answered);
  if (graded) await gradeEpisodes(episodes, setting.task);
  await tell(episodes);
  return clock() - started;
}
