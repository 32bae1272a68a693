/**
 * Gradient statistics of one optimizer step as rows of the tables `gradients` and `gradient_pairs`: every grouping,
 * every scope, every group and pair.
 */
import { append } from '../config/append.js';
import type { GroupKey } from '../config/schema.js';
import type { GradientStatistics } from '../engine/types.js';
import {
  assignGroups,
  coarserKeys,
  type Group,
  type GroupMass,
  groupingOf,
  keysOf,
  mergeMasses,
} from '../gradients/groups.js';
import { NoiseFloor } from '../gradients/noise.js';
import {
  coherence,
  cosine,
  dominance,
  effectiveGroups,
  type Gram,
  inner,
  massShares,
  mergeGroups,
  norms,
  projectionShares,
  type Scope,
  scopes,
  standardError,
} from '../gradients/statistics.js';
import type { TableRow } from './tables.js';

/** One optimizer step of one policy. */
export interface MeasuredUpdate {
  step: number;
  /** Index of the optimizer step within the step. */
  update: number;
  policy: string;
  /** Optimizer steps of the policy in this step of the run. */
  updates: number;
  statistics: GradientStatistics;
  /** What `statistics.groups` stand for, in the same order. */
  groups: readonly Group[];
  /** Masses of the same groups, over all their calls, those without a backward pass included. */
  masses: readonly GroupMass[];
  /** Bucket of prompts of each measured group, where the noise floor is measured: groups come once for each. */
  prompts?: { buckets: number; of: readonly number[] };
}

/** One set of groups: the measured ones, or those merged by fewer keys. */
interface Level {
  keys: GroupKey[];
  groups: Group[];
  /** Index into `groups` of each measured group. */
  membership: number[];
  masses: GroupMass[];
  rows: number[];
  /** Coherence is over these finer groups: slots, or the roles of the whole policy. */
  parts: { groups: Group[]; membership: number[]; within: number[] } | undefined;
}

type GradientRow = TableRow<'gradients'>;
type PairRow = TableRow<'gradient_pairs'>;

/**
 * The update's rows. Row order: scopes (total, kinds, layers), groupings coarse to fine, groups in the
 * order of `statistics.groups`.
 */
export function gradientRows(measured: MeasuredUpdate): { gradients: GradientRow[]; pairs: PairRow[] } {
  const levels = levelsOf(measured);
  const gradients: GradientRow[] = [];
  const pairs: PairRow[] = [];
  for (const scope of scopes(measured.statistics)) {
    for (const level of levels) {
      const found = findingsOf(measured, scope, level);
      append(gradients, groupRows(measured, scope, level, found));
      append(pairs, pairRows(measured, scope, level, found));
    }
    append(gradients, carriedRows(measured, scope));
  }
  return { gradients, pairs };
}

// The rows name every column, without spreads: there are thousands of them in a step, and objects that V8 has to keep as
// dictionaries take seven times as long.

/** What one scope says of the groups of one level. */
interface Findings {
  gram: Gram;
  /** Standard error of G_kl; null where it is exact. */
  error: (k: number, l: number) => number | null;
  noise: NoiseFloor | undefined;
}

function findingsOf(measured: MeasuredUpdate, scope: Scope, level: Level): Findings {
  const merge = (gram: Gram) => mergeGroups(gram, level.membership, level.groups.length);
  const replicates = scope.replicates?.map(merge);
  return {
    gram: merge(scope.gram),
    error: (k, l) => (replicates ? standardError(replicates.map((gram) => inner(gram, k, l))) : null),
    noise: noiseOf(measured, scope, level),
  };
}

function noiseOf({ prompts, step, update, policy }: MeasuredUpdate, scope: Scope, level: Level) {
  if (prompts === undefined) return undefined;
  const { buckets, of } = prompts;
  const places = level.membership.map((into, j) => into * buckets + (of[j] ?? 0));
  const gram = mergeGroups(scope.gram, places, level.groups.length * buckets);
  return new NoiseFloor({ gram, buckets }, policy, step, update);
}

