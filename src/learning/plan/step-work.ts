/** What one step of a run asks of a device: operations and bytes by phase, and the memory that it needs. */
import type { RunConfig } from '../../config/schema.js';
import { microBatches } from '../../engine/micro-batches.js';
import type { NativeModelConfig } from '../../engine/native.js';
import type { PolicyParameters } from '../../engine/protocol.js';
import type { TrainCall } from '../../engine/types.js';
import { assignGroups } from '../../gradients/groups.js';
import type { ResolvedPolicy } from '../../policies/routing.js';
import type { RoleCall } from '../../workflows/types.js';
import type { DecodeWork } from './decode-schedule.js';
import {
  cachedOfToken,
  headWeights,
  keptOfRow,
  linearWeights,
  modelParameters,
  trainedParameters,
} from './model-size.js';
import type { PlannedStep } from './planned-calls.js';
import { groupedRows } from './prefix-rows.js';

/** A part of the step. Everything is for all of its repetitions together. */
export interface Work {
  name: string;
  /** Floating-point operations of matrix products, and of attention. */
  products: number;
  attention: number;
  /** Bytes that memory-bound kernels move. */
  bytes: number;
  /** Bytes of weights that products of few rows wait for: what bounds them instead where that takes longer. */
  weightBytes: number;
  /** Kernels that a device launches one after another. */
  launches: number;
}

export interface MemoryPart {
  name: string;
  bytes: number;
}

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
  work: Work[];
  /** Between `devices`; empty for one. */
  exchanges: Exchange[];
  devices: number;
  cache: CacheWork;
  /** Held all the time, then the larger of what rollout (the cache aside) and training add. */
  held: MemoryPart[];
  rollout: MemoryPart[];
  training: MemoryPart[];
  /** Rows of the largest micro-batch, of all, tokens of the calls without sharing. */
  rows: { largest: number; computed: number; seen: number };
}

type Settings = Pick<RunConfig, 'model' | 'rollout' | 'learning' | 'gradients'>;

const BYTES = { bfloat16: 2, float32: 4, float64: 8 };
/** Loss entries whose logits exist at a time. */
const CHUNK = 1024;
/** Positions of a page of the cache. */
const PAGE = 16;

interface PolicyWork {
  policy: ResolvedPolicy;
  parameters: PolicyParameters;
  groups: number;
  batches: { rows: number; keys: number; entries: number }[];
  seen: number;
  updates: number;
}

export function parametersOf(policy: ResolvedPolicy): PolicyParameters {
  return policy.parameters === 'lora' ? { kind: 'lora', ...policy.lora } : { kind: 'full' };
}

/** Every call counts as trained: which advantages will be zero, nobody knows. */
function policyWork(policy: ResolvedPolicy, calls: readonly RoleCall[], settings: Settings): PolicyWork {
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
  const batches = microBatches(trained, settings.learning.microBatchRows).map((part) => ({
    ...groupedRows(part),
    entries: part.reduce((sum, { response }) => sum + response.length, 0),
  }));
  const seen = trained.reduce((sum, { prompt, response }) => sum + prompt.length + response.length, 0);
  return {
    policy,
    parameters: parametersOf(policy),
    groups: groups.length,
    batches,
    seen,
    updates: { one: 1, policy: miniBatches, matched: miniBatches * policy.roles.length }[updates],
  };
}

const sum = <T>(items: readonly T[], of: (item: T) => number) =>
  items.reduce((total, item) => total + of(item), 0);

export function stepWork(config: NativeModelConfig, settings: Settings, step: PlannedStep): StepWork {
  const policies = step.policies
    .map((policy) => policyWork(policy, step.calls, settings))
    .filter(({ batches, policy }) => batches.length > 0 && !policy.freeze);
  const size = BYTES[settings.model.dtype];
  const rows = policies.flatMap(({ batches }) => batches.map((batch) => batch.rows));
  return {
    work: [
      prefill(config, step.decode, size),
      decode(config, step.decode, size),
      ...policies.map((one) => training(config, one, size)),
      ...policies.map((one) => updating(config, one, size, step.devices)),
    ],
    exchanges: step.devices === 1 ? [] : exchanges(config, policies, step, size),
    devices: step.devices,
    cache: {
      token: cachedOfToken(config) * size,
      tokens: step.decode.cachedTokens,
      limit: settings.rollout.cacheBytes,
      most: settings.rollout.maxBatch * (PAGE + PAGE * Math.ceil(config.maxPositions / PAGE)),
    },
    held: held(config, step.policies, size, step.devices),
    rollout: rolloutMemory(config, settings, step.decode, size),
    training: trainingMemory(config, policies, size),
    rows: {
      largest: Math.max(0, ...rows),
      computed: sum(rows, (n) => n),
      seen: sum(policies, ({ seen }) => seen),
    },
  };
}

/** Elements that the memory-bound kernels of a row and layer move, forward (norms, rotation, SwiGLU, residuals). */
function forwardElements({
  hiddenSize,
  heads,
  kvHeads,
  headDim,
  intermediateSize,
}: NativeModelConfig): number {
  return 10 * hiddenSize + 2 * (heads + 2 * kvHeads) * headDim + 3 * intermediateSize;
}
/** The same of the backward pass, what it computes again included. */
function backwardElements({
  hiddenSize,
  heads,
  kvHeads,
  headDim,
  intermediateSize,
}: NativeModelConfig): number {
  return 12 * hiddenSize + 4 * (heads + 2 * kvHeads) * headDim + 8 * intermediateSize;
}
const attentionOf = ({ layers, heads, headDim }: NativeModelConfig) => layers * heads * headDim;
/** Kernels of a layer in a decode step, and in a micro-batch's two passes. */
const DECODE_LAUNCHES = 12;
const TRAINING_LAUNCHES = 70;

