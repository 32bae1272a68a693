/** What counts as an alarm, and what follows from one. */
import { z } from 'zod';
import { ALARM_RULES, type Trend } from '../alarm-rules.js';
import { atLeastZero, count, fraction } from './values.js';

/** A rule over a series: which way it must go, and by how much at least. */
function trend(what: string, direction: 'rise' | 'fall', defaults: TrendDefaults) {
  const fields = z.strictObject({
    factor: z
      .number()
      .min(1)
      .default(defaults.factor ?? 1),
    change: atLeastZero().default(defaults.change ?? 0),
    level: z.union([z.number(), z.null()]).default(defaults.level ?? null),
  });
  const shown = `{ factor: ${defaults.factor ?? 1}, change: ${defaults.change ?? 0}, level: ${defaults.level ?? null} }`;
  return z
    .union([fields, z.null()])
    .prefault({})
    .meta({
      description: `${what} ${direction === 'rise' ? 'rises' : 'falls'}. Unset keys: ${shown}; null: off.`,
      takes: '{ factor, change, level } or null',
    });
}
interface TrendDefaults {
  factor?: number;
  change?: number;
  level?: number;
}

// Factors and changes that few of the lab's sound runs reach (docs/alarms.md).
const trends = {
  kl: trend('KL between rollout and trainer (k3) of a role', 'rise', { factor: 3, level: 0.01 }),
  perplexity: trend('Perplexity of a role', 'rise', { factor: 64 }),
  entropy: trend('Entropy of a role', 'fall', { factor: 40 }),
  gradient_norm: trend("Norm of a policy's gradient", 'rise', { factor: 6 }),
  amplification: trend('Amplification of a role over its slots', 'rise', { factor: 1.4 }),
  coherence: trend('Coherence of the roles of a policy', 'fall', { factor: 1.5 }),
  dominance: trend('Largest mass share of a role in a policy', 'rise', { change: 0.1, level: 0.9 }),
  format: trend('Share of well-formed responses of a role', 'fall', { change: 0.2 }),
  truncation: trend('Share of truncated responses of a role', 'rise', { change: 0.4 }),
} satisfies Record<Trend, z.ZodType>;

export const alarms = z.strictObject({
  onAlarm: z
    .enum(['log', 'stop', 'rollback'])
    .default('log')
    .describe(
      'log: record it. stop: save and end. rollback: go on from the best evaluated parameters at a lower rate.',
    ),
  actOn: z
    .array(z.enum(ALARM_RULES))
    .default(['accuracy', 'capture'])
    .describe('Rules that stop or roll back; the others are only recorded.'),
  rateFactor: z
    .number()
    .gt(0)
    .max(1)
    .default(0.5)
    .describe('Each rollback multiplies every learning rate by it.'),
  rollbacks: count().default(3).describe('Rollbacks at most; the next alarm stops the run.'),
  baseline: z
    .int()
    .min(2)
    .default(10)
    .describe('Steps at the start (or after a rollback) that trends are compared with.'),
  window: count().default(5).describe('Steps whose mean is compared with them.'),
  deviations: atLeastZero()
    .default(4)
    .describe("Least change of a trend in standard errors of that comparison, beside its rule's own."),
  accuracy: z
    .union([fraction(), z.null()])
    .default(0.05)
    .describe('Least fall of accuracy below its peak, with the paired interval above 0; null: off.'),
  patience: count().default(3).describe('Evaluations in a row that must have fallen so for an alarm.'),
  capture: z
    .strictObject({
      dominance: fraction().default(0.5).describe("Least mass share of the policy's leading role."),
      change: fraction()
        .default(0.2)
        .describe("Least change of a share among another role's text signatures."),
      lengthFactor: z.number().gt(1).default(2).describe('Least factor on the mean length, either way.'),
    })
    .prefault({}),
  trends: z.strictObject(trends).prefault({}),
});
