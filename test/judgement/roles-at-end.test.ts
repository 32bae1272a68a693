/** Fails if a role that its workflow no longer reads passes for one that works, or the other way round. */
import { describe, expect, it } from 'vitest';
import { findCliff, terminalLabel } from '../../src/judgement/cliff.js';
import type { Measure, Measurements } from '../../src/judgement/history.js';
import { describeRole, rolesAtEnd } from '../../src/judgement/roles-at-end.js';

/** Series of the role "aggregator", one value a step. */
function measured(series: Partial<Record<Measure, number[]>>): Measurements {
  return {
    subjects: (measure) => (series[measure] === undefined ? [] : ['aggregator']),
    series: (measure) => (series[measure] ?? []).map((value, step) => ({ step, value })),
  };
}

describe('roles at the end', () => {
  it('are dead where the last steps are unreadable, since the first of them', () => {
    const [role] = rolesAtEnd(measured({ format: [1, 0.02, 0.5, 0.05, 0, 0, 0, 0.01] }), 5);
    expect(role).toEqual({ role: 'aggregator', readable: expect.closeTo(0.012), deadSince: 3, picks: null });
    expect(describeRole(role as never)).toBe('dead: its workflow reads 1.2 % of its responses, since step 3');
  });

  it('live where they are read again, however late, and where they are read half of the time', () => {
    for (const format of [
      [0, 0, 0, 0, 0, 0, 0, 0.6],
      [1, 1, 0.5, 0.5, 0.5, 0.5, 0.5],
    ])
      expect(rolesAtEnd(measured({ format }), 5)[0]?.deadSince).toBeNull();
  });

  it('have no verdict without a form', () => {
    expect(rolesAtEnd(measured({}), 5)).toEqual([]);
  });

  it('pick beside a random pick', () => {
    const series = { format: [1, 1], pick_right: [0.5, 0.7], random_right: [0.5, 0.3] };
    const [role] = rolesAtEnd(measured(series), 5);
    expect(role?.picks).toEqual({ right: expect.closeTo(0.6), random: expect.closeTo(0.4) });
    expect(describeRole(role as never)).toMatch(/picks a right one in 60\.0 %, a random pick in 40\.0 %$/);
  });
});

describe('the label', () => {
  const problems = (right: number) =>
    new Map(Array.from({ length: 100 }, (_, i) => [`p${i}`, [i < right]] as [string, boolean[]]));
  const cliff = (...accuracies: number[]) =>
    findCliff(accuracies.map((right, step) => ({ step, correct: problems(right) })));

  it('says that a role is dead where accuracy alone would say that all is well', () => {
    expect(terminalLabel(cliff(30, 80), [], ['aggregator'])).toBe('dead-role');
    expect(terminalLabel(cliff(30, 30), [], ['aggregator'])).toBe('dead-role');
    expect(terminalLabel(cliff(30, 80), [], [])).toBe('improved');
    expect(terminalLabel(cliff(30, 80, 30), [], ['aggregator'])).toBe('cliff');
  });
});
