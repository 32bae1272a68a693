/**
 * Everything that follows from a Gram matrix of group gradients, G_kl = ⟨g_k, g_l⟩: norms, shares, cosines,
 * coherence, and the identity that proves the matrix whole. Pure functions over fp64; names and formulas are
 * those of docs/streams.md. Which calls make a group is decided in groups.ts.
 *
 * A ratio whose denominator is zero is null, never 0 or NaN.
 */
import { TroupeError } from '../config/errors.js';
import type { GradientStatistics } from '../engine/types.js';

/** Inner products of `size` group gradients, [size, size] row-major. */
export interface Gram {
  size: number;
  values: Float64Array;
}

/** The part of the parameters that a Gram matrix covers. */
export interface Scope {
  scope: 'total' | 'kind' | 'layer';
  /** Module kind, for 'kind'. */
  kind: string | null;
  /** Layer, for 'layer'; −1: the parameters of no layer (embedding, last norm, head). */
  layer: number | null;
  gram: Gram;
  /** Of sketches: one for each replicate; `gram` is their mean. */
  replicates?: Gram[];
  /** Of the roles after interventions, in the order of `applied.roles`. */
  applied?: Gram;
  /** ⟨u, Δθ⟩ of each group, of momentum and of weight decay, [groups + 2]. */
  optimizer?: Float64Array;
}

/** The gradient that the groups make does not have the norm of the gradient that the optimizer got. */
export class GradientIdentityError extends TroupeError {
  override readonly name = 'GradientIdentityError';
}

/** Deviation from the identity that fp32 accumulators may have, relative to (Σ √G_kk)². */
const IDENTITY_TOLERANCE = 1e-5;

/**
 * Below this part of (Σ √G_kk)², ‖g‖² is rounding: fp32 accumulators that cancel leave relative errors of
 * about 1e-7 in g, so 1e-14 in ‖g‖².
 */
const ROUNDING = 1e-14;

/** Gram matrices in total, of each module kind and of each layer, from those of the single parameters. */
export function scopes(statistics: GradientStatistics): Scope[] {
  const { kinds, layers } = statistics;
  const total: Scope = { scope: 'total', kind: null, layer: null, ...sums(statistics, () => true) };
  const byKind = [...new Set(kinds)].map((kind): Scope => {
    return { scope: 'kind', kind, layer: null, ...sums(statistics, (p) => kinds[p] === kind) };
  });
  const numbers = [...new Set(layers)].sort((a, b) => a - b);
  const byLayer = numbers.map((layer): Scope => {
    return { scope: 'layer', kind: null, layer, ...sums(statistics, (p) => layers[p] === layer) };
  });
  return [total, ...byKind, ...byLayer];
}

function sums(statistics: GradientStatistics, chosen: (parameter: number) => boolean) {
  const { applied, optimizer, replicates, kinds } = statistics;
  const sum = (all: Float64Array) => sumCells(all, kinds.length, chosen);
  return {
    gram: sumGrams(statistics, chosen),
    ...(replicates && { replicates: replicatesOf(statistics, replicates, sum) }),
    ...(applied && { applied: { size: applied.roles.length, values: sum(applied.gram) } }),
    ...(optimizer && { optimizer: sum(optimizer) }),
  };
}

function replicatesOf(
  { groups }: GradientStatistics,
  { count, gram }: NonNullable<GradientStatistics['replicates']>,
  sum: (all: Float64Array) => Float64Array,
): Gram[] {
  const length = gram.length / count;
  return Array.from({ length: count }, (_, r) => {
    return { size: groups.length, values: sum(gram.subarray(r * length, (r + 1) * length)) };
  });
}

/** Standard error of the mean over independent estimates. */
export function standardError(estimates: readonly number[]): number {
  const mean = sumOf(estimates) / estimates.length;
  const squares = sumOf(estimates.map((value) => (value - mean) ** 2));
  return Math.sqrt(squares / (estimates.length - 1) / estimates.length);
}

/** Sum of the Gram matrices of the parameters that `chosen` takes. */
export function sumGrams(statistics: GradientStatistics, chosen: (parameter: number) => boolean): Gram {
  const size = statistics.groups.length;
  return { size, values: sumCells(statistics.gram, statistics.kinds.length, chosen) };
}

/** Sum over the chosen parameters of values [parameters, cells]. */
function sumCells(
  all: Float64Array,
  parameters: number,
  chosen: (parameter: number) => boolean,
): Float64Array {
  const cells = all.length / parameters;
  const values = new Float64Array(cells);
  for (let parameter = 0; parameter < parameters; parameter += 1) {
    if (!chosen(parameter)) continue;
    const from = parameter * cells;
    for (let cell = 0; cell < cells; cell += 1) values[cell] = at(values, cell) + at(all, from + cell);
  }
  return values;
}

/**
 * Gram matrix of coarser groups: group k becomes part of group `membership[k]`, 0 ≤ membership < size. Sums of
 * blocks, because ⟨Σ g_k, Σ g_l⟩ = Σ ⟨g_k, g_l⟩.
 */
export function mergeGroups(gram: Gram, membership: readonly number[], size: number): Gram {
  const values = new Float64Array(size * size);
  for (let k = 0; k < gram.size; k += 1) {
    for (let l = 0; l < gram.size; l += 1) {
      const cell = (membership[k] ?? 0) * size + (membership[l] ?? 0);
      values[cell] = at(values, cell) + inner(gram, k, l);
    }
  }
  return { size, values };
}

