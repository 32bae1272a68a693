/**
 * Interventions: what each does to the statistic that it is for, in whole small runs and in the arithmetic behind
 * them, and that a run with gradient averages resumes to the bit.
 */
import { describe, expect, it } from 'vitest';
import { loadRunConfig } from '../../src/config/load.js';
import type { RunInput } from '../../src/config/schema.js';
import { combinationOf, combinedGram } from '../../src/engine/intervention.js';
import type { InterventionRequest } from '../../src/engine/types.js';
import { keptByTraining } from '../../src/learning/treatment.js';
import { resolvePolicies } from '../../src/policies/routing.js';
import { newFolder, remains, resumedRun, type TrainedRun, trainedRun } from './trained-run.js';

type Row = Record<string, unknown>;
const shared: RunInput = { policies: { sharing: 'shared', defaults: { learningRate: 1e-3 } } };

/** Rows of the roles in total, with a gradient. */
function roles(run: TrainedRun, role?: string): Row[] {
  return run
    .rows('gradients')
    .filter((row) => row.grouping === 'role' && row.scope === 'total' && (row.norm as number) > 0)
    .filter((row) => role === undefined || row.role === role);
}

function expectIdentity(run: TrainedRun): void {
  for (const row of run.rows('updates')) expect(row.identity_deviation).toBeLessThan(1e-5);
}

/** Vectors in the plane, two roles and their averages. */
function gramOf(vectors: number[][]) {
  const values = vectors.flatMap((a) =>
    vectors.map((b) => a.reduce((sum, x, i) => sum + x * (b[i] ?? 0), 0)),
  );
  return { size: vectors.length, values: Float64Array.from(values) };
}
const NONE = { groups: [], slotFactor: 1, damping: 0, averageDecay: 0.9, rate: 1 };
const request = (over: Partial<InterventionRequest> = {}): InterventionRequest => ({
  roles: [
    { ...NONE, role: 'a' },
    { ...NONE, role: 'b' },
  ],
  balance: 'none',
  order: [1, 0],
  ...over,
});

it('what updates are going to keep beside the moments: a reference for KL, an average for each role where one is damped', () => {
  const kept = (...overrides: string[]) => {
    const { config, locate } = loadRunConfig(undefined, ['policies.sharing=isolated', ...overrides]);
    const policies = resolvePolicies(config.policies, ['voter', 'aggregator'], locate);
    return policies.map((policy) => Object.values(keptByTraining(config, policy)));
  };
  const nothing = [false, 0];
  expect(kept()).toEqual([nothing, nothing]);
  expect(kept('learning.kl.coefficient=0.1')).toEqual([
    [true, 0],
    [true, 0],
  ]);
  expect(kept('interventions.roles={ voter: { kl: 0.1, damping: 0.5 } }')).toEqual([[true, 1], nothing]);
  const damped = 'interventions.roles={ voter: { damping: 0.5 } }';
  expect(kept('policies.sharing=shared', damped)).toEqual([[false, 2]]);
  expect(kept(damped, 'policies.overrides={ voter: { freeze: true } }')).toEqual([nothing, nothing]);
});

describe('statistics of the optimizer', () => {
  it('shares of groups, momentum and decay sum to 1 in every scope', async () => {
    const run = await trainedRun({ ...shared, steps: 3 });
    const rows = run.rows('gradients').filter((row) => row.optimizer_share !== null);
    const scopes = new Set(rows.map((row) => [row.step, row.update, row.scope, row.kind, row.layer].join()));
    expect(scopes.size).toBeGreaterThan(20);
    for (const grouping of ['policy', 'role', 'role/slot']) {
      for (const key of scopes) {
        const sum = rows
          .filter((row) => [row.step, row.update, row.scope, row.kind, row.layer].join() === key)
          .filter((row) => [grouping, 'momentum', 'decay'].includes(row.grouping as string))
          .reduce((total, row) => total + (row.optimizer_share as number), 0);
        expect(sum).toBeCloseTo(1, 9);
      }
    }
    const momentum = rows.filter((row) => row.grouping === 'momentum' && row.scope === 'total');
    expect(momentum[0]?.optimizer_share).toBe(0);
    expect(momentum[1]?.optimizer_share).not.toBe(0);
  });

  it('the coherence of updates is 1 for one and at most 1 for several', async () => {
    const run = await trainedRun({ ...shared, steps: 4, learning: { miniBatches: 3 } });
    const rows = run.rows('updates').filter((row) => row.update_coherence !== null);
    expect(rows.filter((row) => row.update === 0).every((row) => row.update_coherence === 1)).toBe(true);
    const last = rows.filter((row) => row.update === 2).map((row) => row.update_coherence as number);
    expect(last.length).toBeGreaterThan(0);
    for (const value of last) {
      expect(value).toBeGreaterThan(0);
      expect(value).toBeLessThanOrEqual(1);
    }
    expect(Math.min(...last)).toBeLessThan(0.99);
  });
});

