/** Which policy each role's calls go to, and each policy's settings with its overrides. */
import type { KeyPath } from '../config/check.js';
import { TroupeError } from '../config/errors.js';
import { isFileName, unknownName } from '../config/nearest.js';
import { ownValue } from '../config/own-value.js';
import type { PolicyOverride, PolicySettings, RunConfig } from '../config/schema.js';
import type { PolicyParameters } from '../engine/protocol.js';

export interface ResolvedPolicy extends PolicySettings {
  /** "shared", a role's name, or the name that the map gives. */
  name: string;
  /** Roles that it plays, in the workflow's order; never empty. */
  roles: string[];
}

/** What the engine makes of a policy's parameters. */
export function parametersOf(policy: ResolvedPolicy): PolicyParameters {
  return policy.parameters === 'lora' ? { kind: 'lora', ...policy.lora } : { kind: 'full' };
}

/** The ranks of their adapters. */
export const adapterRanks = (policies: readonly ResolvedPolicy[]): number[] =>
  policies.flatMap(({ parameters, lora }) => (parameters === 'lora' ? [lora.rank] : []));

type Locate = (path: KeyPath) => string | undefined;

/**
 * The policies of a run, in the order in which the workflow's roles first name them. Throws a TroupeError for a
 * role without a policy, a role that the workflow lacks, and settings of a policy that no role has.
 */
export function resolvePolicies(
  config: RunConfig['policies'],
  roles: readonly string[],
  locate: Locate = () => undefined,
): ResolvedPolicy[] {
  const rolesOf = new Map<string, string[]>();
  for (const role of roles) {
    const name = policyName(config.sharing, role, roles, locate);
    rolesOf.set(name, [...(rolesOf.get(name) ?? []), role]);
  }
  const names = [...rolesOf.keys()];
  for (const name of names) {
    if (isFileName(name)) continue;
    const where = locate(['policies', 'sharing']) ?? 'policies.sharing';
    throw new TroupeError(`names a policy "${name}"; its name is one of a folder too.`, { where });
  }
  for (const name of Object.keys(config.overrides)) {
    if (names.includes(name)) continue;
    throw unknownName('policy', name, names, locate(['policies', 'overrides', name]) ?? 'policies.overrides');
  }
  return [...rolesOf].map(([name, its]) => ({
    ...settings(config.defaults, ownValue(config.overrides, name) ?? {}),
    name,
    roles: its,
  }));
}

/** The policy that plays a role. */
export function policyOf(policies: readonly ResolvedPolicy[], role: string): ResolvedPolicy {
  const policy = policies.find((one) => one.roles.includes(role));
  if (policy === undefined) {
    const known = policies.flatMap((one) => one.roles);
    throw unknownName('role', role, known, 'the workflow');
  }
  return policy;
}

function policyName(
  sharing: RunConfig['policies']['sharing'],
  role: string,
  roles: readonly string[],
  locate: Locate,
): string {
  if (sharing === 'shared') return 'shared';
  if (sharing === 'isolated') return role;
  for (const mapped of Object.keys(sharing)) {
    if (!roles.includes(mapped)) {
      throw unknownName('role', mapped, roles, locate(['policies', 'sharing', mapped]) ?? 'policies.sharing');
    }
  }
  const name = ownValue(sharing, role);
  if (name !== undefined) return name;
  throw new TroupeError(`gives no policy to the role "${role}".`, {
    where: locate(['policies', 'sharing']) ?? 'policies.sharing',
    hint: `The map names a policy for each of ${roles.join(', ')}.`,
  });
}

/** Overrides win where they are given; `lora` key by key. */
function settings(defaults: PolicySettings, override: PolicyOverride): PolicySettings {
  const given = Object.fromEntries(Object.entries(override).filter(([, value]) => value !== undefined));
  const lora = Object.fromEntries(
    Object.entries(override.lora ?? {}).filter(([, value]) => value !== undefined),
  );
  return { ...defaults, ...given, lora: { ...defaults.lora, ...lora } };
}
