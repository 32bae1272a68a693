/** The estimators of advantages by name, each with the schema of its settings, and users' files. */
import { z } from 'zod';
import { TroupeError } from '../config/errors.js';
import { importWithSchema } from '../config/import-module.js';
import { findPath } from '../config/package.js';
import { readOnly } from '../config/read-only.js';
import { anySettings, entry, openEntry, type Registry, type SectionPlace } from '../config/registry.js';
import type { RunConfig } from '../config/schema.js';
import { shownValue } from '../config/thrown.js';
import { shownFile, userError } from '../config/user-code.js';
import { grpo, rloo } from './estimators/group-mean.js';
import { rae } from './estimators/rae.js';
import { reinforcePlusPlus } from './estimators/reinforce.js';
import type { Estimator, EstimatorFunction, EstimatorInput } from './estimators/types.js';

const none = z.strictObject({});

export const estimators: Registry<Estimator> = {
  what: 'estimator',
  entries: {
    grpo: entry(
      z.strictObject({
        normalise: z
          .enum(['std', 'batch', 'none'])
          .default('std')
          .describe(
            "The advantage is divided by the standard deviation (unbiased, + 1e-6) of the group, or of the batch: all rewards of the policy's calls in the step.",
          ),
      }),
      ({ normalise }) => grpo(normalise),
    ),
    'dr-grpo': entry(none, () => grpo('none')),
    rloo: entry(none, () => rloo),
    'reinforce++': entry(none, () => reinforcePlusPlus(false)),
    'reinforce++-baseline': entry(none, () => reinforcePlusPlus(true)),
    rae: entry(
      z.strictObject({
        decay: z
          .number()
          .min(0)
          .lt(1)
          .default(0.95)
          .describe('Part of the running mean that stays from one episode to the next.'),
      }),
      ({ decay }) => rae(decay),
    ),
  },
  fromFile: async (file) => {
    const { exported, schema = anySettings } = await importWithSchema<EstimatorFunction>(file, {
      what: 'estimator',
      takes: 'a function (input, settings) => advantages',
      is: (value): value is EstimatorFunction => typeof value === 'function',
    });
    const where = shownFile(findPath(file));
    return { schema, make: (settings) => guarded(exported, settings as Record<string, unknown>, where) };
  },
};

/** A user's function may throw, or return and keep what is no number. */
function guarded(estimate: EstimatorFunction, settings: Record<string, unknown>, where: string): Estimator {
  return (input: EstimatorInput) => {
    try {
      return advantagesOf(estimate(copyOf(input), settings), input, where);
    } catch (error) {
      throw userError(where, 'the estimator', error);
    }
  };
}

function advantagesOf(given: unknown, { calls, memory }: EstimatorInput, where: string): number[] {
  const advantages: unknown = ArrayBuffer.isView(given) ? Array.from(given as Float64Array) : given;
  if (!Array.isArray(advantages) || advantages.length !== calls.length) {
    const got = Array.isArray(advantages) ? `${advantages.length} advantages` : shownValue(advantages);
    throw new TroupeError(`the estimator returned ${got} for ${calls.length} calls.`, { where });
  }
  // `undefined` among them is wrong too.
  const values: unknown[] = [...advantages, ...Object.values(memory)];
  const wrong = values.findIndex((value) => !Number.isFinite(value));
  if (wrong < 0) return advantages as number[];
  throw new TroupeError(
    `the estimator gave or keeps ${shownValue(values[wrong])}; it takes finite numbers.`,
    {
      where,
    },
  );
}

/** What it sorts, empties or overwrites is not the step's own, and calls and episodes cannot be. Its memory can. */
function copyOf({ calls, groups, memory }: EstimatorInput): EstimatorInput {
  const copies = new Map<unknown, unknown>();
  const copied = calls.map((one) => ({
    ...one,
    call: readOnly(one.call, copies),
    episode: readOnly(one.episode, copies),
  }));
  return { calls: copied, groups: structuredClone(groups), memory };
}

/** The estimator that `learning.estimator` names. Throws a TroupeError for an unknown name, a wrong setting or file. */
export function openEstimator(
  section: RunConfig['learning']['estimator'],
  locate?: SectionPlace['locate'],
): Promise<Estimator> {
  return openEntry(estimators, section, { path: ['learning', 'estimator'], locate }, undefined);
}
