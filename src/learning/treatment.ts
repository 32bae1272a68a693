/**
 * Which interventions of the configuration act on a role and on a policy, as the engine takes them
 * (engine/intervention.ts). KL anchors and frozen roles act on the calls instead (update-plan.ts).
 */
import { TroupeError } from '../config/errors.js';
import { unknownName } from '../config/nearest.js';
import type { RoleInterventions, RunConfig } from '../config/schema.js';
import type { KeptByTraining } from '../engine/protocol.js';
import type { InterventionRequest } from '../engine/types.js';
import type { Group } from '../gradients/groups.js';
import type { ResolvedPolicy } from '../policies/routing.js';
import { randomStream } from './random.js';

type Config = RunConfig['interventions'];

/** The defaults with the role's own entries. */
export function interventionsOf({ defaults, roles }: Config, role: string): RoleInterventions {
  const own = Object.entries(roles[role] ?? {}).filter(([, value]) => value !== undefined);
  return { ...defaults, ...Object.fromEntries(own) };
}

/** Coefficient of the KL term against the reference, for the calls of a role. */
export function klCoefficient(
  { learning, interventions }: Pick<RunConfig, 'learning' | 'interventions'>,
  role: string,
): number {
  return interventionsOf(interventions, role).kl ?? learning.kl.coefficient;
}

/** What a policy's updates keep beside the moments. */
export function keptByTraining(
  config: Pick<RunConfig, 'learning' | 'interventions'>,
  { roles, freeze }: ResolvedPolicy,
): KeptByTraining {
  if (freeze) return { reference: false, averages: 0 };
  const isDamped = roles.some((role) => interventionsOf(config.interventions, role).damping > 0);
  return {
    reference: roles.some((role) => klCoefficient(config, role) > 0),
    averages: isDamped ? roles.length : 0,
  };
}

/** Throws a TroupeError for a role or a policy that the run does not have, and for sketches where they cannot do. */
export function checkInterventions(
  { interventions: config, gradients }: Pick<RunConfig, 'interventions' | 'gradients'>,
  policies: readonly ResolvedPolicy[],
): void {
  const roles = policies.flatMap((policy) => policy.roles);
  const names = policies.map(({ name }) => name);
  for (const role of Object.keys(config.roles)) {
    if (!roles.includes(role)) throw unknownName('role', role, roles, 'interventions.roles');
  }
  for (const policy of Object.keys(config.policies)) {
    if (!names.includes(policy)) throw unknownName('policy', policy, names, 'interventions.policies');
  }
  if (gradients.method === 'sketch') for (const policy of policies) checkMethod(config, policy);
}

function checkMethod(config: Config, policy: ResolvedPolicy): void {
  if (!changesGradient(config, policy)) return;
  throw new TroupeError(`sketches do not give policy ${policy.name} the gradients of its roles.`, {
    where: 'gradients.method',
    hint: 'Interventions on slots, damping, balance and rates need method: exact (or auto).',
  });
}

/** Factor on the policy's learning rate: the largest rate of its roles. The others are scaled beside it. */
export function policyRate(config: Config, policy: ResolvedPolicy): number {
  return Math.max(...policy.roles.map((role) => interventionsOf(config, role).rate));
}

const SLOT_FACTORS = {
  sum: () => 1,
  mean: (slots: number) => 1 / slots,
  root: (slots: number) => 1 / Math.sqrt(slots),
};

export interface InterventionSetting {
  policy: ResolvedPolicy;
  /** Measured groups; each has a role if the policy's gradient is changed by role. */
  groups: readonly Group[];
  /** Slots of each role among the calls of the update. */
  slotsOf: ReadonlyMap<string, number>;
  /** What the order of conflicts is drawn from. */
  key: readonly number[];
}

/** Undefined where nothing changes the policy's gradient. */
export function interventionRequest(
  config: Config,
  { policy, groups, slotsOf, key }: InterventionSetting,
): InterventionRequest | undefined {
  if (!changesGradient(config, policy)) return undefined;
  const largest = policyRate(config, policy);
  const present = policy.roles.filter((role) => groups.some((group) => group.role === role));
  const roles = present.map((role) => {
    const { slots, damping, averageDecay, rate } = interventionsOf(config, role);
    return {
      role,
      groups: groups.flatMap((group, k) => (group.role === role ? [k] : [])),
      slotFactor: SLOT_FACTORS[slots](slotsOf.get(role) ?? 1),
      damping,
      averageDecay,
      rate: largest === 0 ? 1 : rate / largest,
    };
  });
  return { roles, balance: balanceOf(config, policy), order: shuffled(roles.length, key) };
}

/** Whether gradients by role must be measured for the policy's interventions. */
export function changesGradient(config: Config, policy: ResolvedPolicy): boolean {
  const each = policy.roles.map((role) => interventionsOf(config, role));
  return (
    (policy.roles.length > 1 && balanceOf(config, policy) !== 'none') ||
    each.some(({ slots, damping, rate }) => slots !== 'sum' || damping > 0 || rate !== each[0]?.rate)
  );
}

function balanceOf(config: Config, policy: ResolvedPolicy): Config['balance'] {
  return config.policies[policy.name]?.balance ?? config.balance;
}

function shuffled(count: number, key: readonly number[]): number[] {
  const random = randomStream(...key);
  const drawn = Array.from({ length: count }, (_, i) => ({ i, place: random() }));
  return drawn.sort((a, b) => a.place - b.place).map(({ i }) => i);
}
