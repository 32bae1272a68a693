/**
 * The one schema of a run. Every key of a configuration file stands here with its default and its meaning;
 * `RunConfig` is what the rest of the program reads. Sections that belong to a folder further on (a task's
 * settings, a workflow's options) are open here and checked by their owners with `checkSection`.
 */
import { z } from 'zod';
import { ALARM_RULES, type Trend } from './alarm-rules.js';

const count = () => z.int().min(1);
const atLeastZero = () => z.number().min(0);
const fraction = () => z.number().min(0).max(1);

const UNITS: Record<string, number> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 };

/** Bytes as a number or as text with a unit: 1048576, "512 MiB", "2G". Units are powers of 1024. */
function bytes() {
  const text = z
    .string()
    .regex(/^\s*\d+(\.\d+)?\s*([KMG](i?B)?|B)?\s*$/)
    .transform((value) => {
      const [, amount = '0', unit = ''] = /^\s*([\d.]+)\s*([KMG]?)/.exec(value) ?? [];
      return Math.round(Number(amount) * (UNITS[unit] ?? 1));
    });
  return z.union([z.int().min(0), text]).meta({ takes: 'bytes, such as 1048576 or "512 MiB"' });
}

/**
 * Fields with their defaults. A section that others override key by key is written once, without them: the override is
 * the same fields, each optional, so that what it leaves out stays what it is.
 */
function withDefaults<F extends z.ZodRawShape, D extends { [K in keyof F]: z.input<F[K]> }>(
  fields: F,
  defaults: D,
): { [K in keyof F]: z.ZodPrefault<F[K]> } {
  const entries = Object.entries(fields).map(([name, field]) => {
    return [name, (field as z.ZodType).prefault((defaults as Record<string, unknown>)[name])];
  });
  return Object.fromEntries(entries) as { [K in keyof F]: z.ZodPrefault<F[K]> };
}

