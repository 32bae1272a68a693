/**
 * One update of one policy: micro-batches through the model, the loss, and the backward pass that sorts gradients by
 * group. What becomes of the gradients is in update.ts. Runs in the engine worker.
 */
import { append } from '../config/append.js';
import { importanceWeights } from './importance.js';
import type { LossFunction, LossInputs } from './loss.js';
import { made, type NextTurn, type RowLimit } from './memory.js';
import { native } from './native.js';
import type { NativePackedBatch, NativePolicy } from './native-model.js';
import type { PolicyState } from './policy-state.js';
import { regularisers } from './regularisers.js';
import { scope } from './scope.js';
import { noGrad, Tensor } from './tensor.js';
import type { CallStatistics, TrainCall, TrainRequest, TrainResult } from './types.js';
import { finishUpdate } from './update.js';

interface Totals {
  loss: number;
  rows: number[];
  /** Response tokens of each group. */
  tokens: number[];
  tokensSeen: number;
  tokensComputed: number;
  /** Rows that the micro-batches of one group of all calls would have. */
  rowsUngrouped: number;
  forwardSeconds: number;
  backwardSeconds: number;
}

/** Temperature of calls that name none; every `TrainCall` names its own. */
const OTHERWISE = 1;

const seconds = () => performance.now() / 1000;

type PerToken = (call: TrainCall, index: number) => Float32Array | number;

/**
 * One float per response token of the calls for each field, tensors [E] on `device`, and the numbers of the calls' response
 * tokens, `lengths` [calls]: brought there in one copy. E entries.
 */
function perToken<K extends string>(
  calls: readonly TrainCall[],
  fields: Record<K, PerToken>,
  device: string,
): Record<K | 'lengths', Tensor> {
  const lengths = calls.map(({ response }) => response.length);
  const entries = lengths.reduce((sum, length) => sum + length, 0);
  const names = Object.keys(fields) as K[];
  const values = new Float32Array(names.length * entries + calls.length);
  let offset = 0;
  for (const name of names) {
    for (const [i, call] of calls.entries()) {
      const part = fields[name](call, i);
      if (typeof part === 'number') values.fill(part, offset, offset + call.response.length);
      else values.set(part, offset);
      offset += call.response.length;
    }
  }
  values.set(lengths, offset);
  const all = Tensor.from(values, [values.length], { device });
  const parts = names.map((name, i): [string, Tensor] => [name, all.narrow(0, i * entries, entries)]);
  return Object.fromEntries([...parts, ['lengths', all.narrow(0, offset, calls.length)]]) as Record<
    K | 'lengths',
    Tensor
  >;
}

/** What the loss gets of a micro-batch, and the coefficients of the KL term where there is a reference. */
function lossInputs(
  calls: readonly TrainCall[],
  { logprobs, entropy }: { logprobs: Tensor; entropy: Tensor },
  reference: CallStatistics[] | undefined,
  { old = 'rollout', importance }: Pick<TrainRequest, 'old' | 'importance'>,
): { inputs: LossInputs; anchors: Tensor | undefined } {
  const none = 0;
  const { index, referenceLogprobs, anchors, measured, ...given } = perToken(
    calls,
    {
      rolloutLogprobs: (call) => call.rolloutLogprobs,
      measured: (call) => call.oldLogprobs ?? none,
      advantages: (call) => call.advantage,
      weights: (call) => call.weight,
      // A float holds every whole number up to 2²⁴, more calls than a micro-batch has.
      index: (_call, i) => i,
      referenceLogprobs: (_call, i) => reference?.[i]?.logprobs ?? none,
      anchors: (call) => call.kl ?? none,
    },
    logprobs.device,
  );
  // Without an update in between the trainer's are those of this pass.
  const inTrainer = calls.some(({ oldLogprobs }) => oldLogprobs !== undefined) ? measured : logprobs.detach();
  const inputs: LossInputs = {
    ...given,
    logprobs,
    entropy,
    oldLogprobs: old === 'rollout' ? given.rolloutLogprobs : inTrainer,
    referenceLogprobs: reference && referenceLogprobs,
    calls: index.to('int64'),
    callCount: calls.length,
  };
  if (importance !== undefined)
    inputs.advantages = inputs.advantages.mul(importanceWeights(inputs, importance));
  return { inputs, anchors: reference && anchors };
}

