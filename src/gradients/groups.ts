/**
 * Gradient groups: which calls are added up. A group is named by the keys that its calls share (role, slot,
 * turn), e.g. "generator/0" by role and slot, and finer groups merge into coarser ones. The Gram matrices
 * themselves are the business of statistics.ts.
 */
import type { GroupKey } from '../config/schema.js';

/** What a call shares with its group; null where the group does not look at it. */
export interface Group {
  role: string | null;
  slot: number | null;
  turn: number | null;
}

export const GROUPINGS = [
  'policy',
  'role',
  'slot',
  'turn',
  'role/slot',
  'role/turn',
  'slot/turn',
  'role/slot/turn',
] as const;
/** Keys that a set of groups looks at; 'policy' is the one group of all calls. */
export type Grouping = (typeof GROUPINGS)[number];

const ORDER: readonly GroupKey[] = ['role', 'slot', 'turn'];

/** The group of a call, or the coarser one of a group: the keys outside `keys` are null. */
function groupOf(call: Group, keys: readonly GroupKey[]): Group {
  return {
    role: keys.includes('role') ? call.role : null,
    slot: keys.includes('slot') ? call.slot : null,
    turn: keys.includes('turn') ? call.turn : null,
  };
}

/** "generator/0" by role and slot; "all" without keys. Keys always come in the order role, slot, turn. */
export function groupName(group: Group): string {
  const parts = ORDER.map((key) => group[key]).filter((part) => part !== null);
  return parts.length === 0 ? 'all' : parts.join('/');
}

/**
 * Distinct groups of some calls when only `keys` are looked at, in the order of their first call, and each
 * call's index into them. Given groups instead of calls, it says how they merge into coarser ones.
 */
export function assignGroups(
  calls: readonly Group[],
  keys: readonly GroupKey[],
): { groups: Group[]; membership: number[] } {
  const groups: Group[] = [];
  const positions = new Map<string, number>();
  const membership = calls.map((call) => {
    const group = groupOf(call, keys);
    const name = groupName(group);
    let position = positions.get(name);
    if (position === undefined) {
      position = groups.push(group) - 1;
      positions.set(name, position);
    }
    return position;
  });
  return { groups, membership };
}

/** The keys that all of these groups look at, i.e. how fine they are. */
export function keysOf(groups: readonly Group[]): GroupKey[] {
  return ORDER.filter((key) => groups.length > 0 && groups.every((group) => group[key] !== null));
}

/** 'policy' without keys. */
export function groupingOf(keys: readonly GroupKey[]): Grouping {
  const name = ORDER.filter((key) => keys.includes(key)).join('/');
  return name === '' ? 'policy' : (name as Grouping);
}

/**
 * Key sets that the streams report for groups this fine: none (the whole policy), then every set that keeps the
 * first key, coarse to fine. [role, slot, turn] gives [], [role], [role, slot], [role, turn], [role, slot, turn].
 */
export function coarserKeys(keys: readonly GroupKey[]): GroupKey[][] {
  const [first, ...rest] = ORDER.filter((key) => keys.includes(key));
  if (first === undefined) return [[]];
  const subsets: GroupKey[][] = [[first]];
  for (const key of rest) subsets.push(...subsets.map((set) => [...set, key]));
  return [[], ...subsets.sort((a, b) => a.length - b.length)];
}

/** Where the pressure comes from: sums over a group's calls. */
export interface GroupMass {
  calls: number;
  /** Response tokens. */
  tokens: number;
  /** Σ |advantage| · response tokens. */
  advantage: number;
  /** Σ row weight · response tokens. */
  weight: number;
  /** Calls with advantage 0. */
  zeroCalls: number;
}

const noMass = (): GroupMass => ({ calls: 0, tokens: 0, advantage: 0, weight: 0, zeroCalls: 0 });

/** Token and advantage mass of each of `size` groups, over all calls, those without a backward pass included. */
export function groupMasses(
  calls: readonly { group: number; tokens: number; advantage: number; weight: number }[],
  size: number,
): GroupMass[] {
  const masses = Array.from({ length: size }, noMass);
  for (const call of calls) {
    const mass = masses[call.group];
    if (mass === undefined) throw new RangeError(`call of group ${call.group}, but there are ${size} groups`);
    mass.calls += 1;
    mass.tokens += call.tokens;
    mass.advantage += Math.abs(call.advantage) * call.tokens;
    mass.weight += call.weight * call.tokens;
    if (call.advantage === 0) mass.zeroCalls += 1;
  }
  return masses;
}

/** Masses of merged groups. */
export function mergeMasses(
  masses: readonly GroupMass[],
  membership: readonly number[],
  size: number,
): GroupMass[] {
  const merged = Array.from({ length: size }, noMass);
  masses.forEach((mass, k) => {
    const into = merged[membership[k] ?? 0];
    if (into === undefined) return;
    into.calls += mass.calls;
    into.tokens += mass.tokens;
    into.advantage += mass.advantage;
    into.weight += mass.weight;
    into.zeroCalls += mass.zeroCalls;
  });
  return merged;
}
