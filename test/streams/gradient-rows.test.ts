/** Rows of the gradient tables: what is written must be enough to find every statistic again by a query. */
import { describe, expect, it } from 'vitest';
import type { GradientStatistics } from '../../src/engine/types.js';
import type { Group } from '../../src/gradients/groups.js';
import { gradientRows, type MeasuredUpdate } from '../../src/streams/gradient-rows.js';
import { readBack } from '../runs/rows.js';

const words = { roles: ['generator', 'aggregator'], policies: ['shared'] };
const group = (role: string, slot: number, turn: number | null = null): Group => ({ role, slot, turn });

/** vectors[parameter][group], and the statistics the engine would return of them. */
function measuredOf(vectors: number[][][], groups: Group[]): MeasuredUpdate {
  const gram = vectors.flatMap((part) => {
    return part.flatMap((a) => part.map((b) => a.reduce((sum, x, i) => sum + x * (b[i] ?? 0), 0)));
  });
  const statistics: GradientStatistics = {
    method: 'exact',
    groups: groups.map(({ role, slot }) => `${role}/${slot}`),
    kinds: ['q', 'norm'],
    layers: Int32Array.from([0, -1]),
    gram: Float64Array.from(gram),
    totalNorm: Math.sqrt(gram.reduce((sum, value) => sum + value, 0)),
    tokens: groups.map(() => 10),
    rows: groups.map((_, k) => 100 + k),
  };
  const masses = groups.map((_, k) => ({
    calls: 2,
    tokens: 10 * (k + 1),
    advantage: k,
    weight: 1,
    zeroCalls: k % 2,
  }));
  return { step: 3, update: 1, policy: 'shared', updates: 2, statistics, groups, masses };
}

function written(measured: MeasuredUpdate) {
  const { gradients, pairs } = gradientRows(measured);
  return {
    gradients: readBack('gradients', gradients, words),
    pairs: readBack('gradient_pairs', pairs, words),
  };
}

const groups = [group('generator', 0), group('generator', 1), group('aggregator', 0)];
const vectors = [
  [
    [3, 0],
    [0, 4],
    [-3, -4],
  ],
  [[1], [1], [1]],
];
const { gradients, pairs } = written(measuredOf(vectors, groups));
const total = gradients.filter((row) => row.scope === 'total');
const only = (grouping: string) => total.filter((row) => row.grouping === grouping);