/** Splits per-token values into one record per call. */
function splitByCall(batch: NativePackedBatch, logprobs: Tensor, entropy: Tensor): CallStatistics[] {
  const logprobValues = Float32Array.from(logprobs.toArray());
  const entropyValues = Float32Array.from(entropy.toArray());
  return batch.callStarts.slice(0, -1).map((start, i) => ({
    logprobs: logprobValues.slice(start, batch.callStarts[i + 1]),
    entropy: entropyValues.slice(start, batch.callStarts[i + 1]),
  }));
}

function addRows(totals: Totals, calls: readonly TrainCall[], batch: NativePackedBatch): void {
  for (const { group, response } of calls)
    totals.tokens[group] = (totals.tokens[group] ?? 0) + response.length;
  totals.tokensSeen += batch.tokensSeen;
  totals.tokensComputed += batch.rows;
  for (let k = 0; k + 1 < batch.groupRows.length; k++) {
    const rows = (batch.groupRows[k + 1] ?? 0) - (batch.groupRows[k] ?? 0);
    totals.rows[k] = (totals.rows[k] ?? 0) + rows;
  }
}

/** The calls as the prefix trees that the policy's device computes. */
export function packed(policy: NativePolicy, calls: readonly TrainCall[], groups: number): NativePackedBatch {
  return native().pack([...calls], groups, true, policy.treeLevels);
}

const ungrouped = (calls: readonly TrainCall[]) => calls.map((call) => ({ ...call, group: 0 }));

function forwardBackward(
  policy: PolicyState,
  calls: readonly TrainCall[],
  request: TrainRequest,
  loss: LossFunction,
  totals: Totals,
): CallStatistics[] {
  return scope(() => {
    const started = seconds();
    const batch = packed(policy.native, calls, request.groups.length);
    try {
      const reference = request.reference ? measure(policy.reference(), calls) : undefined;
      const outputs = policy.native.tokenLogprobs(batch, OTHERWISE, true);
      const logprobs = Tensor.wrap(outputs.logprobs);
      const entropy = Tensor.wrap(outputs.entropy);
      const { inputs, anchors } = lossInputs(calls, { logprobs, entropy }, reference, request);
      const own = loss(inputs, request.loss.options);
      const added = request.regularisation && regularisers(inputs, anchors, request.regularisation);
      const value = added === undefined ? own : own.add(added);
      totals.loss += value.item();
      const middle = seconds();
      value.backward();
      totals.forwardSeconds += middle - started;
      totals.backwardSeconds += seconds() - middle;
      addRows(totals, calls, batch);
      return splitByCall(batch, logprobs.detach(), entropy.detach());
    } finally {
      batch.dispose();
    }
  });
}

/** Log-probabilities and entropies without gradients, each at its call's temperature, one record per call. */
export function measure(policy: NativePolicy, calls: readonly TrainCall[]): CallStatistics[] {
  if (calls.length === 0) return [];
  return noGrad(() =>
    scope(() => {
      const batch = packed(policy, ungrouped(calls), 1);
      try {
        const outputs = policy.tokenLogprobs(batch, OTHERWISE, false);
        return splitByCall(batch, Tensor.wrap(outputs.logprobs), Tensor.wrap(outputs.entropy));
      } finally {
        batch.dispose();
      }
    }),
  );
}

/** The same for calls of any number, in micro-batches of at most `maxRows` rows; in the order of the calls. */
export async function measureAll(
  policy: NativePolicy,
  calls: readonly TrainCall[],
  { limit, maxRows }: { limit: RowLimit; maxRows: number },
  nextTurn: NextTurn,
): Promise<CallStatistics[]> {
  return await limit.inMicroBatches(ungrouped(calls), maxRows, (part) => measure(policy, part), nextTurn);
}

