/**
 * What a step leaves in the streams: rows of the tables of streams/tables.ts, made of its episodes, calls and
 * updates. Checks the gradient identity of every update on the way; a violation stops the run.
 */
import { append } from '../config/append.js';
import { TroupeError } from '../config/errors.js';
import { groupMasses } from '../gradients/groups.js';
import { type MismatchCall, mean, mismatch, responses, standardDeviation } from '../gradients/mismatch.js';
import { checkIdentity } from '../gradients/statistics.js';
import type { History } from '../judgement/history.js';
import { gradientRows } from '../streams/gradient-rows.js';
import type { RunStreams } from '../streams/run-streams.js';
import { roleSignals, type SignalSetting } from '../streams/signals.js';
import type { TableRow } from '../streams/tables.js';
import type { Task } from '../tasks/types.js';
import type { Episode, RoleCall } from '../workflows/types.js';
import type { Evaluation } from './evaluate.js';
import type { CreditedCall, StepCall } from './step-call.js';
import type { StepRecord } from './steps.js';
import type { PolicyUpdate } from './update-policy.js';

/** What signals are made with; `firstLength` is asked of the same phase. */
export type SignalSource = Omit<SignalSetting, 'firstLength'> & {
  history: Pick<History, 'firstLength'>;
};

/** Appends what is known of a step after its updates, timings aside; its episodes are there already. */
export function recordStep(streams: RunStreams, record: StepRecord): void {
  const { gradients, pairs } = gradientRowsOf(record);
  const { calls, prompts } = callRows(record);
  streams.append('updates', updateRows(record));
  streams.append('gradients', gradients);
  streams.append('gradient_pairs', pairs);
  streams.append('calls', calls);
  streams.append('prompts', prompts);
  streams.append('rewards', rewardRows(record));
  streams.append('roles', roleRows(record));
  streams.append('steps', [stepRow(record)]);
}

const wasApplied = ({ result }: PolicyUpdate) => result.skipped === undefined;

/** Optimizer steps of a policy in the step. */
const updatesOf = ({ updates }: StepRecord, policy: string) =>
  updates.filter((other) => other.policy === policy).length;

function updateRows(record: StepRecord): TableRow<'updates'>[] {
  return record.updates.map((one) => {
    const { result, policy, calls } = one;
    const ifApplied = (value: number | null) => (wasApplied(one) ? value : null);
    return {
      step: record.step,
      update: one.index,
      policy,
      version: result.version,
      updates: updatesOf(record, policy),
      loss: ifApplied(result.loss),
      gradient_norm: ifApplied(result.gradients.totalNorm),
      clip_factor: ifApplied(result.clipFactor),
      identity_deviation: wasApplied(one) ? checkIdentity(result.gradients, policy) : null,
      update_coherence: ifApplied(result.updateCoherence),
      learning_rate: one.learningRate,
      calls: calls.length,
      zero_advantage_calls: calls.filter(({ advantage }) => advantage === 0).length,
      backward_calls: calls.filter(({ pass }) => pass === 'backward').length,
      masked_calls: one.masked,
      loss_tokens: one.tokens,
      tokens_seen: result.tokensSeen,
      tokens_computed: result.tokensComputed,
      extra_rows: result.extraRows,
      skipped: result.skipped ?? null,
    };
  });
}

function gradientRowsOf(record: StepRecord): ReturnType<typeof gradientRows> {
  const all = record.updates.filter(wasApplied).map((one) => {
    const { index: update, policy, groups, prompts, result, calls } = one;
    const masses = groupMasses(
      calls.map(({ call, advantage, weight, gradientGroup: group }) => ({
        group,
        tokens: call.completion.ids.length,
        advantage,
        weight,
      })),
      groups.length,
    );
    return gradientRows({
      step: record.step,
      update,
      policy,
      updates: updatesOf(record, policy),
      statistics: result.gradients,
      groups,
      masses,
      ...(prompts && { prompts }),
    });
  });
  return {
    gradients: all.flatMap(({ gradients }) => gradients),
    pairs: all.flatMap(({ pairs }) => pairs),
  };
}

function meanOf(values: Float32Array | undefined): number | null {
  return values === undefined ? null : mean(Array.from(values));
}

/** Index of a call's messages among those that were seen so far. */
function promptIndex(indices: Map<string, number>, { messages }: RoleCall): number {
  const text = messages.map(({ role, content }) => `[${role}]\n${content}`).join('\n');
  const index = indices.get(text) ?? indices.size;
  indices.set(text, index);
  return index;
}