const model = z.strictObject({
  path: z
    .string()
    .min(1)
    .default('troupe-0.3m')
    .describe(
      'Folder of the model in Hugging Face layout (config.json, safetensors, tokenizer.json), or the name of a known one. ' +
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
});

const task = z
  .looseObject({
    name: z
      .string()
      .default('arithmetic')
      .describe('A task of this program. Its settings are keys beside it.'),
    module: z.string().optional().describe("File that exports a task of the user's own; replaces `name`."),
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

const TARGETS = ['q', 'k', 'v', 'o', 'gate', 'up', 'down'] as const;

const loraFields = {
  rank: count().describe('Rank of the adapters.'),
  alpha: z.number().positive().describe('Scale: the adapter is multiplied by alpha / rank.'),
  targets: z
    .union([z.literal('all'), z.array(z.enum(TARGETS)).min(1)])
    .transform((value) => (value === 'all' ? [...TARGETS] : value))
    .describe('Linear layers that get an adapter.'),
};

const policyFields = {
  parameters: z
    .enum(['full', 'lora'])
    .describe(
      "What is trained: every parameter of the policy's own copy, or an adapter on a shared frozen base.",
    ),
  learningRate: atLeastZero().describe('Peak learning rate. For an embedded model: 4e-4.'),
  weightDecay: atLeastZero().describe('Decoupled weight decay of AdamW.'),
  clipNorm: z
    .union([z.number().positive(), z.null()])
    .describe('The gradient is scaled down to this norm at most; null: never.'),
  freeze: z.boolean().describe('true: the policy samples but is never updated.'),
};

const policyDefaults = z.strictObject({
  ...withDefaults(policyFields, {
    parameters: 'full',
    learningRate: 1e-5,
    weightDecay: 0.01,
    clipNorm: 1,
    freeze: false,
  }),
  lora: z
    .strictObject(withDefaults(loraFields, { rank: 16, alpha: 32, targets: 'all' }))
    .prefault({})
    .describe('Used where `parameters` is lora.'),
});

/** A policy's own settings win only where they are given. */
const policyOverride = z
  .strictObject({ ...policyFields, lora: z.strictObject(loraFields).partial() })
  .partial();

const policies = z.strictObject({
  sharing: z
    .union([z.enum(['shared', 'isolated']), z.record(z.string(), z.string())])
    .default('isolated')
    .describe(
      'shared: one policy for every role. isolated: one for each. Or a map from role to policy name.',
    ),
  defaults: policyDefaults.prefault({}).describe('Settings of every policy.'),
  overrides: z
    .record(z.string(), policyOverride)
    .prefault({})
    .describe('Settings of single policies by name; isolated policies are named after their role.'),
});

const samplingFields = {
  temperature: z.union([z.literal(0), z.number().min(1e-4).max(1e4)]).meta({
    description: '0 is greedy. Training needs more than 0.',
    takes: '0 (greedy), or a number from 0.0001 to 10000',
  }),
  topK: z.int().min(0).describe('Keep the k likeliest tokens; 0: off.'),
  topP: z.number().gt(0).max(1).describe('Keep the likeliest tokens up to this mass; 1: off.'),
  minP: fraction().describe('Drop tokens below this fraction of the likeliest one; 0: off.'),
  maxTokens: count().describe('Response tokens at most. For an embedded model: 8.'),
  stop: z.array(z.string().min(1)).describe('Texts that end a response (kept in it).'),
};

const sampling = z.strictObject(
  withDefaults(samplingFields, { temperature: 1, topK: 0, topP: 1, minP: 0, maxTokens: 256, stop: [] }),
);
const partialSampling = z.strictObject(samplingFields).partial();

const rollout = z.strictObject({
  promptsPerStep: count().default(64).describe('Problems of one step.'),
  episodesPerPrompt: count().default(4).describe('Episodes of each problem: the group of GRPO.'),
  sampling: sampling.prefault({}).describe('How tokens are drawn.'),
  promptTokens: count()
    .default(4096)
    .describe('Longest prompt; a longer one ends its episode and is counted.'),
  episodeSeconds: z
    .union([z.number().positive(), z.null()])
    .default(300)
    .describe(
      'Seconds that a workflow may take for one episode while none of its calls is under way; a longer one breaks off. null: no limit.',
    ),
  roles: z
    .record(
      z.string(),
      z.strictObject({ sampling: partialSampling.optional(), promptTokens: count().optional() }),
    )
    .prefault({})
    .describe('Sampling and limits of single roles.'),
  cacheBytes: z
    .union([z.literal('auto'), bytes()])
    .meta({ takes: 'auto, or bytes, such as 1048576 or "512 MiB"' })
    .prefault('auto')
    .describe(
      'Size of the KV cache; auto: half of what the GPU has free, a quarter of the free memory of a CPU.',
    ),
  maxBatch: count().default(256).describe('Sequences decoded together at most.'),
  prefillTokens: count().default(2048).describe('Prompt tokens prefilled in one decoding step at most.'),
});

const GROUP_KEYS = ['role', 'slot', 'turn'] as const;

const loss = z.strictObject({
  name: z.string().default('grpo').describe('A loss of this program.'),
  module: z.string().optional().describe("File that exports a loss of the user's own; replaces `name`."),
  clipLow: fraction().default(0.2).describe('The ratio is clipped below at 1 − clipLow.'),
  clipHigh: atLeastZero().default(0.2).describe('The ratio is clipped above at 1 + clipHigh.'),
  dualClip: z
    .union([z.number().gt(1), z.null()])
    .default(null)
    .describe('Where the advantage is negative, the loss is at most dualClip · |advantage|; null: off.'),
  aggregation: z
    .enum(['token', 'sequence'])
    .default('token')
    .describe('Mean over all response tokens of the update, or over calls of their token means.'),
  kl: atLeastZero().default(0).describe('Coefficient of the KL term (k3) against the starting parameters.'),
  entropy: atLeastZero().default(0).describe('Coefficient of the entropy bonus.'),
  options: z.record(z.string(), z.unknown()).default({}).describe("Options of a user's loss."),
});

const learning = z.strictObject({
  credit: z
    .union([z.enum(['outcome', 'own']), z.strictObject({ module: z.string() })])
    .default('outcome')
    .describe(
      "Reward of a call: the episode's outcome, its own correctness, or a user's function ({ module }).",
    ),
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
  normalise: z
    .enum(['std', 'none'])
    .default('std')
    .describe("std: divide the advantage by the group's standard deviation (unbiased, + 1e-6)."),
  loss: loss.prefault({}),
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

const gradients = z.strictObject({
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
        "auto: exact for adapters and where the accumulators take a quarter of the machine's memory at most.",
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

const interventionFields = {
  kl: z
    .union([atLeastZero(), z.null()])
    .describe('Coefficient of the KL term for the calls of the role; null: that of `learning.loss.kl`.'),
  rate: atLeastZero().describe(
    'Factor on the learning rate; under a shared policy, on the role beside the others.',
  ),
  freeze: z.boolean().describe("true: the role's calls are sampled and measured but give no gradient."),
  slots: z
    .enum(['sum', 'mean', 'root'])
    .describe('Gradients of the N slots: added up, times 1/N, or times 1/√N.'),
  damping: fraction().describe(
    "Part of the role's gradient along its running average that is taken out, where both agree.",
  ),
  averageDecay: fraction().describe('Part of that average that stays from one update to the next.'),
};
const interventionDefaults = {
  kl: null,
  rate: 1,
  freeze: false,
  slots: 'sum',
  damping: 0,
  averageDecay: 0.9,
} as const;

const balance = z.enum(['none', 'mass', 'conflicts']);
const BALANCE =
  'Roles of a shared gradient. mass: scaled to equal norms. conflicts: parts along which roles conflict are removed (PCGrad).';

const interventions = z
  .strictObject({
    defaults: z
      .strictObject(withDefaults(interventionFields, interventionDefaults))
      .prefault({})
      .describe('For every role.'),
    roles: z
      .record(z.string(), z.strictObject(interventionFields).partial())
      .prefault({})
      .describe('For single roles by name.'),
    balance: balance.default('none').describe(BALANCE),
    policies: z
      .record(z.string(), z.strictObject({ balance: balance.optional() }))
      .prefault({})
      .describe('For single policies by name.'),
  })
  .describe('What is done to gradients before the optimizer gets them (docs/gradients.md).');

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

const alarms = z.strictObject({
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
      dominance: fraction().default(0.8).describe('Least mean dominance of a role in a shared policy.'),
      effectiveRoles: z.number().min(1).default(1.7).describe('Most effective roles.'),
      change: fraction().default(0.2).describe('Least change of a share among the text signatures.'),
      lengthFactor: z.number().gt(1).default(2).describe('Least factor on the mean length, either way.'),
    })
    .prefault({}),
  trends: z.strictObject(trends).prefault({}),
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
});

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
    .describe('Bit-identical repetition and resuming (CPU), at some cost in speed.'),
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
  run: z
    .strictObject({
      folder: z.string().default('').describe('Run directory; empty: a new one under runs/.'),
    })
    .prefault({}),
});

/** A whole, checked configuration: every key is there. */
export type RunConfig = z.output<typeof runSchema>;
/** What a file may say: every key optional. */
export type RunInput = z.input<typeof runSchema>;
export type SamplingConfig = RunConfig['rollout']['sampling'];
export type PolicySettings = RunConfig['policies']['defaults'];
export type PolicyOverride = RunConfig['policies']['overrides'][string];
export type LossConfig = RunConfig['learning']['loss'];
export type RoleInterventions = RunConfig['interventions']['defaults'];
export type AlarmConfig = RunConfig['alarms'];
export type GroupKey = (typeof GROUP_KEYS)[number];
