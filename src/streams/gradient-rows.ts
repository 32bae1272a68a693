/**
 * Gradient statistics of one optimizer step as rows of the tables `gradients` and `gradient_pairs`, written
 * straight into their columns: every grouping, every scope, every group and pair.
 */
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
import type { TableColumns } from './arrow-schema.js';

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

/**
 * Appends the update's rows. Row order: scopes (total, kinds, layers), groupings coarse to fine, groups in the
 * order of `statistics.groups`.
 */
export function addGradientRows(
  gradients: TableColumns<'gradients'>,
  pairs: TableColumns<'gradient_pairs'>,
  measured: MeasuredUpdate,
): void {
  const levels = levelsOf(measured);
  for (const scope of scopes(measured.statistics)) {
    for (const level of levels) {
      const found = findingsOf(measured, scope, level);
      addGroups(gradients, measured, scope, level, found);
      addPairs(pairs, measured, scope, level, found);
    }
    addCarried(gradients, measured, scope);
  }
}

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

function addGroups(
  columns: TableColumns<'gradients'>,
  measured: MeasuredUpdate,
  scope: Scope,
  level: Level,
  { gram, error, noise }: Findings,
): void {
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
  level.groups.forEach((group, k) => {
    const mass = level.masses[k] as GroupMass;
    const members = parts?.within.flatMap((into, part) => (into === k ? [part] : []));
    const together = finer && members ? coherence(finer, members) : undefined;
    addPlace(columns, measured, scope, level);
    columns.role.push(group.role);
    columns.slot.push(group.slot);
    columns.turn.push(group.turn);
    columns.method.push(measured.statistics.method);
    columns.norm.push(each[k] ?? 0);
    const squareError = error(k, k);
    columns.norm_error.push(squareError === null || !each[k] ? null : squareError / (2 * each[k]));
    columns.mass_share.push(whole ? null : (shares[k] ?? null));
    columns.projection_share.push(whole ? null : (projections[k] ?? null));
    columns.optimizer_share.push(
      optimizer ? sumOf(level.membership.map((into, j) => (into === k ? (optimizer[j] ?? 0) : 0))) : null,
    );
    columns.applied_norm.push(applied ? (norms(applied)[k] ?? 0) : null);
    columns.applied_share.push(applied && !whole ? (massShares(applied)[k] ?? null) : null);
    columns.dominance.push(roles ? dominance(roles) : null);
    columns.effective_roles.push(roles ? effectiveGroups(roles) : null);
    columns.members.push(together?.members ?? null);
    columns.coherence.push(together?.coherence ?? null);
    columns.amplification.push(together?.amplification ?? null);
    columns.cancellation.push(together?.cancellation ?? null);
    columns.updates.push(measured.updates);
    columns.row_weight.push(mass.tokens === 0 ? null : mass.weight / mass.tokens);
    const floor = noise?.floor(k);
    columns.split_half.push(floor?.splitHalf ?? null);
    columns.reliability.push(floor?.reliability ?? null);
    columns.calls.push(mass.calls);
    columns.tokens.push(mass.tokens);
    columns.token_share.push(tokens === 0 ? null : mass.tokens / tokens);
    columns.advantage_mass.push(mass.advantage);
    columns.advantage_share.push(advantage === 0 ? null : mass.advantage / advantage);
    columns.zero_advantage_share.push(mass.calls === 0 ? null : mass.zeroCalls / mass.calls);
    columns.rows.push(level.rows[k] ?? null);
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
function addCarried(columns: TableColumns<'gradients'>, measured: MeasuredUpdate, scope: Scope): void {
  const shares = optimizerShares(scope);
  if (shares === undefined) return;
  for (const [i, grouping] of (['momentum', 'decay'] as const).entries()) {
    const { step, update, policy, updates, statistics } = measured;
    const values = { step, update, policy, updates, grouping, method: statistics.method, ...placeOf(scope) };
    const row = { ...values, optimizer_share: shares[statistics.groups.length + i] ?? 0 };
    pushRow(columns, { ...row, calls: 0, tokens: 0, advantage_mass: 0 });
  }
}

const placeOf = ({ scope, kind, layer }: Scope) => ({ scope, kind, layer });

/** Appends one row; columns that it does not name are null. */
function pushRow(columns: TableColumns<'gradients'>, row: Record<string, string | number | null>): void {
  for (const [name, column] of Object.entries(columns)) {
    (column as { push(value: unknown): void }).push(row[name] ?? null);
  }
}

/** Gram matrix of the roles, where groups tell them apart. */
function rolesOf(measured: MeasuredUpdate, gram: Gram): Gram | undefined {
  if (!keysOf(measured.groups).includes('role')) return undefined;
  const { groups, membership } = assignGroups(measured.groups, ['role']);
  return mergeGroups(gram, membership, groups.length);
}

function addPairs(
  columns: TableColumns<'gradient_pairs'>,
  measured: MeasuredUpdate,
  scope: Scope,
  level: Level,
  { gram, error, noise }: Findings,
): void {
  const applied = level.keys.length === 0 ? undefined : appliedOf(measured, scope, level);
  level.groups.forEach((first, k) => {
    level.groups.slice(k + 1).forEach((second, after) => {
      const l = k + 1 + after;
      addPlace(columns, measured, scope, level);
      columns.role_a.push(first.role);
      columns.slot_a.push(first.slot);
      columns.turn_a.push(first.turn);
      columns.role_b.push(second.role);
      columns.slot_b.push(second.slot);
      columns.turn_b.push(second.turn);
      columns.gram.push(inner(gram, k, l));
      const productError = error(k, l);
      columns.gram_error.push(productError);
      // Of a product within two standard errors of 0 not even the sign is known.
      const known = productError === null || Math.abs(inner(gram, k, l)) >= 2 * productError;
      columns.cosine.push(known ? cosine(gram, k, l) : null);
      columns.applied_cosine.push(applied ? cosine(applied, k, l) : null);
      const corrected = noise?.corrected(k, l, scope.scope === 'total');
      columns.corrected_cosine.push(corrected?.cosine ?? null);
      columns.corrected_low.push(corrected?.low ?? null);
      columns.corrected_high.push(corrected?.high ?? null);
    });
  });
}

type Place = Pick<
  TableColumns<'gradients'>,
  'step' | 'update' | 'policy' | 'grouping' | 'scope' | 'kind' | 'layer'
>;

function addPlace(columns: Place, measured: MeasuredUpdate, scope: Scope, level: Level): void {
  columns.step.push(measured.step);
  columns.update.push(measured.update);
  columns.policy.push(measured.policy);
  columns.grouping.push(groupingOf(level.keys));
  columns.scope.push(scope.scope);
  columns.kind.push(scope.kind);
  columns.layer.push(scope.layer);
}
