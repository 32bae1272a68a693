/**
 * One episode as a run would have it, with everything that a person wants to see of it: `troupe play`. The roles
 * answer through the engine, or from texts that are given.
 */
import { z } from 'zod';
import { checkSection } from '../config/check.js';
import { TroupeError } from '../config/errors.js';
import { readText } from '../config/json.js';
import { unknownName } from '../config/nearest.js';
import { ownValue } from '../config/own-value.js';
import { yamlOf } from '../config/yaml.js';
import type { CompletionRequest } from '../engine/types.js';
import { type ChatTokenizer, PromptEncoder } from '../rollout/conversation.js';
import { type Complete, runEpisode } from '../rollout/episode.js';
import { gradeEpisodes } from '../rollout/grading.js';
import { isInForm } from '../workflows/in-form.js';
import type { Episode, RoleCall } from '../workflows/types.js';
import type { RunParts } from './trainer.js';

/** Responses by role: a text answers every call of the role, a list its calls in the order of asking. */
export type GivenTexts = Record<string, string | string[]>;

const textsSchema = z
  .record(z.string(), z.union([z.string(), z.array(z.string()).min(1)]))
  .meta({ takes: 'a map from role to a text or a list of texts' });

/** Reads a YAML (or JSON) file of responses. Throws a TroupeError for a role that the workflow lacks. */
export function readTexts(file: string, roles: readonly string[]): GivenTexts {
  const { value } = yamlOf(readText(file), file);
  const texts = checkSection(textsSchema, value, { whole: 'the file', locate: () => file });
  for (const role of Object.keys(texts))
    if (!roles.includes(role)) throw unknownName('role', role, roles, file);
  return texts;
}

/** Answers calls with given texts; their tokens are those of the tokenizer, their log-probabilities 0. */
export class TextAnswers {
  readonly #texts: GivenTexts;
  readonly #roles: readonly string[];
  readonly #chat: ChatTokenizer;
  readonly #file: string;
  readonly #asked = new Map<string, number>();
  readonly #textOf = new Map<Int32Array, string>();

  constructor(texts: GivenTexts, roles: readonly string[], chat: ChatTokenizer, file: string) {
    this.#texts = texts;
    this.#roles = roles;
    this.#chat = chat;
    this.#file = file;
  }

  complete: Complete = async ({ policy, counter }: CompletionRequest) => {
    const [, , roleIndex] = counter;
    const text = this.#next(this.#roles[roleIndex] ?? '');
    const ids = this.#chat.encodePlain(text);
    this.#textOf.set(ids, text);
    const logprobs = new Float32Array(ids.length);
    return { ids, logprobs, finish: 'stop', policy, version: 0, cachedTokens: 0 };
  };

  /** What was given is the response, also where a tokenizer would give other text back. */
  get chat(): ChatTokenizer {
    const { decode } = this.#chat;
    return { ...this.#chat, decode: (ids, special) => this.#textOf.get(ids) ?? decode(ids, special) };
  }

  /** "3 of 5 texts of generator were not asked for", a sentence for each role that has some. */
  unused(): string[] {
    return Object.entries(this.#texts).flatMap(([role, texts]) => {
      const given = typeof texts === 'string' ? 1 : texts.length;
      const left = given - Math.min(given, this.#asked.get(role) ?? 0);
      return left === 0 ? [] : [`${this.#file}: ${left} of ${given} texts of ${role} were not asked for`];
    });
  }

  #next(role: string): string {
    const texts = ownValue(this.#texts, role);
    const asked = this.#asked.get(role) ?? 0;
    this.#asked.set(role, asked + 1);
    const text = typeof texts === 'string' ? texts : texts?.[asked];
    if (text !== undefined) return text;
    const given = texts === undefined ? 'no text' : `${texts.length} texts`;
    throw new TroupeError(`has ${given} for ${role}, which is asked for its text number ${asked + 1}.`, {
      where: this.#file,
    });
  }
}

export interface PlayedCall {
  call: RoleCall;
  /** What the model gets, special tokens included. */
  prompt: string;
  /** What the task reads in the response; undefined: nothing. */
  extracted: string | undefined;
  /** Whether the response has the form that the workflow reads; undefined: the workflow does not say. */
  formed: boolean | undefined;
  /** undefined: the reward function failed. */
  reward: number | undefined;
}

export interface Played {
  episode: Episode;
  calls: PlayedCall[];
  /** Rewards that failed, a sentence each. */
  failed: string[];
}

/**
 * Plays training problem number `index` once, with the random numbers that the problem's first episode has in a run.
 * Throws what a run would throw, save for failed rewards.
 */
export async function play(parts: RunParts, complete: Complete, index: number): Promise<Played> {
  const { config, task, open, policies, chat } = parts;
  const { promptsPerStep, episodesPerPrompt } = config.rollout;
  const problemIndex = index % promptsPerStep;
  const place = {
    problem: task.train(config.seed, index),
    step: Math.floor(index / promptsPerStep),
    problemIndex,
    sample: 0,
    index: problemIndex * episodesPerPrompt,
  };
  const setting = { open, task, policies, rollout: config.rollout, prompts: new PromptEncoder(chat) };
  const [episode] = await gradeEpisodes([await runEpisode(place, setting, complete)], task);
  if (episode === undefined) throw new Error('grading lost the episode');
  const step = { step: place.step, steps: config.steps };
  const rewarded = await parts.rewards.of([episode], step);
  const calls = rewarded.map(({ call, reward }) => ({
    call,
    prompt: chat.decode(call.prompt, true),
    extracted: task.extract(call.text),
    formed: isInForm(open, call.role, call.text, task),
    reward: reward instanceof TroupeError ? undefined : reward,
  }));
  // A role whose every call failed stops a run; here it is something to look at.
  const failed = rewarded.flatMap(({ reward }) => (reward instanceof TroupeError ? [reward.message] : []));
  return { episode, calls, failed };
}
