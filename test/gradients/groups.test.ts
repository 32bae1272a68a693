/** Groups by role, slot and turn: what they are called, how they merge, and what mass they carry. */
import { describe, expect, it } from 'vitest';
import {
  assignGroups,
  coarserKeys,
  groupingOf,
  groupMasses,
  groupName,
  keysOf,
  mergeMasses,
} from '../../src/gradients/groups.js';

const call = (role: string, slot: number, turn: number) => ({ role, slot, turn });
const calls = [
  call('generator', 0, 0),
  call('generator', 1, 0),
  call('aggregator', 0, 0),
  call('generator', 0, 1),
  call('generator', 0, 0),
];

describe('groups', () => {
  it('are named by their keys, in the order of their first call', () => {
    const { groups, membership } = assignGroups(calls, ['role', 'slot']);
    expect(groups.map(groupName)).toEqual(['generator/0', 'generator/1', 'aggregator/0']);
    expect(membership).toEqual([0, 1, 2, 0, 0]);
    expect(assignGroups(calls, ['role', 'turn']).groups.map(groupName)).toEqual([
      'generator/0',
      'aggregator/0',
      'generator/1',
    ]);
    expect(assignGroups(calls, []).groups.map(groupName)).toEqual(['all']);
  });

  it('merge into coarser ones', () => {
    const fine = assignGroups(calls, ['role', 'slot', 'turn']);
    expect(keysOf(fine.groups)).toEqual(['role', 'slot', 'turn']);
    const { groups, membership } = assignGroups(fine.groups, ['role']);
    expect(groups.map(groupName)).toEqual(['generator', 'aggregator']);
    expect(membership).toEqual([0, 0, 1, 0]);
  });

  it('have coarser key sets that keep the first key', () => {
    expect(coarserKeys(['role', 'slot', 'turn']).map(groupingOf)).toEqual([
      'policy',
      'role',
      'role/slot',
      'role/turn',
      'role/slot/turn',
    ]);
    expect(coarserKeys(['slot']).map(groupingOf)).toEqual(['policy', 'slot']);
    expect(coarserKeys([]).map(groupingOf)).toEqual(['policy']);
  });
});

describe('masses', () => {
  const masses = groupMasses(
    [
      { group: 0, tokens: 10, advantage: -0.5, weight: 0.5 },
      { group: 0, tokens: 4, advantage: 0, weight: 0.25 },
      { group: 2, tokens: 3, advantage: 2, weight: 1 },
    ],
    3,
  );

  it('count tokens, |advantage| · tokens and calls without pressure', () => {
    expect(masses).toEqual([
      { calls: 2, tokens: 14, advantage: 5, weight: 6, zeroCalls: 1 },
      { calls: 0, tokens: 0, advantage: 0, weight: 0, zeroCalls: 0 },
      { calls: 1, tokens: 3, advantage: 6, weight: 3, zeroCalls: 0 },
    ]);
  });

  it('merge as sums', () => {
    expect(mergeMasses(masses, [0, 0, 0], 1)).toEqual([
      { calls: 3, tokens: 17, advantage: 11, weight: 9, zeroCalls: 1 },
    ]);
  });

  it('refuse a group that does not exist', () => {
    expect(() => groupMasses([{ group: 3, tokens: 1, advantage: 1, weight: 1 }], 3)).toThrow(RangeError);
  });
});