function levelsOf(measured: MeasuredUpdate): Level[] {
  const { groups, masses, statistics } = measured;
  const finest = keysOf(groups);
  return coarserKeys(finest).map((keys): Level => {
    const { groups: merged, membership } = assignGroups(groups, keys);
    const rows = new Array<number>(merged.length).fill(0);
    membership.forEach((into, k) => {
      rows[into] = (rows[into] ?? 0) + (statistics.rows[k] ?? 0);
    });
    return {
      keys,
      groups: merged,
      membership,
      masses: mergeMasses(masses, membership, merged.length),
      rows,
      parts: partsOf(groups, keys, finest),
    };
  });
}

/** What the coherence of a group is taken over: its slots, or for the whole policy its roles, if measured. */
function partsOf(groups: readonly Group[], keys: GroupKey[], finest: GroupKey[]): Level['parts'] {
  const part: GroupKey | undefined = keys.length === 0 ? finest[0] : 'slot';
  if (part === undefined || keys.includes(part) || !finest.includes(part)) return undefined;
  const fine = assignGroups(groups, [...keys, part]);
  return { ...fine, within: assignGroups(fine.groups, keys).membership };
}

function groupRows(
  measured: MeasuredUpdate,
  scope: Scope,
  level: Level,
  { gram, error, noise }: Findings,
): GradientRow[] {
  const { step, update, policy } = measured;
  const grouping = groupingOf(level.keys);
  const whole = level.keys.length === 0;
  const roles = whole ? rolesOf(measured, scope.gram) : undefined;
  const each = norms(gram);
  const shares = massShares(gram);
  const projections = projectionShares(gram);
  const tokens = level.masses.reduce((sum, mass) => sum + mass.tokens, 0);
  const advantage = level.masses.reduce((sum, mass) => sum + mass.advantage, 0);
  const applied = appliedOf(measured, scope, level);
  const optimizer = optimizerShares(scope);
  const parts = level.parts;
  const finer = parts && mergeGroups(scope.gram, parts.membership, parts.groups.length);
  return level.groups.map((group, k) => {
    const mass = level.masses[k] as GroupMass;
    const members = parts?.within.flatMap((into, part) => (into === k ? [part] : []));
    const together = finer && members ? coherence(finer, members) : undefined;
    const squareError = error(k, k);
    const floor = noise?.floor(k);
    return {
      step,
      update,
      policy,
      grouping,
      scope: scope.scope,
      kind: scope.kind,
      layer: scope.layer,
      role: group.role,
      slot: group.slot,
      turn: group.turn,
      method: measured.statistics.method,
      norm: each[k] ?? 0,
      norm_error: squareError === null || !each[k] ? null : squareError / (2 * each[k]),
      mass_share: whole ? null : (shares[k] ?? null),
      projection_share: whole ? null : (projections[k] ?? null),
      optimizer_share: optimizer
        ? sumOf(level.membership.map((into, j) => (into === k ? (optimizer[j] ?? 0) : 0)))
        : null,
      applied_norm: applied ? (norms(applied)[k] ?? 0) : null,
      applied_share: applied && !whole ? (massShares(applied)[k] ?? null) : null,
      dominance: roles ? dominance(roles) : null,
      effective_roles: roles ? effectiveGroups(roles) : null,
      members: together?.members ?? null,
      coherence: together?.coherence ?? null,
      amplification: together?.amplification ?? null,
      cancellation: together?.cancellation ?? null,
      updates: measured.updates,
      row_weight: mass.tokens === 0 ? null : mass.weight / mass.tokens,
      split_half: floor?.splitHalf ?? null,
      reliability: floor?.reliability ?? null,
      calls: mass.calls,
      tokens: mass.tokens,
      token_share: tokens === 0 ? null : mass.tokens / tokens,
      advantage_mass: mass.advantage,
      advantage_share: advantage === 0 ? null : mass.advantage / advantage,
      zero_advantage_share: mass.calls === 0 ? null : mass.zeroCalls / mass.calls,
      rows: level.rows[k] ?? null,
    };
  });
}

