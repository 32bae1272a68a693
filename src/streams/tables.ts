/**
 * The tables that a run writes, column by column: types, units, meanings. docs/streams.md shows what stands here;
 * arrow-schema.ts makes Arrow schemas and columns of it.
 *
 * Wall-clock times and memory stand in `timings` alone: every other stream of a deterministic run is the same
 * bytes each time.
 */
import { ALARM_RULES } from '../config/alarm-rules.js';
import {
  bool,
  bytes,
  float64,
  int32,
  name,
  nats,
  optional,
  policy,
  type Row,
  role,
  type Specs,
  seconds,
  share,
  step,
  type Table,
  text,
  time,
  tokens,
  update,
} from './column-kinds.js';
import { gradientPairs, gradients } from './gradient-tables.js';

const updates = {
  name: 'updates',
  description: 'One row for each optimizer step of a policy, skipped ones included.',
  columns: {
    step,
    update,
    policy,
    version: int32('Optimizer steps of the policy, this one included.'),
    updates: int32('Optimizer steps of the policy in this step of the run.'),
    loss: optional(float64('Loss; null where the step was skipped.')),
    gradient_norm: optional(
      float64('‖g‖ of the gradient that the optimizer got, after interventions, before clipping.'),
    ),
    clip_factor: optional(float64('Factor by which clipping scaled the gradient: 1 where it did not.')),
    identity_deviation: optional(
      float64('|Σ G − ‖g‖²| / (Σ √G_kk)²: at most 1e-5, or the run stops (exact statistics).'),
    ),
    update_coherence: optional(
      float64(
        "‖Σ g_u‖ / Σ ‖g_u‖ over the policy's updates of this step up to this one; null where all are 0.",
      ),
    ),
    learning_rate: float64('Learning rate.'),
    calls: int32('Calls of the update.'),
    zero_advantage_calls: int32('Calls whose advantage is 0.'),
    backward_calls: int32('Calls with a backward pass.'),
    masked_calls: int32('Calls whose response was cut off and masked (`learning.truncated`).'),
    loss_tokens: int32("Response tokens in the loss's normaliser.", tokens),
    tokens_seen: int32('Tokens of all calls of the update, prompts included, each call by itself.', tokens),
    tokens_computed: int32('Token rows that were computed, shared prefixes once.', tokens),
    extra_rows: int32(
      'Rows among them that only separate groups need: one group of all calls would share them.',
      { unit: 'rows' },
    ),
    skipped: optional(
      text('Why it was not applied (non-finite gradients: policy, layer, group); null if it was.'),
    ),
  },
} satisfies Table<Specs>;

const steps = {
  name: 'steps',
  description: 'One row for each step of the run: its episodes.',
  columns: {
    step,
    problems: int32('Problems.'),
    episodes: int32('Episodes.'),
    broken_episodes: int32('Episodes that an error broke off.'),
    calls: int32('Role calls.'),
    failed_rewards: int32('Calls whose reward function threw or gave no finite number: they train nothing.'),
    groups: int32('Groups of advantages.'),
    groups_of_one: int32('Groups with nothing to compare with.'),
    groups_without_variance: int32('Groups of several whose rewards are all the same.'),
    replaced_problems: int32(
      'Problems without any variance that gave their place to fresh ones (`learning.dynamicSampling`). Nothing else counts them.',
    ),
    replaced_correct_share: optional(
      float64('Share of their episodes whose answer is right: 1 where problems are too easy.', share),
    ),
    correct_share: optional(float64('Share of episodes whose answer is right.', share)),
    reward_mean: optional(float64("Mean of the episodes' rewards.")),
    reward_std: optional(float64('Their standard deviation, unbiased; null for fewer than two.')),
    prompt_tokens: int32('Prompt tokens of all calls.', tokens),
    response_tokens: int32('Response tokens of all calls.', tokens),
  },
} satisfies Table<Specs>;

