/**
 * Statistics of hand-made gradients: every number here can be checked on paper. A statistic that divides by
 * zero, or an identity check that cannot fail, would show wrong physics without any error.
 */
import { describe, expect, it } from 'vitest';
import type { GradientStatistics } from '../../src/engine/types.js';
import {
  checkIdentity,
  coherence,
  cosine,
  dominance,
  effectiveGroups,
  GradientIdentityError,
  type Gram,
  identityDeviation,
  massShares,
  mergeGroups,
  norms,
  projectionShares,
  scopes,
  squaredNorm,
  sumGrams,
} from '../../src/gradients/statistics.js';

/** Gram matrix of some vectors. */
function gramOf(vectors: readonly (readonly number[])[]): Gram {
  const values = vectors.flatMap((a) =>
    vectors.map((b) => a.reduce((sum, x, i) => sum + x * (b[i] ?? 0), 0)),
  );
  return { size: vectors.length, values: Float64Array.from(values) };
}

const normOf = (vector: readonly number[]) => Math.sqrt(vector.reduce((sum, x) => sum + x * x, 0));
const add = (a: readonly number[], b: readonly number[]) => a.map((x, i) => x + (b[i] ?? 0));

/** Statistics of groups whose gradient has one part per parameter: parts[parameter][group]. */
function statisticsOf(
  parts: readonly (readonly (readonly number[])[])[],
  kinds: string[],
  layers: number[],
): GradientStatistics {
  const groups = parts[0]?.length ?? 0;
  const total = parts.flatMap((part) => part.reduce(add));
  return {
    method: 'exact',
    groups: Array.from({ length: groups }, (_, k) => `group/${k}`),
    kinds,
    layers: Int32Array.from(layers),
    gram: Float64Array.from(parts.flatMap((part) => [...gramOf(part).values])),
    totalNorm: normOf(total),
    tokens: new Array(groups).fill(1),
    rows: new Array(groups).fill(1),
  };
}

describe('shares', () => {
  const gram = gramOf([
    [3, 4],
    [0, 5],
    [0, 0],
  ]);

  it('are of norms, and sum to 1', () => {
    expect(norms(gram)).toEqual([5, 5, 0]);
    expect(massShares(gram)).toEqual([0.5, 0.5, 0]);
    expect(dominance(gram)).toBe(0.5);
    expect(effectiveGroups(gram)).toBeCloseTo(2, 14);
  });

  it('of one group are whole', () => {
    expect(dominance(gramOf([[2]]))).toBe(1);
    expect(effectiveGroups(gramOf([[2]]))).toBe(1);
  });

  it('of the direction are signed and sum to 1', () => {
    // g = (3, 9), ‖g‖² = 90; ⟨(3,4), g⟩ = 45, ⟨(0,5), g⟩ = 45.
    expect(projectionShares(gram)).toEqual([0.5, 0.5, 0]);
    // g = (1, 0): ⟨(2,0), g⟩ = 2, ⟨(−1,0), g⟩ = −1.
    expect(
      projectionShares(
        gramOf([
          [2, 0],
          [-1, 0],
        ]),
      ),
    ).toEqual([2, -1]);
  });

  it('without a denominator are null', () => {
    const nothing = gramOf([[0], [0]]);
    expect(massShares(nothing)).toEqual([null, null]);
    expect(dominance(nothing)).toBeNull();
    expect(effectiveGroups(nothing)).toBeNull();
    expect(projectionShares(nothing)).toEqual([null, null]);
  });

  it('of a direction that cancels are null, also where rounding leaves a trace', () => {
    expect(
      projectionShares(
        gramOf([
          [1, 0],
          [-1, 0],
        ]),
      ),
    ).toEqual([null, null]);
    const a = [0.1, 0.2, 0.3];
    const trace = gramOf([a, a.map((x) => -x * (1 + 1e-9))]);
    expect(squaredNorm(trace)).toBeNull();
    expect(projectionShares(trace)).toEqual([null, null]);
  });
});

describe('cosine', () => {
  it('tells aligned, orthogonal and opposed groups apart', () => {
    const gram = gramOf([
      [1, 0],
      [2, 0],
      [0, 3],
      [-5, 0],
      [0, 0],
    ]);
    expect([1, 2, 3].map((l) => cosine(gram, 0, l))).toEqual([1, 0, -1]);
    expect(cosine(gram, 0, 4)).toBeNull();
  });
});