/** ⟨g_k, g_l⟩. */
export function inner(gram: Gram, k: number, l: number): number {
  return at(gram.values, k * gram.size + l);
}

/** √G_kk of every group. */
export function norms(gram: Gram): number[] {
  return groups(gram).map((k) => root(inner(gram, k, k)));
}

/** ‖Σ g_k‖². Null where it is not above the rounding of the gradients that cancel in it. */
export function squaredNorm(gram: Gram): number | null {
  const sum = gram.values.reduce((total, value) => total + value, 0);
  return sum > ROUNDING * squaredMass(gram) ? sum : null;
}

/** √G_kk / Σ_l √G_ll. Null where every gradient is zero. */
export function massShares(gram: Gram): (number | null)[] {
  const each = norms(gram);
  const mass = sumOf(each);
  return each.map((norm) => ratio(norm, mass));
}

/** The largest mass share. */
export function dominance(gram: Gram): number | null {
  const shares = massShares(gram).filter((share) => share !== null);
  return shares.length === 0 ? null : Math.max(...shares);
}

/** exp(entropy of the mass shares): how many groups of equal mass would be as spread out. */
export function effectiveGroups(gram: Gram): number | null {
  const shares = massShares(gram).filter((share) => share !== null);
  if (shares.length === 0) return null;
  return Math.exp(-sumOf(shares.map((share) => (share === 0 ? 0 : share * Math.log(share)))));
}

/** ⟨g_k, g⟩ / ‖g‖² of every group: signed, the sum is 1. */
export function projectionShares(gram: Gram): (number | null)[] {
  const whole = squaredNorm(gram);
  return groups(gram).map((k) => {
    return whole === null ? null : sumOf(groups(gram).map((l) => inner(gram, k, l))) / whole;
  });
}

/** G_kl / √(G_kk G_ll). Null where one of the two is zero. */
export function cosine(gram: Gram, k: number, l: number): number | null {
  const scale = root(inner(gram, k, k)) * root(inner(gram, l, l));
  return scale === 0 ? null : Math.max(-1, Math.min(1, inner(gram, k, l) / scale));
}

export interface Coherence {
  /** N, the groups that are added up. */
  members: number;
  /** ‖Σ g_k‖ / Σ ‖g_k‖: 1 aligned, 1/√N random, 0 opposed. */
  coherence: number | null;
  /** N · coherence. */
  amplification: number | null;
  /** 1 − coherence. */
  cancellation: number | null;
}

/** How far the gradients of some groups (the slots of one role) push the same way. */
export function coherence(gram: Gram, members: readonly number[]): Coherence {
  const mass = sumOf(members.map((k) => root(inner(gram, k, k))));
  const sum = sumOf(members.flatMap((k) => members.map((l) => inner(gram, k, l))));
  const value = mass === 0 ? null : Math.min(1, root(sum) / mass);
  return {
    members: members.length,
    coherence: value,
    amplification: value === null ? null : members.length * value,
    cancellation: value === null ? null : 1 - value,
  };
}

/** |Σ G_kl − ‖g‖²| / (Σ √G_kk)²; 0 where both are zero. */
export function identityDeviation(gram: Gram, totalNorm: number): number {
  const sum = gram.values.reduce((total, value) => total + value, 0);
  const difference = Math.abs(sum - totalNorm * totalNorm);
  return difference === 0 ? 0 : difference / squaredMass(gram);
}

/**
 * The identity of exact statistics: Σ_kl G_kl = ‖g‖², to 1e-5 · (Σ √G_kk)², where G is of the gradients after
 * interventions if there are any. Relative to the mass, not to ‖g‖², which would misfire where roles cancel. Returns the deviation; throws a GradientIdentityError, which is to
 * stop the run: statistics that fail it describe another gradient than the one that was applied. Sketches only
 * report it: theirs is an error of estimation.
 */
export function checkIdentity(statistics: GradientStatistics, policy: string): number {
  const { gram: before, applied } = sums(statistics, () => true);
  const gram = applied ?? before;
  const deviation = identityDeviation(gram, statistics.totalNorm);
  if (deviation <= IDENTITY_TOLERANCE || statistics.method === 'sketch') return deviation;
  const sum = gram.values.reduce((total, value) => total + value, 0);
  throw new GradientIdentityError(
    `the groups' gradients do not add up to the applied gradient: Σ G = ${sum}, ‖g‖² = ${statistics.totalNorm ** 2}, ` +
      `deviation ${deviation.toExponential(2)} of (Σ √G)², at most ${IDENTITY_TOLERANCE}.`,
    {
      where: `policy ${policy}`,
      hint: 'The run stops, because its statistics would be wrong. Please report it.',
    },
  );
}

/** (Σ √G_kk)². */
function squaredMass(gram: Gram): number {
  return sumOf(norms(gram)) ** 2;
}

/** Square root of a sum that rounding may have left just below 0. NaN stays NaN, so that it is seen. */
function root(value: number): number {
  return value < 0 ? 0 : Math.sqrt(value);
}

function ratio(value: number, by: number): number | null {
  return by === 0 ? null : value / by;
}

function groups(gram: Gram): number[] {
  return Array.from({ length: gram.size }, (_, k) => k);
}

function sumOf(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function at(values: Float64Array, index: number): number {
  return values[index] ?? 0;
}