describe('slot averaging', () => {
  it.each([
    ['mean', 3],
    ['root', Math.sqrt(3)],
  ] as const)('%s divides the gradient of three slots', async (slots, by) => {
    const run = await trainedRun({ ...shared, interventions: { defaults: { slots } } });
    const generators = roles(run, 'generator');
    expect(generators.length).toBeGreaterThan(0);
    for (const row of generators) expect(row.applied_norm).toBeCloseTo((row.norm as number) / by, 9);
    for (const row of roles(run, 'aggregator')) expect(row.applied_norm).toBeCloseTo(row.norm as number, 9);
    expectIdentity(run);
  });
});

describe('balancing a shared gradient', () => {
  it('mass: roles of unequal norms get equal ones', async () => {
    const run = await trainedRun({ ...shared, interventions: { balance: 'mass' } });
    const both = run.rows('gradients').filter((row) => row.grouping === 'policy' && row.scope === 'total');
    expect(both.some((row) => (row.dominance as number) > 0.55)).toBe(true);
    for (const row of roles(run))
      expect([0.5, 1]).toContainEqual(Number((row.applied_share as number).toFixed(9)));
    expectIdentity(run);
  });

  it('conflicts: none is left between two roles, and agreement is left alone', () => {
    const opposed = gramOf([
      [1, 0],
      [-1, 1],
      [0, 0],
      [0, 0],
    ]);
    const combination = combinationOf(opposed, request({ balance: 'conflicts' }));
    const [aa, ab, , bb] = combinedGram(opposed, combination);
    // a loses its part along b: (1, 0) + ½ (−1, 1); b its part along a.
    expect(aa).toBeCloseTo(0.5, 12);
    expect(bb).toBeCloseTo(1, 12);
    expect(ab).toBeCloseTo(0.5, 12);
    const agreed = gramOf([
      [1, 0],
      [1, 1],
      [0, 0],
      [0, 0],
    ]);
    expect(combinationOf(agreed, request({ balance: 'conflicts' }))).toEqual([
      [1, 0, 0, 0],
      [0, 1, 0, 0],
    ]);
  });

  it('conflicts: cosines below 0 are above 0 afterwards', async () => {
    const run = await trainedRun({
      ...shared,
      steps: 6,
      interventions: { policies: { shared: { balance: 'conflicts' } } },
    });
    const pairs = run
      .rows('gradient_pairs')
      .filter((row) => row.grouping === 'role' && row.scope === 'total');
    for (const { cosine, applied_cosine: applied } of pairs) {
      if (cosine === null) continue;
      if ((cosine as number) >= 0) expect(applied).toBeCloseTo(cosine as number, 9);
      else expect(applied).toBeCloseTo(-(cosine as number), 6);
    }
    expectIdentity(run);
  });
});

describe('damping', () => {
  const damped = { ...NONE, role: 'a', damping: 1 };

  it('takes out what agrees with the average, and nothing of what opposes it', () => {
    const roles = [damped, { ...damped, role: 'b' }];
    const gram = gramOf([
      [1, 2],
      [-1, 1],
      [0.5, 0],
      [0.5, 0],
    ]);
    const [a, b] = combinationOf(gram, request({ roles }));
    // (1, 2) − 2 · (0.5, 0) = (0, 2); (−1, 1) opposes.
    expect(a).toEqual([1, 0, -2, 0]);
    expect(b).toEqual([0, 1, 0, 0]);
  });

  const over: RunInput = {
    ...shared,
    steps: 8,
    interventions: { roles: { generator: { damping: 0.8, averageDecay: 0.5 } } },
    checkpoints: { every: 1 },
  };

  it('shortens gradients that agree with those before, for that role alone', async () => {
    const run = await trainedRun(over);
    const rows = roles(run, 'generator');
    const ratio = (row: Row) => (row.applied_norm as number) / (row.norm as number);
    expect(ratio(rows[0] as Row)).toBeCloseTo(1, 9);
    for (const row of rows) expect(ratio(row)).toBeLessThan(1 + 1e-9);
    expect(rows.some((row) => ratio(row) < 1 - 1e-6)).toBe(true);
    for (const row of roles(run, 'aggregator')) expect(ratio(row)).toBeCloseTo(1, 9);
    expectIdentity(run);
  });

  it('resumes to the bit', async () => {
    const whole = await trainedRun(over);
    const folder = newFolder();
    await expect(trainedRun(over, folder, { crash: 2 })).rejects.toThrow('crash');
    const resumed = await resumedRun(over, folder);
    expect(remains(resumed.folder)).toEqual(remains(whole.folder));
  });
});

