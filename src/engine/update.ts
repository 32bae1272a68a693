/**
 * The end of an update, after the last backward pass: statistics of the accumulators, interventions, the gradient
 * that the optimizer gets, and its step. How the accumulators were filled is in training.ts. Vectors are this rank's
 * shards, what is said of them is of the whole (policy-state.ts).
 */
import { type Combination, combinationOf, combinedGram, mergeGram } from './intervention.js';
import type { PolicyState } from './policy-state.js';
import { scope } from './scope.js';
import type { Tensor } from './tensor.js';
import type { GradientStatistics, InterventionRequest, TrainRequest } from './types.js';

export interface FinishedUpdate {
  gradients: GradientStatistics;
  clipFactor: number;
  updateCoherence: number | null;
  optimizerSeconds: number;
  statisticsSeconds: number;
  skipped?: string;
}

const seconds = () => performance.now() / 1000;

/** Of each group: rows that were computed, and response tokens. */
export interface GroupCounts {
  rows: number[];
  tokens: number[];
}

/**
 * Parameters change at its end, unless a gradient is not finite. `replicates`: of the sketches, if the groups were
 * sketched.
 */
export function finishUpdate(
  policy: PolicyState,
  request: TrainRequest,
  counts: GroupCounts,
  replicates?: number,
): FinishedUpdate {
  const started = seconds();
  if ((request.position?.index ?? 0) === 0) policy.memory.beginStep();
  const averages = policy.memory.averages(request.intervention);
  const measured = measuredGram(policy, averages, replicates);
  const { whole } = measured;
  const gradients: GradientStatistics = {
    ...statisticsOf(policy, request, counts, whole, averages.length),
    ...measured.how,
  };
  const skipped = nonFinite(gradients, policy);
  if (skipped !== undefined) {
    const statisticsSeconds = seconds() - started;
    return {
      gradients,
      clipFactor: 1,
      updateCoherence: null,
      optimizerSeconds: 0,
      statisticsSeconds,
      skipped,
    };
  }
  const exact = replicates === undefined;
  // Sketched groups share one accumulator, whose norm is measured, and what the optimizer makes of each is not known.
  const { coefficients, norm } = exact
    ? intervene(request, gradients, whole, averages.length)
    : { coefficients: Float64Array.of(1), norm: policy.formTotal(Float64Array.of(1), []) };
  const ended = seconds();
  const factor = clipFactor(norm, request);
  const chosen = { coefficients, averages, exact, norm, factor };
  const applied = policy.changing(() => applyGradient(policy, request, chosen));
  gradients.totalNorm = applied.norm;
  if (applied.products !== undefined)
    gradients.optimizer = withAveragesInMomentum(applied.products, request.groups.length, averages.length);
  return {
    gradients,
    clipFactor: factor,
    updateCoherence: exact || (request.position?.of ?? 1) === 1 ? policy.memory.coherence : null,
    statisticsSeconds: ended - started,
    optimizerSeconds: seconds() - ended,
  };
}

/** The Gram matrices of groups and averages, and how they were had. */
function measuredGram(
  policy: PolicyState,
  averages: readonly Tensor[],
  replicates: number | undefined,
): { whole: Float64Array; how: Pick<GradientStatistics, 'method' | 'replicates'> } {
  if (replicates === undefined) {
    return { whole: policy.gram(averages), how: { method: 'exact' } };
  }
  const gram = policy.trained.sketchGram();
  const how = { method: 'sketch', replicates: { count: replicates, gram } } as const;
  return { whole: meanOfBlocks(gram, replicates), how };
}

interface Chosen {
  /** Of the groups' gradients and of the averages. */
  coefficients: Float64Array;
  averages: readonly Tensor[];
  exact: boolean;
  /** By the Gram matrix, which decides about clipping before the gradient is formed; of sketched groups measured. */
  norm: number;
  factor: number;
}

/**
 * Steps with the gradient that was chosen, if an update follows, or only forms it. Returns its norm before clipping, of
 * exact groups as it was formed, and what the optimizer made of each vector where that is known.
 */
function applyGradient(
  policy: PolicyState,
  request: TrainRequest,
  { coefficients, averages, exact, norm, factor }: Chosen,
): { norm: number; products?: Float64Array } {
  const { index, of } = request.position ?? { index: 0, of: 1 };
  const more = index + 1 < of;
  const remembers = exact || of === 1;
  const keepTotal = remembers && policy.memory.reads(more);
  const form = (): { norm: number; products?: Float64Array } =>
    exact ? { norm: policy.formTotal(coefficients, averages) } : { norm };
  const step = () => {
    const options = { clip: factor, measure: exact, keepTotal };
    const measured = policy.step(coefficients, averages, request.learningRate, options);
    return exact ? measured : { norm };
  };
  const applied = request.update ? withAverages(policy, request, averages, step) : form();
  if (remembers) policy.remember(applied.norm, keepTotal, more);
  return applied;
}

/**
 * Runs `step` with the averages as they were. What they become is computed before it, while the groups' gradients are whole,
 * and they become it after it, when the step has happened.
 */