/** The calls, and the different prompts of them in the order of their first calls. */
function callRows({ step, calls }: StepRecord): {
  calls: TableRow<'calls'>[];
  prompts: TableRow<'prompts'>[];
} {
  const indices = new Map<string, number>();
  const rows = calls.map((one) => {
    const { episode, call, index, reward, statistics } = one;
    const { completion } = call;
    return {
      step,
      problem_index: episode.problemIndex,
      sample: episode.sample,
      call: index,
      problem: episode.problem.id,
      role: call.role,
      slot: call.slot,
      turn: call.turn,
      policy: call.policy,
      version: completion.version,
      prompt: promptIndex(indices, call),
      prompt_tokens: call.prompt.length,
      cached_tokens: completion.cachedTokens,
      response_tokens: completion.ids.length,
      finish: completion.finish,
      episode_reward: episode.grade.reward,
      episode_reason: episode.grade.reason,
      reward: reward instanceof TroupeError ? null : reward,
      correct: call.ownGrade?.correct ?? null,
      unread: call.unread === true,
      advantage: one.advantage ?? null,
      weight: one.weight ?? 0,
      trained: one.pass === 'backward',
      rollout_logprob: meanOf(completion.logprobs),
      trainer_logprob: meanOf(statistics?.logprobs),
      entropy: meanOf(statistics?.entropy),
      text: call.text,
    };
  });
  return { calls: rows, prompts: [...indices].map(([text, prompt]) => ({ step, prompt, text })) };
}

function rewardRows({ step, episodes, calls }: StepRecord): TableRow<'rewards'>[] {
  const nameOf = ({ problemIndex, sample }: Episode) => `${problemIndex}/${sample}`;
  const indices = new Map(episodes.map((episode, index) => [nameOf(episode), index]));
  return calls.flatMap(({ episode, index, values }) =>
    values.map(({ name, value, weight, error }) => ({
      step,
      episode: indices.get(nameOf(episode)) ?? 0,
      call: index,
      name,
      value,
      weight,
      error: error?.message ?? null,
    })),
  );
}

const isCredited = (one: StepCall): one is StepCall & CreditedCall => one.advantage !== undefined;

function mismatchOf(one: StepCall & CreditedCall, comparedWith: StepRecord['old']): MismatchCall[] {
  const { call, advantage, statistics, oldLogprobs, standsFor: weight = 1 } = one;
  if (statistics === undefined) return [];
  const { logprobs: trainer, entropy } = statistics;
  const rollout = call.completion.logprobs;
  const old = comparedWith === 'rollout' ? rollout : (oldLogprobs ?? trainer);
  return [{ rollout, trainer, old, entropy, advantage, weight }];
}

