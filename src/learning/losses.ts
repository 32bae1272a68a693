/**
 * The losses by name, each with the schema of its settings, and users' files. A loss is a file of its own whose default
 * export is a `LossFunction` (engine/loss.ts); the engine worker imports it, so only its path and settings travel.
 */
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { importWithSchema } from '../config/import-module.js';
import { findPath } from '../config/package.js';
import { entry, openEntry, type Registry, type SectionPlace, withFields } from '../config/registry.js';
import type { RunConfig } from '../config/schema.js';
import { shownFile } from '../config/user-code.js';
import { LOSS_EXPORT } from '../engine/loss.js';
import type { TrainRequest } from '../engine/types.js';
import type { Clip } from '../gradients/mismatch.js';

const AGGREGATIONS = ['token', 'sequence', 'constant'] as const;
export type Aggregation = (typeof AGGREGATIONS)[number];

/** A loss as a run uses it. */
export interface OpenLoss {
  /** What goes to the engine. */
  request: TrainRequest['loss'];
  /** How the tokens of an update add up (update-plan.ts). */
  aggregation: Aggregation;
  /** Tokens that `constant` divides by; auto: the longest response that the policy may give. */
  length: number | 'auto';
  /** What it clips; left out: nothing, or nobody knows. */
  clip?: Clip;
  /** Whether a call with advantage 0 has gradient 0. Of a user's loss, who knows. */
  followsAdvantage: boolean;
}

/** Settings of every loss. */
type Aggregated = Pick<OpenLoss, 'aggregation' | 'length'>;

/** How tokens add up by default depends on the loss. */
function aggregated(usual: Aggregation) {
  return {
    aggregation: z
      .enum(AGGREGATIONS)
      .default(usual)
      .describe(
        'token: mean over all response tokens of the update. sequence: over calls of their token means. ' +
          'constant: sum over tokens, divided by calls · `length`.',
      ),
    length: z
      .union([z.literal('auto'), z.int().min(1)])
      .default('auto')
      .describe('Tokens of `constant`; auto: the longest response that the roles of the policy may give.'),
  };
}

/** Where the ratio is clipped. */
function clips(low: number, high: number) {
  return {
    clipLow: z.number().min(0).max(1).default(low).describe('The ratio is clipped below at 1 − clipLow.'),
    clipHigh: z.number().min(0).default(high).describe('The ratio is clipped above at 1 + clipHigh.'),
  };
}

const dualClip = z
  .union([z.number().gt(1), z.null()])
  .default(null)
  .describe('Where the advantage is negative, the loss is at most dualClip · |advantage|; null: off.');

const temperature = (usual: number, where: string) =>
  z.number().positive().default(usual).describe(`Steepness of the gate where the advantage is ${where}.`);

/** The file of one of this program's losses. */
function ownFile(name: string): string {
  return fileURLToPath(new URL(`./losses/${name}.js`, import.meta.url));
}

/** A loss of this program; `name`: of its file in losses/. */
function own<S extends z.ZodType<Aggregated & Record<string, unknown>>>(
  name: string,
  schema: S,
  more: (settings: z.output<S>) => Partial<OpenLoss> = () => ({}),
) {
  return entry(
    schema,
    (settings): OpenLoss => ({
      request: { module: ownFile(name), options: { ...settings } },
      aggregation: settings.aggregation,
      length: settings.length,
      followsAdvantage: true,
      ...more(settings),
    }),
  );
}

const interval = (level: 'token' | 'sequence') => {
  return ({ clipLow, clipHigh }: { clipLow: number; clipHigh: number }) => ({
    clip: { low: clipLow, high: clipHigh, level },
  });
};

export const losses: Registry<OpenLoss> = {
  what: 'loss',
  entries: {
    grpo: own(
      'grpo',
      z.strictObject({ ...clips(0.2, 0.2), dualClip, ...aggregated('token') }),
      interval('token'),
    ),
    dapo: own(
      'grpo',
      z.strictObject({ ...clips(0.2, 0.28), dualClip, ...aggregated('token') }),
      interval('token'),
    ),
    // The paper's own bounds: a ratio of whole responses moves little.
    gspo: own(
      'gspo',
      z.strictObject({ ...clips(3e-4, 4e-4), ...aggregated('sequence') }),
      interval('sequence'),
    ),
    cispo: own('cispo', z.strictObject({ ...clips(1, 4), ...aggregated('token') }), interval('token')),
    sapo: own(
      'sapo',
      z.strictObject({
        temperaturePositive: temperature(1, 'positive'),
        temperatureNegative: temperature(1.05, 'not'),
        ...aggregated('sequence'),
      }),
    ),
    'policy-gradient': own('policy-gradient', z.strictObject(aggregated('token'))),
    supervised: own('supervised', z.strictObject(aggregated('token')), () => ({ followsAdvantage: false })),
  },
  fromFile: async (file) => {
    const { schema } = await importWithSchema(file, LOSS_EXPORT);
    const make = (settings: unknown): OpenLoss => {
      const { aggregation, length } = settings as Aggregated;
      const request = { module: findPath(file), options: settings as Record<string, unknown> };
      return { request, aggregation, length, followsAdvantage: false };
    };
    return { schema: withFields(schema, aggregated('token'), shownFile(findPath(file))), make };
  },
};

/** The loss that `learning.loss` names. Throws a TroupeError for an unknown name, a wrong setting or a wrong file. */
export function openLoss(
  section: RunConfig['learning']['loss'],
  locate?: SectionPlace['locate'],
): Promise<OpenLoss> {
  return openEntry(losses, section, { path: ['learning', 'loss'], locate }, undefined);
}

/** What the engine needs of one of this program's losses as it is by default. */
export async function builtInLoss(name: string): Promise<TrainRequest['loss']> {
  return (await openLoss({ name })).request;
}
