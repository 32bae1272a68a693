/**
 * Guards against a kind of policy, a number of ranks or a share of the problems with which several ranks make another run
 * than one does, and against deterministic runs of several ranks that do not repeat. A few kinds are in ranks.test.ts.
 */
import { describe, expect, it } from 'vitest';
import type { RunInput } from '../../src/config/schema.js';
import { expectSameRun, inFloat64, trainOn } from './rank-runs.js';
import { remains } from './trained-run.js';

const base: RunInput = {
  steps: 2,
  evaluation: { every: 0, problems: 3, greedy: false },
  rollout: { promptsPerStep: 3, episodesPerPrompt: 3, sampling: { temperature: 1, maxTokens: 6 } },
};

const dtypes = { float32: 1e-5, float64: 1e-10 } as const;
const parameters = ['full', 'lora'] as const;
const sharings = ['shared', 'isolated'] as const;
const kinds = sharings.flatMap((sharing) =>
  parameters.flatMap((trained) =>
    (['float32', 'float64'] as const).map((dtype) => ({ sharing, trained, dtype, tolerance: dtypes[dtype] })),
  ),
);

/** One problem: the second rank has none, and no gradient of any role. */
const fewer = (over: RunInput): RunInput => ({
  ...over,
  rollout: { promptsPerStep: 1, episodesPerPrompt: 4, sampling: { temperature: 1, maxTokens: 6 } },
});

describe.each(kinds)('$sharing, $trained, $dtype', ({ sharing, trained, dtype, tolerance }) => {
  const over: RunInput = {
    ...base,
    model: { path: 'troupe-0.3m', dtype },
    policies: { sharing, defaults: { parameters: trained } },
    gradients: { groups: ['role', 'slot'] },
  };

  it('two ranks train as one does', { timeout: 300_000 }, async () => {
    const exact = await trainOn(1, inFloat64(over));
    expectSameRun(await trainOn(2, over), await trainOn(1, over), tolerance, exact);
  });

  it('with fewer problems than ranks', { timeout: 300_000 }, async () => {
    const exact = await trainOn(1, inFloat64(fewer(over)));
    expectSameRun(await trainOn(2, fewer(over)), await trainOn(1, fewer(over)), tolerance, exact);
  });
});

it('four ranks train as one does, and repeat themselves to the bit', { timeout: 300_000 }, async () => {
  const over: RunInput = { ...base, policies: { sharing: 'isolated' } };
  const [first, again] = [await trainOn(4, over), await trainOn(4, over)];
  expectSameRun(first, await trainOn(1, over), 1e-5, await trainOn(1, inFloat64(over)));
  expect(remains(again)).toEqual(remains(first));
});

it.each<[string, RunInput]>([
  [
    'damping, balance and a KL term to a moving average',
    {
      interventions: { balance: 'mass', roles: { generator: { damping: 0.5 } } },
      learning: { kl: { coefficient: 0.1, reference: 'average' } },
    },
  ],
  ['sketched statistics', { gradients: { method: 'sketch' } }],
])('two ranks train as one does, with %s', { timeout: 300_000 }, async (_what, more) => {
  const over: RunInput = { ...base, model: { path: 'troupe-0.3m', dtype: 'float64' }, ...more };
  expectSameRun(await trainOn(2, over), await trainOn(1, over), 1e-10);
});
