/**
 * The calls of one step, made by the workflow itself on the task's own problems, with filler in the place of every
 * response: prompts have the lengths that they would have in a run whose responses are as long.
 */
import { deserialize, serialize } from 'node:v8';
import type { RunConfig } from '../../config/schema.js';
import { type ResolvedPolicy, resolvePolicies } from '../../policies/routing.js';
import { type ChatTokenizer, PromptEncoder } from '../../rollout/conversation.js';
import { runEpisodes } from '../../rollout/episode.js';
import { createTask } from '../../tasks/registry.js';
import type { Task } from '../../tasks/types.js';
import { openWorkflow } from '../../workflows/registry.js';
import type { RoleCall } from '../../workflows/types.js';
import { brokenOff, throwIfAllBrokeOff } from '../notices.js';
import { DecodeSchedule, type DecodeWork, SHARED_BASE } from './decode-schedule.js';
import { type EpisodesToTime, KnownAnswers, timeEpisodes } from './episode-time.js';
import { type ResponseOptions, responder } from './planned-responses.js';

export interface PlannedStep {
  calls: RoleCall[];
  policies: ResolvedPolicy[];
  decode: DecodeWork;
  /** The devices that the step is divided among, and how much of it is the calls': a whole number of problems. */
  devices: number;
  share: number;
  /** Episodes that broke off, and why. */
  broken: string | undefined;
  /** Seconds of the main thread for the episodes; 0 without a clock. */
  episodeSeconds: number;
  /** The episodes, to be run again. Their task is closed. */
  episodes: EpisodesToTime;
}

export interface PlanOptions extends ResponseOptions {
  /** Default: one. */
  devices?: number;
  /** Seconds of this machine's clock, by which the episodes are timed; left out: they are not. */
  clock?: (() => number) | undefined;
}

/** The calls of the device that has most of them. Throws a TroupeError where every episode breaks off. */
export async function planStep(
  config: RunConfig,
  tokenizer: ChatTokenizer,
  options: PlanOptions = {},
): Promise<PlannedStep> {
  const task = await createTask(config.task, { strict: config.strict });
  try {
    return await callsOf(config, task, tokenizer, options);
  } finally {
    await task.close();
  }
}

async function callsOf(
  config: RunConfig,
  task: Task,
  tokenizer: ChatTokenizer,
  { devices = 1, clock, ...responses }: PlanOptions,
): Promise<PlannedStep> {
  const open = await openWorkflow(config.workflow, task.kind);
  const policies = resolvePolicies(config.policies, open.workflow.roles);
  const { promptsPerStep, episodesPerPrompt, maxBatch, prefillTokens } = config.rollout;
  const respond = responder(tokenizer, open.workflow.roles, responses);
  const own = new Set(
    policies.filter(({ parameters, freeze }) => parameters === 'full' && !freeze).map(({ name }) => name),
  );
  const schedule = new DecodeSchedule(respond, {
    maxBatch,
    prefillTokens,
    baseOf: (policy) => (own.has(policy) ? policy : SHARED_BASE),
  });
  // The first rank has each `devices`th problem from the first on, and so as many as any.
  const problems = Math.ceil(promptsPerStep / devices);
  const places = Array.from({ length: problems * episodesPerPrompt }, (_, i) => {
    const [problemIndex, sample] = [devices * Math.floor(i / episodesPerPrompt), i % episodesPerPrompt];
    const problem = task.train(config.seed, problemIndex);
    return { problem, step: 0, problemIndex, sample, index: problemIndex * episodesPerPrompt + sample };
  });
  const setting = { open, task, policies, rollout: config.rollout };
  const { complete } = new KnownAnswers((request) => schedule.complete(request));
  const prompts = new PromptEncoder(tokenizer);
  const episodes = await runEpisodes(places, { ...setting, prompts }, () => complete);
  throwIfAllBrokeOff(episodes, 'the planned step');
  const graded = task.kind === 'math' && 'name' in config.task;
  // Of one device another's episodes are like its own.
  const tell = async (episodes: unknown) => {
    for (let i = 1; i < devices; i++) deserialize(serialize(episodes));
  };
  const again: EpisodesToTime = { places, setting, tokenizer, complete, tell, graded };
  return {
    calls: episodes.flatMap(({ calls }) => calls),
    policies,
    decode: schedule.work,
    devices,
    share: problems / promptsPerStep,
    broken: brokenOff(episodes),
    episodeSeconds: clock === undefined ? 0 : await timeEpisodes(again, clock),
    episodes: again,
  };
}
