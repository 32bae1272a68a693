/**
 * The one schema of a run. Every key of a configuration file stands here, or in schema/ by section, with its default and
 * its meaning; `RunConfig` is what the rest of the program reads. Sections that belong to a folder further on (a task's
 * settings, a workflow's options) are open here and checked by their owners with `checkSection`.
 */
import { z } from 'zod';
import { alarms } from './schema/alarms.js';
import { template } from './schema/chat.js';
import { distributed } from './schema/distributed.js';
import { gradients, interventions } from './schema/gradients.js';
import { type GROUP_KEYS, learning } from './schema/learning.js';
import { policies } from './schema/policies.js';
import { partialSampling, rollout } from './schema/rollout.js';
import { count } from './schema/values.js';
import { secondsOrNone } from './seconds.js';

const model = z.strictObject({
  path: z
    .string()
    .min(1)
    .default('troupe-0.3m')
    .describe(
      'Folder of the model in Hugging Face layout (config.json, safetensors, tokenizer.json), or the name of a known one, ' +
        'or of the Hugging Face hub: OWNER/NAME[@REVISION]. ' +
        'For an embedded model three other keys have another default (src/config/embedded.ts).',
    ),
  dtype: z
    .enum(['bfloat16', 'float32', 'float64'])
    .default('float32')
    .describe('Type of the computation. Trained parameters keep an fp32 master under bfloat16.'),
  device: z
    .string()
    .regex(/^(auto|cpu|cuda(:\d+)?)$/)
    .default('auto')
    .meta({
      description: 'auto: CUDA where there is one, else the CPU.',
      takes: 'auto, cpu, cuda or cuda:N',
    }),
  template: template.prefault({}).describe("How the model's chat template is used (docs/models.md)."),
});

const task = z
  .looseObject({
    name: z
      .string()
      .default('arithmetic')
      .describe('A task of this program. Its settings are keys beside it.'),
    module: z.string().optional().describe("File that exports a task of the user's own; replaces `name`."),
    python: z
      .string()
      .optional()
      .describe(
        "File in Python (.py) that makes and grades the problems of a task of the user's own; replaces `name`.",
      ),
  })
  .describe('Where problems come from. The other keys belong to the task (docs/configuration.md).');

const workflow = z.strictObject({
  name: z.string().default('voting').describe('single, voting, eval-opt or orch-workers.'),
  module: z.string().optional().describe("File that exports a workflow of the user's own; replaces `name`."),
  options: z
    .record(z.string(), z.unknown())
    .default({})
    .describe("The workflow's own options, e.g. { voters: 3 }; unset ones have the study's values."),
  prompts: z
    .string()
    .default('full')
    .describe(
      'Style of the prompt templates: full, short, small, or a folder of template files. For an embedded model: small.',
    ),
});

const evaluation = z.strictObject({
  every: z.int().min(0).default(20).describe('Steps between evaluations; 0: only before and after.'),
  problems: count().default(200).describe('Held-out problems at most.'),
  episodes: count().default(1).describe('Episodes of each.'),
  sampling: partialSampling.prefault({}).describe('Overrides of rollout.sampling.'),
  greedy: z
    .boolean()
    .default(true)
    .describe('Also at temperature 0, one episode of each problem, unless `sampling` is at 0 already.'),
});

const checkpoints = z.strictObject({
  every: z.int().min(0).default(20).describe('Steps between checkpoints; 0: only at the end.'),
  keep: count().default(2).describe('Newest checkpoints that are kept.'),
  keepBest: z
    .boolean()
    .default(true)
    .describe('Also a checkpoint after each evaluation that is the best of training so far; it is kept.'),
});

const SINKS = ['tensorboard', 'jsonl', 'csv'] as const;

export const runSchema = z.strictObject({
  seed: z
    .int()
    .min(0)
    .max(2 ** 32 - 1)
    .default(0)
    .describe('Seed of every random number of the run.'),
  steps: z.int().min(0).default(60).describe('Steps of the run.'),
  deterministic: z
    .boolean()
    .default(false)
    .describe('Bit-identical repetition and resuming, on the CPU and at some cost in speed.'),
  strict: z.boolean().default(false).describe('A malformed data row is an error instead of being skipped.'),
  model: model.prefault({}),
  task: task.prefault({}),
  workflow: workflow.prefault({}),
  policies: policies.prefault({}),
  rollout: rollout.prefault({}),
  learning: learning.prefault({}),
  gradients: gradients.prefault({}),
  interventions: interventions.prefault({}),
  evaluation: evaluation.prefault({}),
  checkpoints: checkpoints.prefault({}),
  alarms: alarms.prefault({}),
  distributed: distributed.prefault({}),
  sinks: z
    .array(z.enum(SINKS))
    .default([])
    .describe(
      'Where metrics go besides the streams, in the folder of the run: tensorboard/ (event files), metrics.jsonl, metrics.csv.',
    ),
  run: z
    .strictObject({
      folder: z.string().default('').describe('Run directory; empty: a new one under runs/.'),
      blockedSeconds: secondsOrNone
        .default(60)
        .describe(
          'Seconds until a function of a file of yours has to come back: nothing else goes on meanwhile. null: no limit.',
        ),
      answerSeconds: secondsOrNone
        .default(300)
        .describe(
          'Seconds until a promise of a reward, a task or a module of yours has to settle. null: no limit.',
        ),
    })
    .prefault({}),
});

/** A whole, checked configuration: every key is there. */
export type RunConfig = z.output<typeof runSchema>;
/** What a file may say: every key optional. */
export type RunInput = z.input<typeof runSchema>;
export type { TemplateSettings } from './schema/chat.js';
export type SamplingConfig = RunConfig['rollout']['sampling'];
export type PolicySettings = RunConfig['policies']['defaults'];
export type PolicyOverride = RunConfig['policies']['overrides'][string];
export type RoleInterventions = RunConfig['interventions']['defaults'];
export type AlarmConfig = RunConfig['alarms'];
export type SinkName = (typeof SINKS)[number];
export type GroupKey = (typeof GROUP_KEYS)[number];