const roles = {
  name: 'roles',
  description:
    'One row for each role of each step: what its calls looked like, and how far the trainer’s log-probabilities ' +
    'ℓ are from the rollout’s ρ at the same temperature (d = ℓ − ρ, over response tokens).',
  columns: {
    step,
    role,
    policy,
    calls: int32('Calls.'),
    tokens: int32('Response tokens.', tokens),
    reward_mean: optional(float64("Mean of the calls' rewards.")),
    reward_std: optional(float64('Their standard deviation, unbiased; null for fewer than two.')),
    correct_share: optional(
      float64('Share of calls that are right by themselves; null where not graded.', share),
    ),
    zero_variance_share: optional(
      float64("Share of the role's advantage groups without variance, groups of one among them.", share),
    ),
    zero_advantage_share: optional(float64('Share of calls whose advantage is 0.', share)),
    length_mean: optional(float64('Mean response length.', tokens)),
    length_p50: optional(float64('Median response length.', tokens)),
    length_p95: optional(float64('95th percentile of response lengths.', tokens)),
    truncated_share: optional(float64('Share of responses that the length limit cut.', share)),
    mismatch_calls: int32('Calls that the mismatch columns are measured on.'),
    mismatch_tokens: int32('Their response tokens.', tokens),
    perplexity: optional(float64('exp(−mean ℓ) of a response, mean over responses.')),
    perplexity_ratio: optional(float64('exp(mean ρ − mean ℓ) of a response, mean over responses.')),
    kl_k1: optional(float64('mean(ρ − ℓ).', nats)),
    kl_k3: optional(float64('mean(exp(d) − d − 1), d clamped to ±20.', nats)),
    chi_squared: optional(float64('mean(exp(2d)) − 1 per token, d clamped to ±20.')),
    entropy: optional(float64('Mean entropy of the next token.', nats)),
    clip_low_share: optional(float64('Share of tokens whose ratio is clipped below (advantage < 0).', share)),
    clip_high_share: optional(
      float64('Share of tokens whose ratio is clipped above (advantage > 0).', share),
    ),
    importance_outside_share: optional(
      float64('Share of tokens whose importance weight lay outside its bounds: clamped, or masked.', share),
    ),
  },
} satisfies Table<Specs>;

const problem = text('Identifier of the problem.');
const reward = float64('Reward of the episode.');
const reason = text("The grader's word for the verdict.");

const calls = {
  name: 'calls',
  description: 'One row for each role call of training.',
  columns: {
    step,
    problem_index: int32('Index of the problem in the step.'),
    sample: int32('Index of the episode among those of its problem.'),
    call: int32('Index of the call in its episode.'),
    problem,
    role,
    slot: int32('Parallel instance of the role, from 0.'),
    turn: int32('Round, from 0.'),
    policy,
    version: int32('Optimizer steps of the policy when its sampling began.'),
    prompt: int32('Index of its prompt in the step, as in `prompts`.'),
    prompt_tokens: int32('Prompt tokens.', tokens),
    cached_tokens: int32('Prompt tokens that were found in the KV cache.', tokens),
    response_tokens: int32('Response tokens.', tokens),
    finish: name(['stop', 'length', 'cancelled'], 'How the response ended.'),
    episode_reward: reward,
    episode_reason: reason,
    reward: optional(
      float64('Reward of the call, as credit assignment gave it; null where the reward function failed.'),
    ),
    correct: optional(bool('Whether the call is right by itself; null where not graded.')),
    unread: bool('Whether its workflow could not read it.'),
    advantage: optional(float64('Advantage; null where there is no reward.')),
    weight: float64('Row weight: weight of each response token in the loss, the normaliser included.'),
    trained: bool('Whether it had a backward pass.'),
    rollout_logprob: optional(float64('Mean ρ of its response tokens.', nats)),
    trainer_logprob: optional(float64('Mean ℓ of its response tokens; null where not computed.', nats)),
    entropy: optional(float64('Mean entropy; null where not computed.', nats)),
    text: optional(text('What the role said; null where not recorded.')),
  },
} satisfies Table<Specs>;

const prompts = {
  name: 'prompts',
  description: 'One row for each different prompt of each training step: calls share them.',
  columns: {
    step,
    prompt: int32('Index of the prompt in the step.'),
    text: text('The messages, each behind a line with the name of who says it, in square brackets.'),
  },
} satisfies Table<Specs>;