const sumOf = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0);

/** ⟨u, Δθ⟩ / ‖Δθ‖² of each measured group, then of momentum and of decay. */
function optimizerShares({ optimizer }: Scope): number[] | undefined {
  if (optimizer === undefined) return undefined;
  const square = sumOf([...optimizer]);
  return square > 0 ? Array.from(optimizer, (product) => product / square) : undefined;
}

/** Gram matrix after interventions for the levels that have one: roles, and the whole. */
function appliedOf({ statistics }: MeasuredUpdate, scope: Scope, level: Level): Gram | undefined {
  if (scope.applied === undefined || statistics.applied === undefined) return undefined;
  const { roles } = statistics.applied;
  if (level.keys.length === 0)
    return mergeGroups(
      scope.applied,
      roles.map(() => 0),
      1,
    );
  if (groupingOf(level.keys) !== 'role') return undefined;
  const places = roles.map((role) => level.groups.findIndex((group) => group.role === role));
  return mergeGroups(scope.applied, places, level.groups.length);
}

/** The rows of what no group of this update did: momentum and weight decay. */
function carriedRows(measured: MeasuredUpdate, scope: Scope): GradientRow[] {
  const shares = optimizerShares(scope);
  if (shares === undefined) return [];
  const { step, update, policy, updates, statistics } = measured;
  return (['momentum', 'decay'] as const).map((grouping, i) => ({
    ...NOTHING_MEASURED,
    ...{ step, update, policy, updates, grouping, method: statistics.method },
    ...{ scope: scope.scope, kind: scope.kind, layer: scope.layer },
    optimizer_share: shares[statistics.groups.length + i] ?? 0,
  }));
}

/** What a row says of gradients where there are none. */
const NOTHING_MEASURED = {
  role: null,
  slot: null,
  turn: null,
  norm: null,
  norm_error: null,
  mass_share: null,
  projection_share: null,
  applied_norm: null,
  applied_share: null,
  dominance: null,
  effective_roles: null,
  members: null,
  coherence: null,
  amplification: null,
  cancellation: null,
  row_weight: null,
  split_half: null,
  reliability: null,
  calls: 0,
  tokens: 0,
  token_share: null,
  advantage_mass: 0,
  advantage_share: null,
  zero_advantage_share: null,
  rows: null,
};

/** Gram matrix of the roles, where groups tell them apart. */
function rolesOf(measured: MeasuredUpdate, gram: Gram): Gram | undefined {
  if (!keysOf(measured.groups).includes('role')) return undefined;
  const { groups, membership } = assignGroups(measured.groups, ['role']);
  return mergeGroups(gram, membership, groups.length);
}

function pairRows(
  measured: MeasuredUpdate,
  scope: Scope,
  level: Level,
  { gram, error, noise }: Findings,
): PairRow[] {
  const { step, update, policy } = measured;
  const grouping = groupingOf(level.keys);
  const applied = level.keys.length === 0 ? undefined : appliedOf(measured, scope, level);
  return level.groups.flatMap((first, k) =>
    level.groups.slice(k + 1).map((second, after) => {
      const l = k + 1 + after;
      const productError = error(k, l);
      // Of a product within two standard errors of 0 not even the sign is known.
      const known = productError === null || Math.abs(inner(gram, k, l)) >= 2 * productError;
      const corrected = noise?.corrected(k, l, scope.scope === 'total');
      return {
        step,
        update,
        policy,
        grouping,
        scope: scope.scope,
        kind: scope.kind,
        layer: scope.layer,
        role_a: first.role,
        slot_a: first.slot,
        turn_a: first.turn,
        role_b: second.role,
        slot_b: second.slot,
        turn_b: second.turn,
        gram: inner(gram, k, l),
        gram_error: productError,
        cosine: known ? cosine(gram, k, l) : null,
        applied_cosine: applied ? cosine(applied, k, l) : null,
        corrected_cosine: corrected?.cosine ?? null,
        corrected_low: corrected?.low ?? null,
        corrected_high: corrected?.high ?? null,
      };
    }),
  );
}
