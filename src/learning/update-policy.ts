/** One step's updates of one policy: credited calls in, the engine's results out. */
import type { GroupKey, RunConfig } from '../config/schema.js';
import type { Ranks } from '../engine/ranks.js';
import type { TrainCall, TrainRequest, TrainResult } from '../engine/types.js';
import { assignGroups, type Group, groupName } from '../gradients/groups.js';
import type { ResolvedPolicy } from '../policies/routing.js';
import { roleSampling } from '../policies/sampling.js';
import type { CreditedCall } from './credit.js';
import type { OpenLoss } from './losses.js';
import { methodOf } from './method.js';
import { scheduleFactor } from './schedule.js';
import { asTrainCall, rankByRows } from './train-calls.js';
import type { StepOptions, Trainer } from './trainer.js';
import {
  changesGradient,
  interventionRequest,
  interventionsOf,
  klCoefficient,
  policyRate,
} from './treatment.js';
import { planUpdates, type Update, type WeightedCall } from './update-plan.js';

/** What one optimizer step did. */
export interface PolicyUpdate {
  policy: string;
  /** Index of the optimizer step within the step. */
  index: number;
  /** Every call that it is about, those without a backward pass included. */
  calls: readonly CreditedCall[];
  /** Gradient groups that occur among them, and each call's index into them. */
  groups: Group[];
  membership: number[];
  /** Bucket of prompts of each group, where the noise floor is measured: groups then come once for each. */
  prompts?: { buckets: number; of: number[] };
  update: Update;
  result: TrainResult;
  learningRate: number;
}

interface Grouped {
  groups: Group[];
  membership: number[];
  prompts?: { buckets: number; of: number[] };
}

/** Groups of the calls of an update; with buckets of prompts, those of the same group one after another. */
function groupCalls(calls: readonly CreditedCall[], keys: readonly GroupKey[], buckets: number): Grouped {
  const { groups, membership } = assignGroups(
    calls.map(({ call }) => call),
    keys,
  );
  if (buckets === 0) return { groups, membership };
  return {
    groups: groups.flatMap((group) => new Array<Group>(buckets).fill(group)),
    membership: membership.map((k, i) => k * buckets + ((calls[i]?.episode.problemIndex ?? 0) % buckets)),
    prompts: { buckets, of: groups.flatMap(() => Array.from({ length: buckets }, (_, b) => b)) },
  };
}

function groupKeys({ config }: Trainer, policy: ResolvedPolicy, step: number): GroupKey[] {
  const { groups, everySteps } = config.gradients;
  const fine = step % everySteps === 0;
  const keys: GroupKey[] = fine ? groups : groups.filter((key) => key === 'role');
  if (keys.length > 0 && (keys.includes('role') || !changesGradient(config.interventions, policy)))
    return keys;
  return ['role', ...keys];
}

/** Slots of each role that the calls come from. */
function slotsOf(calls: readonly CreditedCall[]): Map<string, number> {
  const slots = new Map<string, Set<number>>();
  for (const { call } of calls) slots.set(call.role, (slots.get(call.role) ?? new Set()).add(call.slot));
  return new Map([...slots].map(([role, its]) => [role, its.size]));
}

function toTrainCall(credited: WeightedCall, group: number, kl: number): TrainCall {
  const { advantage, weight, oldLogprobs } = credited;
  return { ...asTrainCall(credited.call), advantage, weight, group, kl, ...(oldLogprobs && { oldLogprobs }) };
}

/**
 * The updates after the first compare with the trainer as it was before that: with log p of their calls as it is now. The
 * first one compares with its own.
 */
async function withOldLogprobs(
  { engine, config, betweenSteps, ranks }: Trainer,
  policy: ResolvedPolicy,
  updates: readonly Update[],
  signal: AbortSignal | undefined,
): Promise<Update[]> {
  const [first, ...later] = updates;
  if (first === undefined || later.length === 0 || config.learning.oldLogprobs === 'rollout')
    return [...updates];
  const { microBatchRows } = config.learning;
  const calls = later.flatMap(({ trained, mismatchOnly }) => [...trained, ...mismatchOnly]);
  const logprobs = await ranks.each(`log p of ${policy.name}`, calls, rankByRows(ranks, calls), (own) => {
    const request = { policy: policy.name, calls: own.map(({ call }) => asTrainCall(call)), microBatchRows };
    return engine.send('logprobs', { ...request, under: 'policy' }, betweenSteps ? undefined : signal);
  });
  const measured = logprobs.values();
  const withOld = (one: WeightedCall): WeightedCall => {
    const { value } = measured.next();
    return value === undefined ? one : { ...one, oldLogprobs: value };
  };
  return [
    first,
    ...later.map((update) => ({
      ...update,
      trained: update.trained.map(withOld),
      mismatchOnly: update.mismatchOnly.map(withOld),
    })),
  ];
}