describe('coherence', () => {
  it('is 1 for aligned slots, which amplify N times', () => {
    expect(
      coherence(
        gramOf([
          [3, 4],
          [6, 8],
          [9, 12],
        ]),
        [0, 1, 2],
      ),
    ).toEqual({
      members: 3,
      coherence: 1,
      amplification: 3,
      cancellation: 0,
    });
  });

  it('is 1/√N for orthogonal slots of one size', () => {
    const result = coherence(
      gramOf([
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
      ]),
      [0, 1, 2, 3],
    );
    expect(result.coherence).toBeCloseTo(0.5, 14);
    expect(result.amplification).toBeCloseTo(2, 14);
  });

  it('is 0 for opposed slots, and null without gradients', () => {
    expect(coherence(gramOf([[2], [-2]]), [0, 1])).toMatchObject({ coherence: 0, cancellation: 1 });
    expect(coherence(gramOf([[0], [0]]), [0, 1])).toEqual({
      members: 2,
      coherence: null,
      amplification: null,
      cancellation: null,
    });
  });

  it('looks at the members alone', () => {
    expect(
      coherence(
        gramOf([
          [1, 0],
          [100, 1],
          [1, 0],
        ]),
        [0, 2],
      ).coherence,
    ).toBe(1);
  });
});

describe('merging', () => {
  it('gives the Gram matrix of the summed gradients', () => {
    const vectors = [
      [1, 2, 3],
      [-1, 0, 4],
      [2, 2, 2],
      [0, -7, 1],
    ];
    const merged = mergeGroups(gramOf(vectors), [0, 1, 0, 1], 2);
    const sums = [add(vectors[0] ?? [], vectors[2] ?? []), add(vectors[1] ?? [], vectors[3] ?? [])];
    expect([...merged.values]).toEqual([...gramOf(sums).values]);
  });
});

describe('scopes', () => {
  const parts = [
    [
      [1, 2],
      [3, -1],
    ],
    [[0.5], [2]],
    [
      [4, 0, 1],
      [-1, 1, 1],
    ],
  ];
  const statistics = statisticsOf(parts, ['q', 'norm', 'q'], [0, -1, 1]);

  it('are the total, each kind, and each layer with the parameters of none', () => {
    const found = scopes(statistics);
    expect(found.map(({ scope, kind, layer }) => [scope, kind, layer])).toEqual([
      ['total', null, null],
      ['kind', 'q', null],
      ['kind', 'norm', null],
      ['layer', null, -1],
      ['layer', null, 0],
      ['layer', null, 1],
    ]);
    const whole = [0, 1].map((k) => parts.flatMap((part) => part[k] ?? []));
    expect([...(found[0]?.gram.values ?? [])]).toEqual([...gramOf(whole).values]);
    expect([...(found[1]?.gram.values ?? [])]).toEqual([
      ...gramOf([0, 1].map((k) => [...(parts[0]?.[k] ?? []), ...(parts[2]?.[k] ?? [])])).values,
    ]);
  });

  it('add up: kinds and layers are partitions', () => {
    for (const scope of ['kind', 'layer']) {
      const its = scopes(statistics).filter((one) => one.scope === scope);
      const sum = its.reduce(
        (values, one) => values.map((x, i) => x + (one.gram.values[i] ?? 0)),
        new Float64Array(4),
      );
      sum.forEach((value, i) => {
        expect(value).toBeCloseTo(sumGrams(statistics, () => true).values[i] ?? 0, 12);
      });
    }
  });
});

describe('identity', () => {
  const parts = [
    [
      [1, 2],
      [3, -1],
    ],
    [[0.5], [2]],
  ];

  it('holds for whole statistics', () => {
    expect(checkIdentity(statisticsOf(parts, ['q', 'norm'], [0, 0]), 'shared')).toBeLessThan(1e-15);
  });

  it('fails when a parameter is left out', () => {
    const statistics = statisticsOf(parts, ['q', 'norm'], [0, 0]);
    statistics.gram.fill(0, 4);
    expect(() => checkIdentity(statistics, 'shared')).toThrow(GradientIdentityError);
    expect(() => checkIdentity(statistics, 'shared')).toThrow(/policy shared/);
  });

  it('fails when groups are attributed wrongly', () => {
    const statistics = statisticsOf(parts, ['q', 'norm'], [0, 0]);
    statistics.gram[1] = -(statistics.gram[1] ?? 0);
    expect(() => checkIdentity(statistics, 'shared')).toThrow(GradientIdentityError);
  });

  it('fails on numbers that are not finite', () => {
    const statistics = statisticsOf(parts, ['q', 'norm'], [0, 0]);
    statistics.gram[0] = Number.NaN;
    expect(() => checkIdentity(statistics, 'shared')).toThrow(GradientIdentityError);
  });

  it('is measured against the mass, so that roles that cancel do not trip it', () => {
    // ‖g‖² is 1e-8 of the mass squared; an error of 1e-6 of the mass squared is 100 times ‖g‖².
    const gram = gramOf([
      [1, 0],
      [-1, 2e-4],
    ]);
    const norm = Math.sqrt(2e-4 ** 2 + 4e-6);
    expect(identityDeviation(gram, norm)).toBeCloseTo(1e-6, 9);
    expect(identityDeviation(gramOf([[0], [0]]), 0)).toBe(0);
    expect(identityDeviation(gramOf([[0], [0]]), 1)).toBe(Number.POSITIVE_INFINITY);
  });
});