function roleRows({ step, calls, clip, old, importance }: StepRecord): TableRow<'roles'>[] {
  const credited = calls.filter(isCredited);
  return [...new Set(credited.map(({ call }) => call.role))].map((role) => {
    const its = credited.filter(({ call }) => call.role === role);
    const seen = responses(
      its.map(({ call, reward, advantage, group, flat }) => ({
        tokens: call.completion.ids.length,
        truncated: call.completion.finish === 'length',
        reward,
        advantage,
        ...(call.ownGrade === undefined ? {} : { correct: call.ownGrade.correct }),
        advantageGroup: group,
        flat,
      })),
    );
    const moved = mismatch(
      its.flatMap((one) => mismatchOf(one, old)),
      clip,
      importance,
    );
    return {
      step,
      role,
      policy: its[0]?.call.policy ?? '',
      calls: seen.calls,
      tokens: seen.tokens,
      reward_mean: seen.rewardMean,
      reward_std: seen.rewardStd,
      correct_share: seen.correctShare,
      zero_variance_share: seen.zeroVarianceShare,
      zero_advantage_share: seen.zeroAdvantageShare,
      length_mean: seen.lengthMean,
      length_p50: seen.lengthP50,
      length_p95: seen.lengthP95,
      truncated_share: seen.truncatedShare,
      mismatch_calls: moved.calls,
      mismatch_tokens: moved.tokens,
      perplexity: moved.perplexity,
      perplexity_ratio: moved.perplexityRatio,
      kl_k1: moved.klK1,
      kl_k3: moved.klK3,
      chi_squared: moved.chiSquared,
      entropy: moved.entropy,
      clip_low_share: moved.clipLowShare,
      clip_high_share: moved.clipHighShare,
      importance_outside_share: moved.importanceOutsideShare,
    };
  });
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

function stepRow({ step, episodes, calls, credit, replaced }: StepRecord): TableRow<'steps'> {
  const rewards = episodes.map(({ grade }) => grade.reward);
  return {
    step,
    problems: new Set(episodes.map(({ problemIndex }) => problemIndex)).size,
    episodes: episodes.length,
    broken_episodes: episodes.filter(({ error }) => error !== undefined).length,
    calls: calls.length,
    failed_rewards: calls.filter(({ reward }) => reward instanceof TroupeError).length,
    groups: credit.groups,
    groups_of_one: credit.groupsOfOne,
    groups_without_variance: credit.groupsWithoutVariance,
    replaced_problems: replaced.problems,
    replaced_correct_share: replaced.episodes === 0 ? null : replaced.correct / replaced.episodes,
    correct_share: mean(episodes.map(({ grade }) => (grade.correct ? 1 : 0))),
    reward_mean: mean(rewards),
    reward_std: standardDeviation(rewards),
    prompt_tokens: sum(calls.map(({ call }) => call.prompt.length)),
    response_tokens: sum(calls.map(({ call }) => call.completion.ids.length)),
  };
}

type Phase = 'train' | 'evaluation';
/** Evaluations at temperature 0 have no signals. */
export type EpisodePhase = Phase | 'greedy';

/** Appends episodes once they are graded. `task` reads their answers. */
export function recordEpisodes(
  streams: RunStreams,
  step: number,
  phase: EpisodePhase,
  episodes: readonly Episode[],
  task: Pick<Task, 'extract'>,
): void {
  const rows = episodes.map(({ problemIndex, sample, problem, answer, grade, calls, error }, episode) => ({
    step,
    phase,
    episode,
    problem_index: problemIndex,
    sample,
    problem: problem.id,
    question: problem.question,
    right_answer: problem.answer ?? null,
    answer: error === undefined ? answer : null,
    extracted: error === undefined ? (task.extract(answer) ?? null) : null,
    correct: grade.correct,
    reward: grade.reward,
    reason: grade.reason,
    calls: calls.length,
    error: error ?? null,
  }));
  streams.append('episodes', rows);
}

export function recordSignals(
  streams: RunStreams,
  step: number,
  phase: Phase,
  episodes: readonly Episode[],
  { history, ...source }: SignalSource,
): void {
  const firstLength = (role: string) => history.firstLength(phase, role);
  const signals = roleSignals(episodes, { ...source, firstLength });
  streams.append(
    'signals',
    signals.map(({ role, signal, value }) => ({ step, phase, role, signal, value })),
  );
}

export function recordEvaluation(streams: RunStreams, step: number, { episodes, greedy }: Evaluation): void {
  streams.append('evaluations', evaluationRows(step, episodes));
  if (greedy !== undefined) streams.append('greedy_evaluations', evaluationRows(step, greedy.episodes));
  const indices = new Map<string, number>();
  const calls = evaluationCallRows(step, 'evaluation', episodes, indices);
  if (greedy !== undefined) append(calls, evaluationCallRows(step, 'greedy', greedy.episodes, indices));
  streams.append('evaluation_calls', calls);
  streams.append(
    'evaluation_prompts',
    [...indices].map(([text, prompt]) => ({ step, prompt, text })),
  );
}

/** `indices`: of the prompts of the evaluation; those that are not there yet are added. */
function evaluationCallRows(
  step: number,
  phase: 'evaluation' | 'greedy',
  episodes: readonly Episode[],
  indices: Map<string, number>,
): TableRow<'evaluation_calls'>[] {
  return episodes.flatMap(({ problemIndex, sample, problem, grade, calls }, episode) =>
    calls.map((call, index) => ({
      step,
      phase,
      episode,
      problem_index: problemIndex,
      sample,
      call: index,
      problem: problem.id,
      role: call.role,
      slot: call.slot,
      turn: call.turn,
      policy: call.policy,
      prompt: promptIndex(indices, call),
      prompt_tokens: call.prompt.length,
      response_tokens: call.completion.ids.length,
      finish: call.completion.finish,
      episode_reward: grade.reward,
      episode_reason: grade.reason,
      unread: call.unread === true,
      text: call.text,
    })),
  );
}

function evaluationRows(step: number, episodes: readonly Episode[]): TableRow<'evaluations'>[] {
  return episodes.map(({ problem, sample, grade, error, calls, answer }) => ({
    step,
    problem: problem.id,
    sample,
    correct: grade.correct,
    reward: grade.reward,
    reason: grade.reason,
    broken: error !== undefined,
    calls: calls.length,
    response_tokens: sum(calls.map(({ completion }) => completion.ids.length)),
    answer,
  }));
}