function withAverages<T>(
  policy: PolicyState,
  request: TrainRequest,
  averages: readonly Tensor[],
  step: () => T,
): T {
  const after = scope(() => averages.map((average) => average.clone()));
  try {
    policy.memory.advance(after, request);
    const result = step();
    for (const [i, average] of averages.entries()) average.copy_(after[i] as Tensor);
    return result;
  } finally {
    for (const average of after) average.dispose();
  }
}

/** As torch.nn.utils.clip_grad_norm_. */
function clipFactor(norm: number, { clipNorm, update }: TrainRequest): number {
  return update && clipNorm > 0 ? Math.min(1, clipNorm / (norm + 1e-6)) : 1;
}

function statisticsOf(
  policy: PolicyState,
  request: TrainRequest,
  { rows, tokens }: GroupCounts,
  whole: Float64Array,
  averages: number,
): Omit<GradientStatistics, 'method'> {
  return {
    groups: request.groups,
    kinds: policy.kinds,
    layers: policy.layers,
    gram:
      averages === 0 ? whole : leadingBlocks(whole, request.groups.length + averages, request.groups.length),
    totalNorm: 0,
    tokens,
    rows,
  };
}

/** Mean of `count` equal parts. */
function meanOfBlocks(values: Float64Array, count: number): Float64Array {
  const size = values.length / count;
  return Float64Array.from({ length: size }, (_, i) => {
    let sum = 0;
    for (let block = 0; block < count; block++) sum += values[block * size + i] ?? 0;
    return sum / count;
  });
}

/** The upper left [size, size] of each [from, from]. */
function leadingBlocks(values: Float64Array, from: number, size: number): Float64Array {
  const blocks = values.length / (from * from);
  const result = new Float64Array(blocks * size * size);
  for (let block = 0; block < blocks; block++) {
    for (let k = 0; k < size; k++) {
      const row = block * from * from + k * from;
      result.set(values.subarray(row, row + size), (block * size + k) * size);
    }
  }
  return result;
}

/** Names the first parameter and group whose gradient is not finite, or undefined. */
function nonFinite(statistics: GradientStatistics, policy: PolicyState): string | undefined {
  const groups = statistics.groups.length;
  for (let p = 0; p < statistics.kinds.length; p++) {
    for (let k = 0; k < groups; k++) {
      if (!Number.isFinite(statistics.gram[(p * groups + k) * groups + k])) {
        const name = policy.trained.parameters[p]?.name ?? String(p);
        return `the gradient of policy ${policy.name}, group ${statistics.groups[k]}, at ${name} is not finite`;
      }
    }
  }
  return undefined;
}

/** Coefficients of the groups' gradients and of the averages, and the norm of what they make. */
function intervene(
  { intervention, groups }: TrainRequest,
  gradients: GradientStatistics,
  whole: Float64Array,
  averages: number,
): { coefficients: Float64Array; norm: number } {
  if (intervention === undefined) {
    const squares = gradients.gram.reduce((sum, value) => sum + value, 0);
    return { coefficients: new Float64Array(groups.length).fill(1), norm: Math.sqrt(Math.max(0, squares)) };
  }
  const roles = intervention.roles.length;
  const into = rolesOf(intervention, groups.length);
  // Without averages their places are empty: zero rows and columns.
  for (let x = 0; x < averages; x++) into.push(roles + x);
  const cells = into.length * into.length;
  const parameters = gradients.kinds.length;
  const grams = Array.from({ length: parameters }, (_, p) => mergeGram(whole, p * cells, into, 2 * roles));
  const total = new Float64Array(4 * roles * roles);
  for (const { values } of grams)
    for (const [i, value] of values.entries()) total[i] = (total[i] ?? 0) + value;
  const combination = combinationOf({ size: 2 * roles, values: total }, intervention);
  const applied = grams.map((gram) => combinedGram(gram, combination));
  gradients.applied = {
    roles: intervention.roles.map(({ role }) => role),
    gram: Float64Array.from(applied.flat()),
  };
  const square = gradients.applied.gram.reduce((sum, value) => sum + value, 0);
  return { coefficients: coefficientsOf(combination, into), norm: Math.sqrt(Math.max(0, square)) };
}

/** The role of each group. */
function rolesOf({ roles }: InterventionRequest, groups: number): number[] {
  return Array.from({ length: groups }, (_, k) => roles.findIndex((role) => role.groups.includes(k)));
}

/** The sum over the roles afterwards, as coefficients of the vectors; `into` says which column each belongs to. */
function coefficientsOf(combination: Combination, into: readonly number[]): Float64Array {
  return Float64Array.from(into, (column) => combination.reduce((sum, row) => sum + (row[column] ?? 0), 0));
}

/** The averages' part of the change is carried over from earlier updates, as momentum is. */
function withAveragesInMomentum(products: Float64Array, groups: number, averages: number): Float64Array {
  if (averages === 0) return products;
  const from = groups + averages + 2;
  const result = new Float64Array((products.length / from) * (groups + 2));
  for (let i = 0; i < products.length; i++) {
    const source = i % from;
    const column = source < groups ? source : source === from - 1 ? groups + 1 : groups;
    const cell = Math.floor(i / from) * (groups + 2) + column;
    result[cell] = (result[cell] ?? 0) + (products[i] ?? 0);
  }
  return result;
}