/**
 * How the groups are sketched; undefined: exact. `auto` looks at nothing that changes from run to run on one device,
 * so that a resumed run measures as the one that it continues; of several, the one with the least memory decides.
 */
function sketchOf(policy: PolicyState, { statistics, groups, intervention }: TrainRequest) {
  if (statistics === undefined || statistics.method === 'exact' || intervention !== undefined)
    return undefined;
  if (statistics.method === 'auto') {
    const bytes = groups.length * policy.trained.size * policy.masterBytes;
    const fits =
      policy.settings.parameters.kind === 'lora' || bytes <= native().deviceMemory(policy.device).limit / 4;
    const [short] = policy.group.sum('memory for gradients', Float64Array.of(fits ? 0 : 1));
    if (short === 0) return undefined;
  }
  const { size, ...sketch } = statistics.sketch;
  const matrices = policy.trained.parameters.filter(({ shape }) => shape.length === 2).length;
  return { ...sketch, size: size === 'auto' ? sketchSize(matrices) : size };
}

/**
 * The relative error of a total falls with size · √matrices, since every matrix has signs of its own: 24 for the 28 of a
 * model of four layers (test/gradients/sketch.test.ts), 8 from the 210 of one of 30 layers on.
 */
export function sketchSize(matrices: number): number {
  return Math.min(24, Math.max(8, Math.round((24 * Math.sqrt(28 / matrices)) / 8) * 8));
}

/** What all ranks' calls came to, each rank having its shard of it: the one place of an update where ranks meet. */
function addRanks(policy: PolicyState, { totals, ...rest }: Gradients): Gradients {
  const { group, trained } = policy;
  const name = `gradients of ${policy.name}`;
  scope(() => {
    group.reduceScatter(name, trained.accumulators().map(Tensor.wrap));
    group.allReduce(name, trained.sketchSums().map(Tensor.wrap));
  });
  const { loss, tokensSeen, tokensComputed, rowsUngrouped, rows, tokens } = totals;
  const own = Float64Array.of(loss, tokensSeen, tokensComputed, rowsUngrouped, ...rows, ...tokens);
  const [ofLoss = 0, seen = 0, computed = 0, ungrouped = 0, ...perGroup] = group.sum(name, own);
  return {
    ...rest,
    totals: {
      ...totals,
      loss: ofLoss,
      tokensSeen: seen,
      tokensComputed: computed,
      rowsUngrouped: ungrouped,
      rows: perGroup.slice(0, rows.length),
      tokens: perGroup.slice(rows.length),
    },
  };
}

/** What the backward passes leave beside the accumulators. */
interface Gradients {
  totals: Totals;
  calls: CallStatistics[];
  /** Of the sketches, if the groups were sketched. */
  replicates: number | undefined;
  memoryRestarts: number;
}

interface Pass {
  policy: PolicyState;
  request: TrainRequest;
  loss: LossFunction;
  nextTurn: NextTurn;
  sketch: ReturnType<typeof sketchOf>;
}

/** Gradients of all calls in their accumulators, from zero, in micro-batches of at most `maxRows`. */
async function accumulate(
  { policy, request, loss, nextTurn, sketch }: Pass,
  maxRows: number,
): Promise<Omit<Gradients, 'memoryRestarts'>> {
  const totals: Totals = {
    loss: 0,
    rows: request.groups.map(() => 0),
    tokens: request.groups.map(() => 0),
    tokensSeen: 0,
    tokensComputed: 0,
    rowsUngrouped: 0,
    forwardSeconds: 0,
    backwardSeconds: 0,
  };
  begin(policy, request.groups.length, sketch);
  const calls = new Array<CallStatistics>(request.calls.length);
  for (const batch of policy.rowLimit.cut(request.calls, maxRows)) {
    const part = batch.calls.flatMap((index) => request.calls[index] ?? []);
    const measured = forwardBackward(policy, part, request, loss, totals);
    for (const [i, index] of batch.calls.entries()) calls[index] = measured[i] as CallStatistics;
    await nextTurn();
  }
  totals.rowsUngrouped = rowsUngrouped(policy.rowLimit, request, maxRows, totals.tokensComputed);
  const limits = { limit: policy.rowLimit, maxRows };
  append(calls, await measureAll(policy.native, request.mismatchOnly, limits, nextTurn));
  return { totals, calls, replicates: sketch?.replicates };
}

