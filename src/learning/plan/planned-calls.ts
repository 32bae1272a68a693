/**
 * The calls of one step, made by the workflow itself on the task's own problems, with filler in the place of every
 * response: prompts have the lengths that they would have in a run whose responses are as long.
 */
import type { RunConfig } from '../../config/schema.js';
import type { CompletionRequest } from '../../engine/types.js';
import { type ResolvedPolicy, resolvePolicies } from '../../policies/routing.js';
import { type ChatTokenizer, PromptEncoder } from '../../rollout/conversation.js';
import { runEpisodes } from '../../rollout/episode.js';
import { createTask } from '../../tasks/registry.js';
import type { Task } from '../../tasks/types.js';
import { openWorkflow } from '../../workflows/registry.js';
import type { RoleCall } from '../../workflows/types.js';
import { brokenOff, throwIfAllBrokeOff } from '../notices.js';
import { DecodeSchedule, type DecodeWork } from './decode-schedule.js';

const FILLER =
  'First I look at what is given and what is asked, then I work it out step by step and check the result. ';

/** A tokenizer where there is none: a token for every four characters, as English has in large vocabularies. */
export const estimatedTokenizer: ChatTokenizer = {
  renderChat: (messages) => ({
    text: `${messages.map(({ role, content }) => `<|${role}|>\n${content}\n`).join('')}<|assistant|>\n`,
    literal: new Set(),
  }),
  encode: (text) => estimatedIds(text),
  encodePlain: (text) => estimatedIds(text),
  // Texts of different responses differ from the start, or the prompts that quote them would be shared.
  decode: (ids) => {
    const own = Array.from(ids).reduce((hash, id) => (Math.imul(hash, 31) + id) >>> 0, 7);
    const text = `${own.toString(36)} ${FILLER.repeat(Math.ceil((4 * ids.length) / FILLER.length))}`;
    return text.slice(0, 4 * ids.length);
  },
};

function estimatedIds(text: string): Int32Array {
  return Int32Array.from({ length: Math.ceil(text.length / 4) }, (_, i) => {
    const part = text.slice(4 * i, 4 * i + 4);
    return [...part].reduce((hash, character) => (hash * 31 + (character.codePointAt(0) ?? 0)) >>> 1, 7);
  });
}

/** Response ids that differ almost from their first token on, of a text that has as many. */
function filler(tokenizer: ChatTokenizer): (length: number) => Int32Array {
  let responses = 0;
  return (length) => {
    responses++;
    const text = `${responses} ${FILLER.repeat(1 + Math.ceil((8 * length) / FILLER.length))}`;
    return tokenizer.encodePlain(text).slice(0, length);
  };
}

export interface PlannedStep {
  calls: RoleCall[];
  policies: ResolvedPolicy[];
  decode: DecodeWork;
  /** The devices that the step is divided among, and how much of it is the calls': a whole number of problems. */
  devices: number;
  share: number;
  /** Episodes that broke off, and why. */
  broken: string | undefined;
}

export interface PlanOptions {
  /**
   * Of every response; of several, each response has the next one, from the first again after the last, so that they stand
   * for how lengths are distributed. Never more than its role may have, and left out: as many.
   */
  responseTokens?: readonly number[] | undefined;
  /** Default: one. */
  devices?: number;
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
  { responseTokens, devices = 1 }: PlanOptions,
): Promise<PlannedStep> {
  const open = await openWorkflow(config.workflow, task.kind);
  const policies = resolvePolicies(config.policies, open.workflow.roles);
  const { promptsPerStep, episodesPerPrompt, maxBatch, prefillTokens } = config.rollout;
  const fill = filler(tokenizer);
  let responses = 0;
  const respond = ({ sampling: { maxTokens } }: CompletionRequest) => {
    const wanted = responseTokens?.[responses++ % responseTokens.length];
    return fill(Math.min(maxTokens, wanted ?? maxTokens));
  };
  const own = new Set(
    policies.filter(({ parameters, freeze }) => parameters === 'full' && !freeze).map(({ name }) => name),
  );
  const schedule = new DecodeSchedule(respond, {
    maxBatch,
    prefillTokens,
    baseOf: (policy) => (own.has(policy) ? policy : ''),
  });
  // The first rank has each `devices`th problem from the first on, and so as many as any.
  const problems = Math.ceil(promptsPerStep / devices);
  const places = Array.from({ length: problems * episodesPerPrompt }, (_, i) => {
    const [problemIndex, sample] = [devices * Math.floor(i / episodesPerPrompt), i % episodesPerPrompt];
    const problem = task.train(config.seed, problemIndex);
    return { problem, step: 0, problemIndex, sample, index: problemIndex * episodesPerPrompt + sample };
  });
  const setting = { open, task, policies, rollout: config.rollout, prompts: new PromptEncoder(tokenizer) };
  const episodes = await runEpisodes(places, setting, () => (request) => schedule.complete(request));
  throwIfAllBrokeOff(episodes, 'the planned step');
  return {
    calls: episodes.flatMap(({ calls }) => calls),
    policies,
    decode: schedule.work,
    devices,
    share: problems / promptsPerStep,
    broken: brokenOff(episodes),
  };
}