describe('gradients', () => {
  it('say how often the policy stepped and how heavy a token was, merged by tokens', () => {
    const weights = (grouping: string) => only(grouping).map((row) => [row.updates, row.row_weight]);
    expect(weights('role/slot')).toEqual([
      [2, 1 / 10],
      [2, 1 / 20],
      [2, 1 / 30],
    ]);
    expect(weights('role')).toEqual([
      [2, 2 / 30],
      [2, 1 / 30],
    ]);
  });

  it('hold every scope of every grouping', () => {
    // 1 policy + 2 roles + 3 slots in total, 2 kinds and 2 layers.
    expect(gradients).toHaveLength((1 + 2 + 3) * 5);
    expect(new Set(gradients.map((row) => `${row.scope}:${row.kind ?? row.layer}`))).toEqual(
      new Set(['total:null', 'kind:q', 'kind:norm', 'layer:-1', 'layer:0']),
    );
    expect(gradients.every((row) => row.step === 3 && row.update === 1 && row.policy === 'shared')).toBe(
      true,
    );
  });

  it('may be of more groups than a function takes arguments for their pairs', () => {
    const many = Array.from({ length: 520 }, (_, slot) => group('generator', slot));
    const { pairs } = gradientRows(measuredOf([many.map(() => [1]), many.map(() => [2])], many));
    expect(pairs.filter(({ scope, grouping }) => scope === 'total' && grouping === 'role/slot')).toHaveLength(
      (520 * 519) / 2,
    );
  });

  it('tell the whole gradient and how the roles share it', () => {
    const [policy] = only('policy');
    // g = (0, 0 | 3); roles (3, 4 | 2) and (−3, −4 | 1).
    const mass = Math.sqrt(29) + Math.sqrt(26);
    expect(policy?.norm).toBeCloseTo(3, 12);
    expect(policy?.dominance).toBeCloseTo(Math.sqrt(29) / mass, 12);
    expect(policy?.members).toBe(2);
    expect(policy?.coherence).toBeCloseTo(3 / mass, 12);
    expect(policy).toMatchObject({ role: null, slot: null, mass_share: null, projection_share: null });
    expect(policy).toMatchObject({ calls: 6, tokens: 60, rows: 303, token_share: 1, advantage_mass: 3 });
  });

  it('tell each role with the coherence of its slots', () => {
    const [generator, aggregator] = only('role');
    expect(generator).toMatchObject({
      role: 'generator',
      slot: null,
      members: 2,
      tokens: 30,
      dominance: null,
    });
    expect(generator?.norm).toBeCloseTo(Math.sqrt(29), 12);
    expect(generator?.coherence).toBeCloseTo(Math.sqrt(29) / (Math.sqrt(10) + Math.sqrt(17)), 12);
    expect(generator?.amplification).toBeCloseTo(2 * Number(generator?.coherence), 12);
    expect(aggregator).toMatchObject({ role: 'aggregator', members: 1 });
    expect(aggregator?.coherence).toBeCloseTo(1, 12);
    // ⟨g_role, g⟩ / ‖g‖² = 2 · 3 / 9 and 1 · 3 / 9.
    expect(generator?.projection_share).toBeCloseTo(2 / 3, 12);
    expect(aggregator?.projection_share).toBeCloseTo(1 / 3, 12);
  });

  it('tell each slot', () => {
    const slots = only('role/slot');
    expect(slots.map((row) => [row.role, row.slot, row.rows])).toEqual([
      ['generator', 0, 100],
      ['generator', 1, 101],
      ['aggregator', 0, 102],
    ]);
    expect(slots.reduce((sum, row) => sum + Number(row.mass_share), 0)).toBeCloseTo(1, 12);
    expect(slots.every((row) => row.coherence === null && row.members === null)).toBe(true);
  });

  it('with the pairs give the identity back: Σ ‖g_k‖² + 2 Σ G_kl = ‖g‖²', () => {
    for (const grouping of ['role', 'role/slot']) {
      const squares = only(grouping).reduce((sum, row) => sum + Number(row.norm) ** 2, 0);
      const between = pairs
        .filter((row) => row.scope === 'total' && row.grouping === grouping)
        .reduce((sum, row) => sum + 2 * Number(row.gram), 0);
      expect(squares + between).toBeCloseTo(9, 10);
    }
  });
});

describe('pairs', () => {
  it('are unordered, within one grouping', () => {
    expect(pairs).toHaveLength((1 + 3) * 5);
    const roles = pairs.filter((row) => row.scope === 'total' && row.grouping === 'role');
    expect(roles).toHaveLength(1);
    expect(roles[0]).toMatchObject({ role_a: 'generator', role_b: 'aggregator', slot_a: null });
    expect(roles[0]?.gram).toBeCloseTo(-25 + 2, 12);
    expect(roles[0]?.cosine).toBeCloseTo(-23 / Math.sqrt(29 * 26), 12);
  });
});

describe('turns', () => {
  it('merge into slots before slots are compared', () => {
    const turns = [group('generator', 0, 0), group('generator', 0, 1), group('generator', 1, 0)];
    const rows = written(measuredOf(vectors, turns)).gradients.filter((row) => row.scope === 'total');
    expect(rows.map((row) => row.grouping)).toEqual([
      'policy',
      'role',
      ...['role/slot', 'role/slot'],
      ...['role/turn', 'role/turn'],
      ...['role/slot/turn', 'role/slot/turn', 'role/slot/turn'],
    ]);
    const role = rows.find((row) => row.grouping === 'role');
    // Slot 0 is (3, 4 | 2), slot 1 (−3, −4 | 1): opposed but for the last parameter.
    expect(role?.coherence).toBeCloseTo(3 / (Math.sqrt(29) + Math.sqrt(26)), 12);
    const turn = rows.find((row) => row.grouping === 'role/turn' && row.turn === 0);
    expect(turn).toMatchObject({ members: 2, slot: null });
  });
});

describe('a role that never fires', () => {
  it('has norm 0, and null where there is nothing to divide by', () => {
    const silent = written(
      measuredOf(
        [
          [[1], [0]],
          [[2], [0]],
        ],
        [group('generator', 0), group('aggregator', 0)],
      ),
    );
    const rows = silent.gradients.filter((row) => row.scope === 'total' && row.grouping === 'role');
    expect(rows[1]).toMatchObject({ role: 'aggregator', norm: 0, mass_share: 0, coherence: null });
    expect(silent.pairs.every((row) => row.cosine === null && row.gram === 0)).toBe(true);
  });
});
