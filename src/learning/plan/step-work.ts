/** What one step of a run asks of a device: what is computed and exchanged, and the memory that it needs. */
import type { RunConfig } from '../../config/schema.js';
import { native } from '../../engine/native.js';
import { adapterRoom, type NativeModelConfig } from '../../engine/native-model.js';
import type { PolicyParameters } from '../../engine/protocol.js';
import type { TrainCall } from '../../engine/types.js';
import { assignGroups } from '../../gradients/groups.js';
import { adapterRanks, parametersOf, type ResolvedPolicy } from '../../policies/routing.js';
import type { RoleCall } from '../../workflows/types.js';
import type { DecodeWork } from './decode-schedule.js';
import { cachedOfToken, trainedParameters } from './model-size.js';
import type { PlannedStep } from './planned-calls.js';
import { BYTES, type StepMemory, stepMemory } from './step-memory.js';
import { type Rows, treeRows } from './tree-rows.js';

/** What a device's collectives of the step carry: bytes of whole tensors. */
export interface Exchange {
  name: string;
  /** Summed up so that each device has its part; sent from each to all. */
  reduceScatter: number;
  allGather: number;
}

export interface CacheWork {
  /** Of one token, bytes. */
  token: number;
  /** Tokens of the step, if nothing is dropped. */
  tokens: number;
  /** Bytes that the configuration allows; auto: what is free decides. */
  limit: number | 'auto';
  /** Tokens of as many of the longest sequences as a batch has, which `auto` takes at most. */
  most: number;
}

export interface StepWork {
  decode: DecodeWork;
  /** Those that train. */
  policies: PolicyWork[];
  /** Rows behind each matrix of the base that policies share, for adapters' A. */
  adapterRows: number;
  /** Between `devices`; empty for one. */
  exchanges: Exchange[];
  devices: number;
  cache: CacheWork;
  memory: StepMemory;
  /** Calls of the device, and seconds of its main thread for their episodes. */
  calls: { count: number; seconds: number };
  /** Rows of the largest micro-batch, of all, tokens of the calls without sharing. */
  rows: { largest: number; computed: number; seen: number };
}

type Settings = Pick<RunConfig, 'model' | 'rollout' | 'learning' | 'gradients'>;

/** Positions of a page of the cache. */
const PAGE = 16;

export interface PolicyWork {
  policy: ResolvedPolicy;
  parameters: PolicyParameters;
  groups: number;
  calls: TrainCall[];
  /** Micro-batches of this device. */
  batches: (Rows & { entries: number })[];
  seen: number;
  updates: number;
}

/** Every call counts as trained: which advantages will be zero, nobody knows. */
function policyWork(
  policy: ResolvedPolicy,
  calls: readonly RoleCall[],
  settings: Settings,
  levels: number,
): PolicyWork {
  const { updates, miniBatches } = settings.learning;
  const own = calls.filter((call) => call.policy === policy.name);
  const { groups, membership } = assignGroups(own, settings.gradients.groups);
  const trained = own.map(({ prompt, completion }, i): TrainCall => {
    const response = completion.ids;
    const group = membership[i] ?? 0;
    return {
      prompt,
      response,
      rolloutLogprobs: completion.logprobs,
      temperature: 1,
      advantage: 1,
      weight: 1,
      group,
    };
  });
  const batches = native()
    .microBatches(trained, settings.learning.microBatchRows, levels)
    .map((batch) => {
      const part = batch.calls.flatMap((index) => trained[index] ?? []);
      return { ...treeRows(part, levels), entries: sum(part, ({ response }) => response.length) };
    });
  const seen = trained.reduce((sum, { prompt, response }) => sum + prompt.length + response.length, 0);
  return {
    policy,
    parameters: parametersOf(policy),
    groups: groups.length,
    calls: trained,
    batches,
    seen,
    updates: { one: 1, policy: miniBatches, matched: miniBatches * policy.roles.length }[updates],
  };
}

const sum = <T>(items: readonly T[], of: (item: T) => number) =>
  items.reduce((total, item) => total + of(item), 0);

/** `levels`: that the trees of a batch have at most on the device (CPU_LEVELS, GPU_LEVELS). */
export function stepWork(
  config: NativeModelConfig,
  settings: Settings,
  step: PlannedStep,
  levels: number,
): StepWork {
  const policies = step.policies
    .map((policy) => policyWork(policy, step.calls, settings, levels))
    .filter(({ batches, policy }) => batches.length > 0 && !policy.freeze);
  const size = BYTES[settings.model.dtype];
  const rows = policies.flatMap(({ batches }) => batches.map((batch) => batch.rows));
  return {
    decode: step.decode,
    policies,
    adapterRows: adapterRoom(adapterRanks(step.policies)),
    exchanges: step.devices === 1 ? [] : exchanges(config, policies, step, size),
    devices: step.devices,
    cache: {
      token: cachedOfToken(config) * size,
      tokens: step.decode.cachedTokens,
      limit: settings.rollout.cacheBytes,
      most: settings.rollout.maxBatch * (PAGE + PAGE * Math.ceil(config.maxPositions / PAGE)),
    },
    memory: stepMemory(config, settings, {
      policies: step.policies,
      updates: policies,
      decode: step.decode,
      devices: step.devices,
    }),
    calls: { count: step.calls.length, seconds: step.episodeSeconds },
    rows: {
      largest: Math.max(0, ...rows),
      computed: sum(rows, (n) => n),
      seen: sum(policies, ({ seen }) => seen),
    },
  };
}

/** Tokens, log-probabilities, texts and what training measured of them: bytes of a token in what ranks tell each other. */
const RECORDED = { prompt: 8, response: 20 };

/** Of each update the groups' gradients and the new parameters; of the step its records. */
function exchanges(
  config: NativeModelConfig,
  policies: readonly PolicyWork[],
  { calls }: PlannedStep,
  size: number,
): Exchange[] {
  const ofPolicies = policies.map(({ policy, parameters, groups, updates }) => {
    const trained = updates * trainedParameters(config, parameters);
    return {
      name: `exchange ${policy.name}`,
      reduceScatter: trained * groups * Math.max(4, size),
      allGather: trained * size,
    };
  });
  const prompts = sum(calls, ({ prompt }) => prompt.length);
  const responses = sum(calls, ({ completion }) => completion.ids.length);
  const own = RECORDED.prompt * prompts + RECORDED.response * responses;
  return [...ofPolicies, { name: 'records', reduceScatter: 0, allGather: own }];
}
