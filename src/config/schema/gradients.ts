/** What is measured of gradients, and what is done to them. */
import { z } from 'zod';
import { GROUP_KEYS } from './learning.js';
import { atLeastZero, count, fraction, overrideOf } from './values.js';

export const gradients = z.strictObject({
  groups: z
    .array(z.enum(GROUP_KEYS))
    .default(['role', 'slot'])
    .describe('Gradients are measured per each combination of these.'),
  everySteps: count().default(1).describe('Measured every n-th step; on the others by role alone.'),
  method: z
    .enum(['auto', 'exact', 'sketch'])
    .default('auto')
    .describe(
      'exact: an accumulator for each group. sketch: estimates with their standard errors, one accumulator. ' +
        "auto: exact for adapters and where the accumulators take a quarter of the device's memory at most.",
    ),
  sketch: z
    .strictObject({
      replicates: z.int().min(2).default(4).describe('Independent sketches, whose spread is the error.'),
      size: z
        .union([z.literal('auto'), count()])
        .default('auto')
        .describe(
          'Each is size × size for each matrix. auto: from 8 to 24, less the more matrices there are.',
        ),
    })
    .prefault({}),
  promptBuckets: z
    .int()
    .min(0)
    .max(16)
    .multipleOf(2)
    .default(0)
    .describe(
      'Parts that the prompts of a step are split into for the noise floor; 0: not measured. Multiplies the groups.',
    ),
});

const onRole = z.strictObject({
  kl: z
    .union([atLeastZero(), z.null()])
    .default(null)
    .describe('Coefficient of the KL term for the calls of the role; null: that of `learning.kl`.'),
  rate: atLeastZero()
    .default(1)
    .describe('Factor on the learning rate; under a shared policy, on the role beside the others.'),
  freeze: z
    .boolean()
    .default(false)
    .describe("true: the role's calls are sampled and measured but give no gradient."),
  slots: z
    .enum(['sum', 'mean', 'root'])
    .default('sum')
    .describe('Gradients of the N slots: added up, times 1/N, or times 1/√N.'),
  damping: fraction()
    .default(0)
    .describe("Part of the role's gradient along its running average that is taken out, where both agree."),
  averageDecay: fraction()
    .default(0.9)
    .describe('Part of that average that stays from one update to the next.'),
});

const onPolicy = z.strictObject({
  balance: z
    .enum(['none', 'mass', 'conflicts'])
    .default('none')
    .describe(
      'Roles of a shared gradient. mass: scaled to equal norms. conflicts: parts along which roles conflict are removed (PCGrad).',
    ),
});

export const interventions = z
  .strictObject({
    defaults: onRole.prefault({}).describe('For every role.'),
    roles: z.record(z.string(), overrideOf(onRole)).prefault({}).describe('For single roles by name.'),
    ...onPolicy.shape,
    policies: z
      .record(z.string(), overrideOf(onPolicy))
      .prefault({})
      .describe('For single policies by name.'),
  })
  .describe('What is done to gradients before the optimizer gets them (docs/gradients.md).');
