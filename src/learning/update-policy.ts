/** One step's updates of one policy: credited calls in, the engine's results out. */
import type { GroupKey, RunConfig } from '../config/schema.js';
import type { Ranks } from '../engine/ranks.js';
import type { CallStatistics, TrainCall, TrainRequest, TrainResult } from '../engine/types.js';
import { assignGroups, type Group, groupName } from '../gradients/groups.js';
import type { ResolvedPolicy } from '../policies/routing.js';
import { roleSampling } from '../policies/sampling.js';
import type { OpenLoss } from './losses.js';
import { methodOf } from './method.js';
import { scheduleFactor } from './schedule.js';
import {
  byPlace,
  type CreditedCall,
  type PlannedCall,
  problemOf,
  type StepCall,
  type TrainedCall,
} from './step-call.js';
import { asTrainCall, logprobsOf, rankByRows } from './train-calls.js';
import type { StepOptions, Trainer } from './trainer.js';
import {
  changesGradient,
  interventionRequest,
  interventionsOf,
  klCoefficient,
  policyRate,
} from './treatment.js';
import { planUpdates, type Update } from './update-plan.js';

/** What one optimizer step did. */
export interface PolicyUpdate extends Omit<Update, 'calls'>, GradientGroups {
  policy: string;
  /** Every call that it is about, those without a backward pass included. */
  calls: TrainedCall[];
  result: Omit<TrainResult, 'calls'>;
  learningRate: number;
}

interface GradientGroups {
  /** Gradient groups that occur among the calls. */
  groups: Group[];
  /** Bucket of prompts of each group, where the noise floor is measured: groups then come once for each. */
  prompts?: { buckets: number; of: number[] };
}

/** A call with the index of its gradient group. */
type GradientCall = PlannedCall & Pick<TrainedCall, 'gradientGroup'>;