describe('roles of a shared policy', () => {
  it('a rate of 0 beside 1 leaves the gradient of the other role', async () => {
    const run = await trainedRun({ ...shared, interventions: { roles: { aggregator: { rate: 0 } } } });
    for (const row of roles(run, 'aggregator'))
      expect(row).toMatchObject({ applied_norm: 0, applied_share: 0 });
    for (const row of roles(run, 'generator')) expect(row.applied_norm).toBeCloseTo(row.norm as number, 9);
    for (const row of run.rows('updates')) expect(row.learning_rate).toBe(1e-3);
    expectIdentity(run);
  });

  it('a rate of their own scales the learning rate of isolated ones', async () => {
    const run = await trainedRun({
      policies: { defaults: { learningRate: 1e-3 } },
      interventions: { roles: { aggregator: { rate: 0.5 } } },
    });
    for (const row of run.rows('updates')) {
      expect(row.learning_rate).toBeCloseTo(row.policy === 'aggregator' ? 5e-4 : 1e-3, 12);
    }
  });

  it('a frozen one gives no gradient', async () => {
    const run = await trainedRun({ ...shared, interventions: { roles: { aggregator: { freeze: true } } } });
    const rows = run.rows('gradients').filter((row) => row.grouping === 'role' && row.scope === 'total');
    const aggregators = rows.filter((row) => row.role === 'aggregator');
    expect(aggregators.length).toBeGreaterThan(0);
    for (const row of aggregators) expect(row).toMatchObject({ norm: 0, row_weight: 0 });
    const measured = run.rows('roles').filter((row) => row.role === 'aggregator');
    expect(measured.every((row) => (row.mismatch_calls as number) > 0)).toBe(true);
    const trained = run.rows('calls').filter((row) => row.trained === true);
    expect(trained.length).toBeGreaterThan(0);
    expect(trained.every((row) => row.role === 'generator')).toBe(true);
  });

  it('a KL anchor pulls on its role alone', async () => {
    const plain = await trainedRun(shared);
    const anchored = await trainedRun({ ...shared, interventions: { roles: { generator: { kl: 5 } } } });
    // At the start the anchor has no gradient, so the first steps are the same.
    const norm = (run: TrainedRun, role: string, step: number) =>
      roles(run, role).find((row) => row.step === step)?.norm as number;
    expect(norm(anchored, 'generator', 0)).toBeCloseTo(norm(plain, 'generator', 0), 4);
    expect(norm(anchored, 'aggregator', 1)).toBeCloseTo(norm(plain, 'aggregator', 1), 4);
    expect(norm(anchored, 'generator', 1)).toBeGreaterThan(1.01 * norm(plain, 'generator', 1));
  });

  it('an unknown role is an error that names the known ones', async () => {
    await expect(trainedRun({ interventions: { roles: { judge: { kl: 1 } } } })).rejects.toThrow(
      /judge.*generator/,
    );
  });
});

describe('one update', () => {
  it.each(['shared', 'isolated'] as const)(
    'per policy and step, %s, whatever the mini-batches',
    async (sharing) => {
      const run = await trainedRun({
        steps: 1,
        policies: { sharing },
        learning: { miniBatches: 4, updates: 'one' },
      });
      const updates = run.rows('updates');
      expect(updates).toHaveLength(sharing === 'shared' ? 1 : 2);
      for (const row of updates) expect(row).toMatchObject({ updates: 1, update: 0 });
    },
  );
});
