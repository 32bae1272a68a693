/** The schema of a supervised start (`troupe sft`): what it trains on and how. */
import { z } from 'zod';
import { runSchema } from '../config/schema.js';

const { seed, model, task, workflow, learning } = runSchema.shape;

const part = z.strictObject({
  task,
  workflow,
  weight: z.number().positive().default(1).describe('Share of the problems, relative to the other parts.'),
  roles: z
    .array(z.string())
    .min(1)
    .optional()
    .describe('Roles that are taught; default: all of the workflow.'),
});

export const sftSchema = z.strictObject({
  seed,
  steps: z.int().min(1).default(1000).describe('Optimizer steps.'),
  model,
  output: z.string().min(1).describe('Folder that the trained model is written to.'),
  outputDtype: z
    .enum(['float32', 'bfloat16'])
    .default('bfloat16')
    .describe('Number type of the weights that are written.'),
  saveEvery: z
    .int()
    .min(0)
    .default(0)
    .describe(
      'Steps after which the model is written to OUTPUT-STEP as well, to stop where it knows enough; 0: never.',
    ),
  data: z.array(part).min(1).describe('Tasks and workflows whose roles are taught.'),
  callsPerStep: z.int().min(1).default(256).describe('Role calls of one optimizer step, at least.'),
  wrongContext: z
    .number()
    .min(0)
    .max(1)
    .default(0.5)
    .describe('Chance that a role before this one said something wrong, so that judging roles see both.'),
  learningRate: z.number().positive().default(1e-3).describe('Peak rate of AdamW.'),
  weightDecay: z.number().min(0).default(0.01),
  clipNorm: z.number().positive().default(1),
  schedule: learning.unwrap().shape.schedule,
  microBatchRows: z.int().min(1).default(16384).describe('Rows of one forward and backward at most.'),
});

export type SftConfig = z.output<typeof sftSchema>;