/** Gradient groups of the calls of an update; with buckets of prompts, those of the same group one after another. */
function withGradientGroups(
  calls: readonly PlannedCall[],
  keys: readonly GroupKey[],
  buckets: number,
): GradientGroups & { calls: GradientCall[] } {
  const { groups, membership } = assignGroups(
    calls.map(({ call }) => call),
    keys,
  );
  const grouped = calls.map((call, i) => ({ ...call, gradientGroup: membership[i] ?? 0 }));
  if (buckets === 0) return { groups, calls: grouped };
  return {
    groups: groups.flatMap((group) => new Array<Group>(buckets).fill(group)),
    calls: grouped.map((one) => ({
      ...one,
      gradientGroup: one.gradientGroup * buckets + (problemOf(one) % buckets),
    })),
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

/**
 * The updates after the first compare with the trainer as it was before that: with log p of their calls as it is now. The
 * first one compares with its own.
 */
async function withOldLogprobs(
  trainer: Trainer,
  policy: ResolvedPolicy,
  updates: readonly Update[],
  signal: AbortSignal | undefined,
): Promise<Update[]> {
  const [first, ...later] = updates;
  if (first === undefined || later.length === 0 || trainer.config.learning.oldLogprobs === 'rollout')
    return [...updates];
  const calls = later.flatMap((update) => update.calls).filter(({ pass }) => pass !== 'none');
  const logprobs = await logprobsOf(trainer, policy.name, calls, {
    under: 'policy',
    signal: trainer.betweenSteps ? undefined : signal,
  });
  const measured = calls.map((one, i) => ({ ...one, oldLogprobs: logprobs[i] as Float32Array }));
  return [
    first,
    ...later.map((update) => ({
      ...update,
      calls: [
        ...update.calls.filter(({ pass }) => pass === 'none'),
        ...measured.filter((one) => one.update === update.index),
      ].sort(byPlace),
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

/** What a step made of one policy, and every call of it. */
export interface UpdatedPolicy {
  updates: PolicyUpdate[];
  calls: StepCall[];
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
): Promise<UpdatedPolicy> {
  const { config } = trainer;
  const hasResponse = ({ call }: CreditedCall) => call.completion.ids.length > 0;
  const withResponse = calls.filter(hasResponse);
  const isFrozen = (role: string) => interventionsOf(config.interventions, role).freeze;
  if (policy.freeze || withResponse.every(({ call }) => isFrozen(call.role)))
    return { updates: [], calls: [...calls] };
  const { loss } = methodOf(trainer);
  const length = constantLength(loss, config.rollout, policy);
  const options = { ...config.learning, loss, length, klOf: (role: string) => klOf(config, role), isFrozen };
  const plan = planUpdates(withResponse, options, policy.roles.length);
  const planned = await withOldLogprobs(trainer, policy, plan, signal);
  const updates: PolicyUpdate[] = [];
  for (const update of planned) {
    onProgress?.(`policy ${policy.name}`);
    // Once one update is applied, the step can only be finished: parameters are between two steps.
    const place = { step, of: planned.length, signal: trainer.betweenSteps ? undefined : signal };
    updates.push(await runUpdate(trainer, policy, update, place));
    trainer.betweenSteps = true;
  }
  const trained = updates.flatMap((update) => update.calls);
  return { updates, calls: [...calls.filter((one) => !hasResponse(one)), ...trained] };
}

const klOf = (config: RunConfig, role: string) =>
  config.learning.kl.in === 'loss' ? klCoefficient(config, role) : 0;

interface UpdateRun {
  step: number;
  /** Updates of the policy in this step of the run. */
  of: number;
  signal: AbortSignal | undefined;
}

async function runUpdate(
  trainer: Trainer,
  policy: ResolvedPolicy,
  update: Update,
  { step, of, signal }: UpdateRun,
): Promise<PolicyUpdate> {
  const { config, engine } = trainer;
  const { everySteps, promptBuckets, method, sketch } = config.gradients;
  const { kl, entropy, oldLogprobs: old, importance, schedule, microBatchRows } = config.learning;
  const buckets = step % everySteps === 0 ? promptBuckets : 0;
  const grouped = withGradientGroups(update.calls, groupKeys(trainer, policy, step), buckets);
  const learningRate =
    policy.learningRate *
    policyRate(config.interventions, policy) *
    trainer.state.rateFactor *
    scheduleFactor(schedule, step, config.steps, trainer.open.workflow.roles.length);
  const intervention = interventionRequest(config.interventions, {
    policy,
    groups: grouped.groups,
    slotsOf: slotsOf(update.calls),
    key: [config.seed, step, update.index],
  });
  const request: Omit<TrainRequest, 'calls' | 'mismatchOnly'> = {
    policy: policy.name,
    groups: grouped.groups.map(groupName),
    loss: methodOf(trainer).loss.request,
    regularisation: { kl: kl.estimator, entropy },
    reference: policy.roles.some((role) => klOf(config, role) > 0),
    old,
    ...(importance.level !== 'none' && { importance: { ...importance, level: importance.level } }),
    learningRate,
    clipNorm: policy.clipNorm ?? 0,
    microBatchRows,
    update: true,
    position: { index: update.index, of },
    statistics: { method, sketch: { ...sketch, seed: config.seed } },
    ...(intervention === undefined ? {} : { intervention }),
  };
  const toTrainCall = (one: GradientCall): TrainCall => {
    const { call, advantage, weight, gradientGroup: group, oldLogprobs } = one;
    const own = { advantage, weight, group, kl: klOf(config, call.role) };
    return { ...asTrainCall(call), ...own, ...(oldLogprobs && { oldLogprobs }) };
  };
  const { calls, result } = await trainOnRanks(trainer.ranks, policy.name, grouped.calls, (own) => {
    const [calls, mismatchOnly] = [passing(own, 'backward'), passing(own, 'forward')];
    const its = { calls: calls.map(toTrainCall), mismatchOnly: mismatchOnly.map(toTrainCall) };
    return engine.send('train', { ...request, ...its }, signal);
  });
  return { ...update, ...grouped, policy: policy.name, calls, result, learningRate };
}

/** Every rank trains on its share of the calls; what comes of it is the same on all, and so is what was measured. */
async function trainOnRanks(
  ranks: Ranks,
  policy: string,
  calls: readonly GradientCall[],
  train: (own: readonly GradientCall[]) => Promise<TrainResult>,
): Promise<Pick<PolicyUpdate, 'calls' | 'result'>> {
  let result: Omit<TrainResult, 'calls'> | undefined;
  // As the engine measures a rank's calls: those with a backward pass first.
  const measured = [...passing(calls, 'backward'), ...passing(calls, 'forward')];
  // Forward and twice backward, each gradient group by itself; or forward alone.
  const rankOf = rankByRows(ranks, measured, ({ pass, gradientGroup: group }) =>
    pass === 'backward' ? { group, passes: 3 } : { group: 0, passes: 1 },
  );
  const statistics = await ranks.each(`update of ${policy}`, measured, rankOf, async (own) => {
    const { calls: its, ...rest } = await train(own);
    result = rest;
    return its;
  });
  if (result === undefined) throw new Error('the update gave no result');
  return {
    calls: [
      ...measured.map((one, i) => ({ ...one, statistics: statistics[i] as CallStatistics })),
      ...passing(calls, 'none'),
    ].sort(byPlace),
    result,
  };
}

const passing = (calls: readonly GradientCall[], pass: PlannedCall['pass']) =>
  calls.filter((one) => one.pass === pass);