const rewards = {
  name: 'rewards',
  description:
    'One row for each value that a reward gave a call of training. The reward of the call is Σ weight · value, as in ' +
    '`calls`; a call with an error has none.',
  columns: {
    step,
    episode: int32('Index of the episode in the step, as in `episodes`.'),
    call: int32('Index of the call in its episode.'),
    name: text('The reward: its label, name, function or file.'),
    value: optional(float64('Its value; null where it says nothing of the call (None), or failed.')),
    weight: float64('Its factor in the sum.'),
    error: optional(text('Why it failed; null where it did not.')),
  },
} satisfies Table<Specs>;

const phase = <const W extends string>(words: readonly W[]) =>
  name(words, 'Whose episodes. Of evaluations, `step` counts the steps done, as in `evaluations`.');

const episodes = {
  name: 'episodes',
  description:
    'One row for each episode of each step and evaluation: what was asked, what came of it, and what broke it off.',
  columns: {
    step,
    phase: phase(['train', 'evaluation', 'greedy']),
    episode: int32('Index of the episode in the step or evaluation.'),
    problem_index: int32('Index of the problem in the step or evaluation.'),
    sample: int32('Index of the episode among those of its problem.'),
    problem,
    question: text('The question as the roles read it.'),
    right_answer: optional(text('The right answer; null where the grader compares with none.')),
    answer: optional(text('The final answer, as it was graded; null where the episode broke off.')),
    extracted: optional(text('What the task reads in it: a number, a program; null: nothing.')),
    correct: bool('Whether it is right.'),
    reward,
    reason,
    calls: int32('Role calls that were answered.'),
    error: optional(text('What broke the episode off; null: nothing.')),
  },
} satisfies Table<Specs>;

const evaluationColumns = {
  step: int32('Steps that the parameters had been trained for: 0 is before training.'),
  problem,
  sample: int32('Index of the episode among those of its problem.'),
  correct: bool('Whether the answer is right.'),
  reward,
  reason,
  broken: bool('Whether an error broke it off.'),
  calls: int32('Role calls.'),
  response_tokens: int32('Response tokens of all calls.', tokens),
  answer: optional(text('The graded text; null where not recorded.')),
};

const evaluations = {
  name: 'evaluations',
  description: 'One row for each episode of each evaluation, on problems that training never sees.',
  columns: evaluationColumns,
} satisfies Table<Specs>;

const greedyEvaluations = {
  name: 'greedy_evaluations',
  description: 'The same at temperature 0, one episode of each problem (`evaluation.greedy`).',
  columns: evaluationColumns,
} satisfies Table<Specs>;

const evaluationCalls = {
  name: 'evaluation_calls',
  description: 'One row for each role call of each evaluation: what was asked and what was said.',
  columns: {
    step: int32('Steps that the parameters had been trained for: 0 is before training.'),
    phase: name(['evaluation', 'greedy'], 'Sampled, or at temperature 0.'),
    episode: int32('Index of the episode in the evaluation, as in `episodes`.'),
    problem_index: int32('Index of the problem in the evaluation.'),
    sample: int32('Index of the episode among those of its problem.'),
    call: int32('Index of the call in its episode.'),
    problem,
    role,
    slot: int32('Parallel instance of the role, from 0.'),
    turn: int32('Round, from 0.'),
    policy,
    prompt: int32('Index of its prompt in the evaluation, as in `evaluation_prompts`.'),
    prompt_tokens: int32('Prompt tokens.', tokens),
    response_tokens: int32('Response tokens.', tokens),
    finish: name(['stop', 'length', 'cancelled'], 'How the response ended.'),
    episode_reward: reward,
    episode_reason: reason,
    unread: bool('Whether its workflow could not read it.'),
    text: text('What the role said.'),
  },
} satisfies Table<Specs>;

const evaluationPrompts = {
  name: 'evaluation_prompts',
  description: 'One row for each different prompt of each evaluation, sampled and greedy together.',
  columns: {
    step: int32('Steps that the parameters had been trained for: 0 is before training.'),
    prompt: int32('Index of the prompt in the evaluation.'),
    text: text('The messages, as in `prompts`.'),
  },
} satisfies Table<Specs>;