/** Rows of the same calls as one group; where levels are few, each group's own trees may take fewer: then so many. */
function rowsUngrouped(
  limit: RowLimit,
  { calls, groups }: TrainRequest,
  maxRows: number,
  grouped: number,
): number {
  if (groups.length === 1) return grouped;
  const rows = limit.cut(ungrouped(calls), maxRows).reduce((sum, batch) => sum + batch.rows, 0);
  return Math.min(grouped, rows);
}

const SMALLER =
  'Train an adapter (policies.parameters: lora), or start more ranks, which divide moments and masters among them';

/** Accumulators, all zero. */
function begin({ name, trained }: PolicyState, groups: number, sketch: Pass['sketch']): void {
  if (sketch !== undefined) {
    made(`a gradient of ${name} and its sketches`, `${SMALLER}.`, () => trained.beginSketch(groups, sketch));
    return;
  }
  const fewer =
    groups > 1 ? 'Sketch the groups (gradients.method: sketch), which takes one accumulator. ' : '';
  made(`${groups} gradients of ${name}, one for each group`, `${fewer}${SMALLER}.`, () =>
    trained.beginGradients(groups),
  );
}

/**
 * Runs the whole update; parameters change once, at its end. Where memory runs out, micro-batches of half the rows
 * begin again from zeroed accumulators: what was added before cannot be told from what was not. The request holds this
 * rank's calls, the update is that of all ranks' calls.
 */
export async function train(
  policy: PolicyState,
  request: TrainRequest,
  loss: LossFunction,
  nextTurn: NextTurn,
): Promise<TrainResult> {
  try {
    const pass = { policy, request, loss, nextTurn, sketch: sketchOf(policy, request) };
    const backward = () => accumulateInMemory(pass);
    const own = await policy.group.whole(`backward pass of ${policy.name}`, backward);
    return finish(policy, request, addRanks(policy, own));
  } finally {
    // A rollout follows, or an error: the accumulators, as large as the parameters for every group, are not held for it.
    policy.trained.endGradients();
  }
}

async function accumulateInMemory(pass: Pass): Promise<Gradients> {
  const { policy, request } = pass;
  // Before anything that goes again: what stays does not come to lie between it, and the first update has no more room than
  // those after it.
  if (request.update)
    made(`the optimizer's moments of ${policy.name}`, `${SMALLER}.`, () => policy.prepareOptimizer());
  for (let memoryRestarts = 0; ; memoryRestarts++) {
    const maxRows = Math.min(request.microBatchRows, policy.rowLimit.rows);
    try {
      return { ...(await accumulate(pass, maxRows)), memoryRestarts };
    } catch (error) {
      policy.rowLimit.halve(error, request.calls, maxRows);
    }
  }
}

function finish(policy: PolicyState, request: TrainRequest, joined: Gradients): TrainResult {
  const { totals, calls, replicates, memoryRestarts } = joined;
  const { gradients, ...finished } = finishUpdate(policy, request, totals, replicates);
  return {
    ...finished,
    loss: totals.loss,
    gradients,
    calls,
    version: policy.updatesAt(policy.trained.version),
    tokensSeen: totals.tokensSeen,
    tokensComputed: totals.tokensComputed,
    extraRows: totals.tokensComputed - totals.rowsUngrouped,
    memoryRestarts,
    microBatchRows: Math.min(request.microBatchRows, policy.rowLimit.rows),
    forwardSeconds: totals.forwardSeconds,
    backwardSeconds: totals.backwardSeconds,
  };
}