function prefill(config: NativeModelConfig, { prefillRows, prefillKeys }: DecodeWork, size: number): Work {
  return {
    name: 'prefill',
    products: 2 * linearWeights(config) * prefillRows,
    attention: 4 * attentionOf(config) * prefillKeys,
    bytes: config.layers * forwardElements(config) * size * prefillRows,
    weightBytes: 0,
    launches: 0,
  };
}

function decode(config: NativeModelConfig, { phases }: DecodeWork, size: number): Work {
  const weights = linearWeights(config) + headWeights(config);
  const steps = sum(phases, (phase) => phase.steps);
  const tokens = sum(phases, (phase) => phase.steps * phase.sequences);
  const context = sum(phases, (phase) => phase.steps * phase.context);
  return {
    name: 'decode',
    products: 2 * weights * tokens,
    attention: 0,
    // Keys and values once for all who share them; logits are written, read and read again by the sampler.
    bytes:
      cachedOfToken(config) * size * context +
      (config.layers * forwardElements(config) * size + 12 * config.vocabularySize) * tokens,
    weightBytes: weights * size * steps,
    launches: steps * config.layers * DECODE_LAUNCHES,
  };
}

function training(
  config: NativeModelConfig,
  { policy, parameters, batches }: PolicyWork,
  size: number,
): Work {
  const rows = sum(batches, (batch) => batch.rows);
  const entries = sum(batches, (batch) => batch.entries);
  // Forward, the gradient of the input, the gradient of the weight.
  const passes = parameters.kind === 'full' ? 3 : 2;
  const adapter = parameters.kind === 'lora' ? 3 * trainedParameters(config, parameters) : 0;
  return {
    name: `training ${policy.name}`,
    products:
      2 * (passes * linearWeights(config) + adapter) * rows +
      // The backward pass computes the logits again.
      2 * (passes + 1) * headWeights(config) * entries,
    attention: 14 * attentionOf(config) * sum(batches, (batch) => batch.keys),
    bytes:
      config.layers * (forwardElements(config) + backwardElements(config)) * size * rows +
      24 * config.vocabularySize * entries,
    weightBytes: 0,
    launches: batches.length * config.layers * TRAINING_LAUNCHES,
  };
}

/**
 * Statistics and the optimizer: the accumulators zeroed, then, in the device's part (ZeRO-1), read twice, the masters and
 * moments once each way.
 */
function updating(
  config: NativeModelConfig,
  { policy, parameters, groups, updates }: PolicyWork,
  size: number,
  devices: number,
): Work {
  const trained = trainedParameters(config, parameters);
  const wide = Math.max(4, size);
  return {
    name: `update ${policy.name}`,
    products: 0,
    attention: 0,
    bytes: updates * trained * (wide * groups + (wide * (2 * groups + 12) + size) / devices),
    weightBytes: 0,
    launches: 0,
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

/** Weights, and this device's part of masters and moments. */
function held(
  config: NativeModelConfig,
  policies: readonly ResolvedPolicy[],
  size: number,
  devices: number,
): MemoryPart[] {
  const shared = policies.some(({ parameters, freeze }) => parameters === 'lora' || freeze);
  const base = shared ? [{ name: 'model', bytes: modelParameters(config) * size }] : [];
  const own = policies
    .filter(({ parameters, freeze }) => parameters === 'lora' || !freeze)
    .map((policy) => {
      const wide = Math.max(4, size);
      const trained = trainedParameters(config, parametersOf(policy));
      const master = size < wide ? wide : 0;
      const moments = 2 * wide;
      const state = policy.freeze ? 0 : (master + moments) / devices;
      return { name: `policy ${policy.name}`, bytes: trained * (size + state) };
    });
  return [...base, ...own];
}

function rolloutMemory(
  config: NativeModelConfig,
  { rollout }: Settings,
  { phases }: DecodeWork,
  size: number,
): MemoryPart[] {
  const sequences = Math.max(0, ...phases.map((phase) => phase.sequences));
  const rows = Math.max(sequences, rollout.prefillTokens);
  const { hiddenSize, heads, kvHeads, headDim, intermediateSize } = config;
  const row = 4 * hiddenSize + 2 * (heads + 2 * kvHeads) * headDim + 3 * intermediateSize;
  return [{ name: 'a decode step', bytes: rows * row * size + 2 * 4 * sequences * config.vocabularySize }];
}

/** Accumulators of the policy that is updated, what its largest micro-batch keeps, and what one layer needs at a time. */
function trainingMemory(
  config: NativeModelConfig,
  policies: readonly PolicyWork[],
  size: number,
): MemoryPart[] {
  const needs = policies.map(({ parameters, groups, batches }) => {
    const rows = Math.max(...batches.map((batch) => batch.rows));
    const entries = Math.max(...batches.map((batch) => batch.entries));
    const { hiddenSize, intermediateSize, heads, kvHeads, headDim } = config;
    const layer = 3 * hiddenSize + 2 * (heads + 2 * kvHeads) * headDim + 4 * intermediateSize;
    const chunk = Math.min(CHUNK, entries);
    return [
      { name: 'gradients', bytes: trainedParameters(config, parameters) * Math.max(4, size) * groups },
      { name: 'activations', bytes: config.layers * keptOfRow(config, parameters) * rows * size },
      { name: 'a layer at work', bytes: rows * layer * size },
      { name: 'logits of a chunk', bytes: chunk * config.vocabularySize * (4 + size) },
    ];
  });
  const total = (parts: readonly MemoryPart[]) => sum(parts, ({ bytes }) => bytes);
  return needs.toSorted((a, b) => total(b) - total(a))[0] ?? [];
}
