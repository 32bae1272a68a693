/** How episodes are sampled. */
import { z } from 'zod';
import { secondsOrNone } from '../seconds.js';
import { partialTemplate } from './chat.js';
import { bytes, count, fraction, overrideOf } from './values.js';

const sampling = z.strictObject({
  temperature: z
    .union([z.literal(0), z.number().min(1e-4).max(1e4)])
    .meta({
      description: '0 is greedy. Training needs more than 0.',
      takes: '0 (greedy), or a number from 0.0001 to 10000',
    })
    .default(1),
  topK: z.int().min(0).default(0).describe('Keep the k likeliest tokens; 0: off.'),
  topP: z.number().gt(0).max(1).default(1).describe('Keep the likeliest tokens up to this mass; 1: off.'),
  minP: fraction().default(0).describe('Drop tokens below this fraction of the likeliest one; 0: off.'),
  maxTokens: count().default(256).describe('Response tokens at most. For an embedded model: 8.'),
  stop: z.array(z.string().min(1)).default([]).describe('Texts that end a response (kept in it).'),
});

/** What single roles, and the evaluation, say of sampling. */
export const partialSampling = overrideOf(sampling);

export const rollout = z.strictObject({
  promptsPerStep: count().default(64).describe('Problems of one step.'),
  episodesPerPrompt: count().default(4).describe('Episodes of each problem: the group of GRPO.'),
  sampling: sampling.prefault({}).describe('How tokens are drawn.'),
  promptTokens: count()
    .default(4096)
    .describe('Longest prompt; a longer one ends its episode and is counted.'),
  episodeSeconds: secondsOrNone
    .default(300)
    .describe(
      'Seconds that a workflow may take for one episode while none of its calls is under way; a longer one breaks off. null: no limit.',
    ),
  roles: z
    .record(
      z.string(),
      z.strictObject({
        sampling: partialSampling.optional(),
        promptTokens: count().optional(),
        template: partialTemplate.optional(),
      }),
    )
    .prefault({})
    .describe('Sampling, limits and chat template of single roles.'),
  cacheBytes: z
    .union([z.literal('auto'), bytes()])
    .meta({ takes: 'auto, or bytes, such as 1048576 or "512 MiB"' })
    .prefault('auto')
    .describe(
      'Size of the KV cache at most; auto: half of what the GPU has free, a quarter of the free memory of a CPU.',
    ),
  maxBatch: count().default(256).describe('Sequences decoded together at most.'),
  prefillTokens: count().default(2048).describe('Prompt tokens prefilled in one decoding step at most.'),
});
