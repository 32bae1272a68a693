/** Which policy plays which role, and how each is trained. */
import { z } from 'zod';
import { atLeastZero, count, overrideOf } from './values.js';

const TARGETS = ['q', 'k', 'v', 'o', 'gate', 'up', 'down'] as const;

const lora = z.strictObject({
  rank: count().default(16).describe('Rank of the adapters.'),
  alpha: z.number().positive().default(32).describe('Scale: the adapter is multiplied by alpha / rank.'),
  targets: z
    .union([z.literal('all'), z.array(z.enum(TARGETS)).min(1)])
    .transform((value) => (value === 'all' ? [...TARGETS] : value))
    .prefault('all')
    .describe('Linear layers that get an adapter.'),
});

const settings = z.strictObject({
  parameters: z
    .enum(['full', 'lora'])
    .default('full')
    .describe(
      "What is trained: every parameter of the policy's own copy, or an adapter on a shared frozen base.",
    ),
  learningRate: atLeastZero().default(1e-5).describe('Peak learning rate. For an embedded model: 4e-4.'),
  weightDecay: atLeastZero().default(0.01).describe('Decoupled weight decay of AdamW.'),
  clipNorm: z
    .union([z.number().positive(), z.null()])
    .default(1)
    .describe('The gradient is scaled down to this norm at most; null: never.'),
  freeze: z.boolean().default(false).describe('true: the policy samples but is never updated.'),
  start: z
    .union([z.string().min(1), z.null()])
    .default(null)
    .describe(
      'Parameters to begin with: a folder of a PEFT adapter, or a policy of another run, RUN[@CHECKPOINT][:POLICY]; null: those of the model.',
    ),
  lora: lora.prefault({}).describe('Used where `parameters` is lora.'),
});

export const policies = z.strictObject({
  sharing: z
    .union([z.enum(['shared', 'isolated']), z.record(z.string(), z.string())])
    .default('isolated')
    .describe(
      'shared: one policy for every role. isolated: one for each. Or a map from role to policy name.',
    ),
  defaults: settings.prefault({}).describe('Settings of every policy.'),
  overrides: z
    .record(z.string(), overrideOf(settings))
    .prefault({})
    .describe('Settings of single policies by name; isolated policies are named after their role.'),
});
