/** From rewards to the optimizer's step. */
import { z } from 'zod';
import { atLeastZero, count, fraction } from './values.js';

export const GROUP_KEYS = ['role', 'slot', 'turn'] as const;

const estimator = z
  .looseObject({
    name: z
      .string()
      .default('grpo')
      .describe('An estimator of this program. Its settings are keys beside it.'),
    module: z
      .string()
      .optional()
      .describe("File that exports an estimator of the user's own; replaces `name`."),
  })
  .describe('What advantages are made of rewards. The other keys belong to the estimator (docs/methods.md).');

const loss = z
  .looseObject({
    name: z.string().default('grpo').describe('A loss of this program. Its settings are keys beside it.'),
    module: z.string().optional().describe("File that exports a loss of the user's own; replaces `name`."),
  })
  .describe('What the gradient is of. The other keys belong to the loss (docs/methods.md).');

const reward = z.looseObject({
  name: z.string().optional(),
  module: z.string().optional(),
  python: z.string().optional(),
});

const kl = z
  .strictObject({
    coefficient: atLeastZero()
      .default(0)
      .describe('Coefficient of the KL term against the reference; 0: off.'),
    estimator: z
      .enum(['k1', 'k2', 'k3'])
      .default('k3')
      .describe(
        'Estimator of the divergence (Schulman 2020): d, d²/2 or exp(−d) + d − 1 with d = log p/p_ref.',
      ),
    in: z
      .enum(['loss', 'reward'])
      .default('loss')
      .describe(
        'loss: a term for each token. reward: the sum over a call, as it was sampled, is taken from its reward.',
      ),
    reference: z
      .string()
      .default('start')
      .describe(
        "start: the policy's starting parameters. average: a moving average of its own. Or an adapter's folder, or a policy of a run: RUN[@CHECKPOINT][:POLICY].",
      ),
    averageDecay: fraction()
      .default(0.99)
      .describe('Part of that average that stays from one update to the next.'),
  })
  .describe('Keeps a policy near a reference.');

const importance = z
  .strictObject({
    level: z
      .enum(['none', 'token', 'sequence'])
      .default('none')
      .describe(
        'Advantages are multiplied by p_trainer / p_rollout of the token, or of the whole response. Takes oldLogprobs: trainer.',
      ),
    outside: z
      .enum(['truncate', 'mask'])
      .default('truncate')
      .describe('What becomes of a ratio outside of [low, high]: its bound, or 0.'),
    low: atLeastZero().default(0).describe('Lowest ratio.'),
    high: z.number().positive().default(2).describe('Highest ratio.'),
  })
  .describe('The ratio between rollout and trainer (docs/methods.md).');

export const learning = z.strictObject({
  reward: z
    .union([z.string(), reward, z.array(z.union([z.string(), reward])).min(1)])
    .prefault('outcome')
    .transform((value) => [value].flat().map((one) => (typeof one === 'string' ? { name: one } : one)))
    .meta({
      description: 'Reward of a call: one, or the weighted sum of a list (docs/rewards.md).',
      takes: 'outcome, own, or a map with name, module or python and its settings; or a list of these',
    }),
  unread: z
    .enum(['nothing', 'reward'])
    .default('nothing')
    .describe('Reward of a call that its workflow could not read: nothing, or as if it could.'),
  groups: z
    .union([z.enum(['pooled', ...GROUP_KEYS]), z.array(z.enum(GROUP_KEYS))])
    .default('role')
    .transform((value) => (value === 'pooled' ? [] : typeof value === 'string' ? [value] : value))
    .describe('What a group of advantages shares besides the problem: any of role, slot, turn; or pooled.'),
  baseline: z
    .enum(['calls', 'episodes'])
    .default('calls')
    .describe("Mean and deviation of a group count every call, or every episode once (by its calls' mean)."),
  estimator: estimator.prefault({}),
  loss: loss.prefault({}),
  kl: kl.prefault({}),
  entropy: atLeastZero().default(0).describe('Coefficient of the entropy bonus.'),
  oldLogprobs: z
    .enum(['rollout', 'trainer'])
    .default('rollout')
    .describe(
      "What the loss's ratio compares with: log-probabilities as they were sampled, or as the trainer has them before the first update of the step.",
    ),
  importance: importance.prefault({}),
  dynamicSampling: z
    .int()
    .min(0)
    .default(0)
    .describe(
      'Times in a step that problems whose groups all lack variance give their place to fresh ones; 0: never.',
    ),
  truncated: z
    .enum(['train', 'mask'])
    .default('train')
    .describe('Responses that maxTokens cut off. mask: no gradient, and not in the normaliser.'),
  optimizer: z
    .strictObject({
      betas: z.tuple([fraction(), fraction()]).default([0.9, 0.999]).describe('Of AdamW.'),
      eps: z.number().positive().default(1e-8).describe('Of AdamW.'),
    })
    .prefault({}),
  schedule: z
    .strictObject({
      warmupSteps: z.int().min(0).default(0).describe('Steps over which the rate rises linearly from 0.'),
      kind: z
        .enum(['constant', 'linear', 'cosine'])
        .default('constant')
        .describe('After the warm-up: constant, or down to 0 at the last step.'),
      per: z
        .enum(['step', 'role'])
        .default('step')
        .describe(
          "What moves the schedule on: a step of the run, or each role in it, as in the study's code; then it ends before the last step.",
        ),
    })
    .prefault({}),
  miniBatches: count().default(1).describe('Optimizer steps of each policy in one step of the run.'),
  updates: z
    .enum(['policy', 'matched', 'one'])
    .default('policy')
    .describe(
      'policy: `miniBatches` steps for each policy, so that shared roles get fewer in total than isolated ones. ' +
        'matched: `miniBatches` for each role that a policy plays, the same total whatever is shared. ' +
        'one: a single step with all calls, whatever `miniBatches` says.',
    ),
  microBatchRows: count().default(8192).describe('Packed token rows of one forward and backward at most.'),
  skipZeroAdvantage: z
    .boolean()
    .default(true)
    .describe('Calls with advantage 0 skip the backward pass where that changes nothing.'),
  mismatchSample: z
    .int()
    .min(0)
    .default(16)
    .describe(
      'Skipped calls of each policy whose mismatch between rollout and trainer is measured all the same, per step.',
    ),
});