/** Tokens that a constant aggregation divides by. */
function constantLength(
  { length }: OpenLoss,
  rollout: RunConfig['rollout'],
  { roles }: ResolvedPolicy,
): number {
  if (length !== 'auto') return length;
  return Math.max(...roles.map((role) => roleSampling(rollout, role, {}).maxTokens));
}

export interface UpdatePlace extends Pick<StepOptions, 'signal' | 'onProgress'> {
  step: number;
}

/**
 * Runs the step's updates of `policy` on its calls. A policy that is frozen or has no calls makes none; one whose
 * calls all have advantage 0 still steps its optimizer, as a loss of zero would.
 */
export async function updatePolicy(
  trainer: Trainer,
  policy: ResolvedPolicy,
  calls: readonly CreditedCall[],
  { step, signal, onProgress }: UpdatePlace,
): Promise<PolicyUpdate[]> {
  const { config, engine, ranks } = trainer;
  const { loss } = methodOf(trainer);
  const withResponse = calls.filter(({ call }) => call.completion.ids.length > 0);
  const isFrozen = (role: string) => interventionsOf(config.interventions, role).freeze;
  if (policy.freeze || withResponse.every(({ call }) => isFrozen(call.role))) return [];
  const keys = groupKeys(trainer, policy, step);
  const { everySteps, promptBuckets, method, sketch } = config.gradients;
  const buckets = step % everySteps === 0 ? promptBuckets : 0;
  const { rateFactor } = trainer.state;
  const learningRate =
    policy.learningRate *
    policyRate(config.interventions, policy) *
    rateFactor *
    scheduleFactor(config.learning.schedule, step, config.steps, trainer.open.workflow.roles.length);
  const { kl, entropy, oldLogprobs: old, importance } = config.learning;
  const klOf = (role: string) => (kl.in === 'loss' ? klCoefficient(config, role) : 0);
  const length = constantLength(loss, config.rollout, policy);
  const options = { ...config.learning, loss, length, klOf, isFrozen };
  const planned = await withOldLogprobs(
    trainer,
    policy,
    planUpdates(withResponse, options, policy.roles.length),
    signal,
  );
  const updates: PolicyUpdate[] = [];
  for (const [index, update] of planned.entries()) {
    const grouped = groupCalls(update.calls, keys, buckets);
    const { groups, membership } = grouped;
    const groupOfCall = new Map(update.calls.map((call, i) => [call.call, membership[i] ?? 0]));
    const convert = (call: WeightedCall) =>
      toTrainCall(call, groupOfCall.get(call.call) ?? 0, klOf(call.call.role));
    const intervention = interventionRequest(config.interventions, {
      policy,
      groups,
      slotsOf: slotsOf(update.calls),
      key: [config.seed, step, index],
    });
    onProgress?.(`policy ${policy.name}`);
    const request: Omit<TrainRequest, 'calls' | 'mismatchOnly'> = {
      policy: policy.name,
      groups: groups.map(groupName),
      loss: loss.request,
      regularisation: { kl: kl.estimator, entropy },
      reference: policy.roles.some((role) => klOf(role) > 0),
      old,
      ...(importance.level !== 'none' && { importance: { ...importance, level: importance.level } }),
      learningRate,
      clipNorm: policy.clipNorm ?? 0,
      microBatchRows: config.learning.microBatchRows,
      update: true,
      position: { index, of: planned.length },
      statistics: { method, sketch: { ...sketch, seed: config.seed } },
      ...(intervention === undefined ? {} : { intervention }),
    };
    // Once one update is applied, the step can only be finished: parameters are between two steps.
    const train = (own: { calls: TrainCall[]; mismatchOnly: TrainCall[] }) => {
      return engine.send('train', { ...request, ...own }, trainer.betweenSteps ? undefined : signal);
    };
    const result = await trainOnRanks(ranks, policy.name, update, convert, train);
    trainer.betweenSteps = true;
    const { calls } = update;
    updates.push({ policy: policy.name, index, calls, ...grouped, update, result, learningRate });
  }
  return updates;
}

/** Every rank trains on its share of the calls; what comes of it is the same on all, and so are its calls. */
async function trainOnRanks(
  ranks: Ranks,
  policy: string,
  { trained, mismatchOnly }: Update,
  convert: (call: WeightedCall) => TrainCall,
  train: (own: { calls: TrainCall[]; mismatchOnly: TrainCall[] }) => Promise<TrainResult>,
): Promise<TrainResult> {
  let result: TrainResult | undefined;
  const all = [...trained, ...mismatchOnly];
  const measuredOnly = new Set(mismatchOnly);
  // Forward and twice backward, or forward alone.
  const rankOf = rankByRows(ranks, all, (call) => (measuredOnly.has(call) ? 1 : 3));
  const isOwn = (call: WeightedCall) => rankOf(call) === ranks.rank;
  const calls = await ranks.each(`update of ${policy}`, all, rankOf, async () => {
    result = await train({
      calls: trained.filter(isOwn).map(convert),
      mismatchOnly: mismatchOnly.filter(isOwn).map(convert),
    });
    return result.calls;
  });
  return { ...(result as unknown as TrainResult), calls };
}