const signals = {
  name: 'signals',
  description:
    'Text signatures and oracles of the roles, and what workflows count, by name: one row for each signal of ' +
    'each step and evaluation.',
  columns: {
    step,
    phase: phase(['train', 'evaluation']),
    role: optional(name('roles', 'Role that it is about; null: the workflow.')),
    signal: text('Name, as listed below.'),
    value: optional(float64('Value; null where it cannot be measured.')),
  },
} satisfies Table<Specs>;

const alarms = {
  name: 'alarms',
  description:
    'One row for each alarm, when its rule begins to hold; it comes again only after the rule has ceased to hold.',
  columns: {
    step: int32('Steps that were done when it was found.'),
    rule: name(ALARM_RULES, 'Rule of the configuration (`alarms`).'),
    role: optional(name('roles', 'Role that it is about; null: a policy or the whole run.')),
    policy: optional(name('policies', 'Policy that it is about; null: a role or the whole run.')),
    value: float64('What was found: the mean over the window; accuracy and dominance as they are.'),
    threshold: float64('What it was compared with.'),
    baseline: optional(float64('What it was before: the mean at the start, the peak; null: nothing.')),
    action: name(['log', 'stop', 'rollback'], 'What was done about the alarms of this step.'),
    restored_step: optional(int32('Step whose parameters the run went on with; null: it went on as it was.')),
    rate_factor: float64('Factor on every learning rate from here on.'),
  },
} satisfies Table<Specs>;

const timings = {
  name: 'timings',
  description:
    'One row for each step: wall-clock and memory. The only stream that differs between equal runs.',
  columns: {
    step,
    ended: time('When the step ended.'),
    total_seconds: seconds('The whole step.'),
    processor_seconds: seconds('Processor time of the process in the step, all threads.'),
    rollout_seconds: seconds('Episodes, grading included.'),
    forward_seconds: seconds('Forward passes of training.'),
    backward_seconds: seconds('Backward passes.'),
    extra_rows_seconds: seconds(
      'Part of the forward and backward passes that `updates.extra_rows` took, by their share of the rows.',
    ),
    optimizer_seconds: seconds('Optimizer steps.'),
    statistics_seconds: seconds('Gram matrices and statistics.'),
    evaluation_seconds: seconds('Evaluation after the step.'),
    checkpoint_seconds: seconds('Checkpoint before the step.'),
    prefill_tokens: int32('Prompt tokens computed by the rollout.', tokens),
    cached_tokens: int32('Prompt tokens found in the KV cache.', tokens),
    decode_tokens: int32('Tokens sampled.', tokens),
    communication_seconds: seconds('Exchanges with other ranks, all being there; 0 without any.'),
    waiting_seconds: seconds('Waiting for other ranks.'),
    communication_bytes: bytes('Tensors and records that went through exchanges with other ranks.'),
    problems_taken_over: int32(
      'Problems, of all ranks, that ran on another one because that was done with its own.',
    ),
    taken_over_seconds: seconds(
      'What ranks did in the rollout after they were done with their own problems, added up: without taking over they would have waited.',
    ),
    memory: bytes('Resident memory of the process at the end of the step.'),
    memory_peak: bytes('Largest so far.'),
    device_memory_peak: optional(bytes('Largest on the device so far; null on the CPU.')),
  },
} satisfies Table<Specs>;

/** Every table of a run by name; its file is `streams/NAME.arrows`. */
export const TABLES = {
  gradients,
  gradient_pairs: gradientPairs,
  updates,
  steps,
  roles,
  calls,
  prompts,
  rewards,
  episodes,
  evaluations,
  greedy_evaluations: greedyEvaluations,
  evaluation_calls: evaluationCalls,
  evaluation_prompts: evaluationPrompts,
  signals,
  alarms,
  timings,
};

/** Name of a stream: "steps", "calls", … (docs/streams.md). */
export type TableName = keyof typeof TABLES;
/** A row of a stream, by column. */
export type TableRow<N extends TableName> = Row<(typeof TABLES)[N]['columns']>;
