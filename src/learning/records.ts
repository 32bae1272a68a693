/**
 * What a step leaves in the streams: rows of the tables of streams/tables.ts, made of its episodes, credit and
 * updates. Checks the gradient identity of every update on the way; a violation stops the run.
 */
import type { CallStatistics } from '../engine/types.js';
import { groupMasses } from '../gradients/groups.js';
import { type MismatchCall, mean, mismatch, responses, standardDeviation } from '../gradients/mismatch.js';
import { checkIdentity } from '../gradients/statistics.js';
import type { History } from '../judgement/history.js';
import { addGradientRows } from '../streams/gradient-rows.js';
import type { RunStreams } from '../streams/run-streams.js';
import { roleSignals, type SignalSetting } from '../streams/signals.js';
import type { Task } from '../tasks/types.js';
import type { Episode, RoleCall } from '../workflows/types.js';
import type { CreditedCall } from './credit.js';
import type { Evaluation } from './evaluate.js';
import type { StepRecord } from './steps.js';
import type { PolicyUpdate } from './update-policy.js';

/** What the trainer measured of a call, and whether the call had a backward pass. */
interface Measured {
  statistics: CallStatistics | undefined;
  /** Log p in the trainer before the step's first update, where that was measured. */
  old: Float32Array | undefined;
  weight: number;
  trained: boolean;
  /** Calls that this one stands for in the mismatch: a sample of the skipped ones stands for all of them. */
  standsFor: number;
}

/** What signals are made with; `firstLength` is asked of the same phase. */
export type SignalSource = Omit<SignalSetting, 'firstLength'> & {
  history: Pick<History, 'firstLength'>;
};

/** Appends what is known of a step after its updates, timings aside; its episodes are there already. */
export function recordStep(streams: RunStreams, record: StepRecord): void {
  const measured = measuredCalls(record.updates);
  recordUpdates(streams, record);
  recordCalls(streams, record, measured);
  recordRewards(streams, record);
  recordRoles(streams, record, measured);
  recordTotals(streams, record);
}

function measuredCalls(updates: readonly PolicyUpdate[]): Map<RoleCall, Measured> {
  const measured = new Map<RoleCall, Measured>();
  for (const { update, result } of updates) {
    const { trained, mismatchOnly, skipped } = update;
    for (const { call, weight } of update.calls) {
      measured.set(call, { statistics: undefined, old: undefined, weight, trained: false, standsFor: 0 });
    }
    for (const [i, { call, weight, oldLogprobs: old }] of trained.entries()) {
      measured.set(call, { statistics: result.calls[i], old, weight, trained: true, standsFor: 1 });
    }
    for (const [i, { call, weight, oldLogprobs: old }] of mismatchOnly.entries()) {
      const statistics = result.calls[trained.length + i];
      const standsFor = skipped / mismatchOnly.length;
      measured.set(call, { statistics, old, weight, trained: false, standsFor });
    }
  }
  return measured;
}

function recordUpdates(streams: RunStreams, { step, updates }: StepRecord): void {
  const rows = streams.columns('updates');
  const gradients = streams.columns('gradients');
  const pairs = streams.columns('gradient_pairs');
  for (const one of updates) {
    const { result, update, policy } = one;
    const applied = result.skipped === undefined;
    const norm = result.gradients.totalNorm;
    rows.step.push(step);
    rows.update.push(one.index);
    rows.policy.push(policy);
    rows.version.push(result.version);
    const count = updates.filter((other) => other.policy === policy).length;
    rows.updates.push(count);
    rows.loss.push(applied ? result.loss : null);
    rows.gradient_norm.push(applied ? norm : null);
    rows.clip_factor.push(applied ? result.clipFactor : null);
    rows.identity_deviation.push(applied ? checkIdentity(result.gradients, policy) : null);
    rows.update_coherence.push(applied ? result.updateCoherence : null);
    rows.learning_rate.push(one.learningRate);
    rows.calls.push(update.calls.length);
    rows.zero_advantage_calls.push(update.calls.filter(({ advantage }) => advantage === 0).length);
    rows.backward_calls.push(update.trained.length);
    rows.masked_calls.push(update.masked);
    rows.loss_tokens.push(update.tokens);
    rows.tokens_seen.push(result.tokensSeen);
    rows.tokens_computed.push(result.tokensComputed);
    rows.extra_rows.push(result.extraRows);
    rows.skipped.push(result.skipped ?? null);
    if (!applied) continue;
    const masses = groupMasses(
      update.calls.map(({ call, advantage, weight }, i) => ({
        group: one.membership[i] ?? 0,
        tokens: call.completion.ids.length,
        advantage,
        weight,
      })),
      one.groups.length,
    );
    const { index, groups, prompts } = one;
    addGradientRows(gradients, pairs, {
      step,
      update: index,
      policy,
      updates: count,
      statistics: result.gradients,
      groups,
      masses,
      ...(prompts && { prompts }),
    });
  }
  streams.append('updates', rows);
  streams.append('gradients', gradients);
  streams.append('gradient_pairs', pairs);
}

function meanOf(values: Float32Array | undefined): number | null {
  return values === undefined ? null : mean(Array.from(values));
}

/** Every call in the order of episodes; those without a reward have neither reward nor advantage. */
function withFailed({ episodes, credit }: StepRecord) {
  const credited = new Map(credit.calls.map((one) => [one.call, one]));
  return episodes.flatMap((episode) =>
    episode.calls.map((call) => {
      const { reward = null, advantage = null } = credited.get(call) ?? {};
      return { episode, call, reward, advantage };
    }),
  );
}

function recordCalls(streams: RunStreams, record: StepRecord, measured: Map<RoleCall, Measured>): void {
  const rows = streams.columns('calls');
  const prompts = new Map<string, number>();
  for (const { episode, call, reward, advantage } of withFailed(record)) {
    const prompt = call.messages.map(({ role, content }) => `[${role}]\n${content}`).join('\n');
    if (!prompts.has(prompt)) prompts.set(prompt, prompts.size);
    const { statistics, weight = 0, trained = false } = measured.get(call) ?? {};
    const { completion } = call;
    rows.step.push(record.step);
    rows.problem_index.push(episode.problemIndex);
    rows.sample.push(episode.sample);
    rows.call.push(episode.calls.indexOf(call));
    rows.problem.push(episode.problem.id);
    rows.role.push(call.role);
    rows.slot.push(call.slot);
    rows.turn.push(call.turn);
    rows.policy.push(call.policy);
    rows.version.push(completion.version);
    rows.prompt.push(prompts.get(prompt) ?? 0);
    rows.prompt_tokens.push(call.prompt.length);
    rows.cached_tokens.push(completion.cachedTokens);
    rows.response_tokens.push(completion.ids.length);
    rows.finish.push(completion.finish);
    rows.episode_reward.push(episode.grade.reward);
    rows.episode_reason.push(episode.grade.reason);
    rows.reward.push(reward);
    rows.correct.push(call.ownGrade?.correct ?? null);
    rows.unread.push(call.unread === true);
    rows.advantage.push(advantage);
    rows.weight.push(weight);
    rows.trained.push(trained);
    rows.rollout_logprob.push(meanOf(completion.logprobs));
    rows.trainer_logprob.push(meanOf(statistics?.logprobs));
    rows.entropy.push(meanOf(statistics?.entropy));
    rows.text.push(call.text);
  }
  streams.append('calls', rows);
  recordPrompts(streams, record.step, prompts);
}

function recordRewards(streams: RunStreams, { step, episodes, credit }: StepRecord): void {
  const rows = streams.columns('rewards');
  const places = new Map(episodes.map((episode, i) => [episode, i]));
  for (const { episode, call, values } of credit.rewarded) {
    for (const { name, value, weight, error } of values) {
      rows.step.push(step);
      rows.episode.push(places.get(episode) ?? 0);
      rows.call.push(episode.calls.indexOf(call));
      rows.name.push(name);
      rows.value.push(value);
      rows.weight.push(weight);
      rows.error.push(error?.message ?? null);
    }
  }
  streams.append('rewards', rows);
}

function recordPrompts(streams: RunStreams, step: number, prompts: ReadonlyMap<string, number>): void {
  const rows = streams.columns('prompts');
  for (const [text, index] of prompts) {
    rows.step.push(step);
    rows.prompt.push(index);
    rows.text.push(text);
  }
  streams.append('prompts', rows);
}

function mismatchCalls(
  calls: readonly CreditedCall[],
  measured: Map<RoleCall, Measured>,
  comparedWith: StepRecord['old'],
): MismatchCall[] {
  return calls.flatMap(({ call, advantage }) => {
    const { statistics, old, standsFor = 1 } = measured.get(call) ?? {};
    if (statistics === undefined) return [];
    const { logprobs: trainer, entropy } = statistics;
    const rollout = call.completion.logprobs;
    const compared = comparedWith === 'rollout' ? rollout : (old ?? trainer);
    return [{ rollout, trainer, old: compared, entropy, advantage, weight: standsFor }];
  });
}

function recordRoles(
  streams: RunStreams,
  { step, credit, clip, old }: StepRecord,
  measured: Map<RoleCall, Measured>,
): void {
  const rows = streams.columns('roles');
  for (const role of new Set(credit.calls.map(({ call }) => call.role))) {
    const calls = credit.calls.filter(({ call }) => call.role === role);
    const seen = responses(
      calls.map(({ call, reward, advantage, group, flat }) => ({
        tokens: call.completion.ids.length,
        truncated: call.completion.finish === 'length',
        reward,
        advantage,
        ...(call.ownGrade === undefined ? {} : { correct: call.ownGrade.correct }),
        advantageGroup: group,
        flat,
      })),
    );
    const moved = mismatch(mismatchCalls(calls, measured, old), clip);
    rows.step.push(step);
    rows.role.push(role);
    rows.policy.push(calls[0]?.call.policy ?? '');
    rows.calls.push(seen.calls);
    rows.tokens.push(seen.tokens);
    rows.reward_mean.push(seen.rewardMean);
    rows.reward_std.push(seen.rewardStd);
    rows.correct_share.push(seen.correctShare);
    rows.zero_variance_share.push(seen.zeroVarianceShare);
    rows.zero_advantage_share.push(seen.zeroAdvantageShare);
    rows.length_mean.push(seen.lengthMean);
    rows.length_p50.push(seen.lengthP50);
    rows.length_p95.push(seen.lengthP95);
    rows.truncated_share.push(seen.truncatedShare);
    rows.mismatch_calls.push(moved.calls);
    rows.mismatch_tokens.push(moved.tokens);
    rows.perplexity.push(moved.perplexity);
    rows.perplexity_ratio.push(moved.perplexityRatio);
    rows.kl_k1.push(moved.klK1);
    rows.kl_k3.push(moved.klK3);
    rows.chi_squared.push(moved.chiSquared);
    rows.entropy.push(moved.entropy);
    rows.clip_low_share.push(moved.clipLowShare);
    rows.clip_high_share.push(moved.clipHighShare);
  }
  streams.append('roles', rows);
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

function recordTotals(streams: RunStreams, { step, episodes, credit, replaced }: StepRecord): void {
  const rows = streams.columns('steps');
  const rewards = episodes.map(({ grade }) => grade.reward);
  const calls = episodes.flatMap((episode) => episode.calls);
  rows.step.push(step);
  rows.problems.push(new Set(episodes.map(({ problemIndex }) => problemIndex)).size);
  rows.episodes.push(episodes.length);
  rows.broken_episodes.push(episodes.filter(({ error }) => error !== undefined).length);
  rows.calls.push(calls.length);
  rows.failed_rewards.push(credit.failed.length);
  rows.groups.push(credit.groups);
  rows.groups_of_one.push(credit.groupsOfOne);
  rows.groups_without_variance.push(credit.groupsWithoutVariance);
  rows.replaced_problems.push(replaced.problems);
  rows.replaced_correct_share.push(replaced.episodes === 0 ? null : replaced.correct / replaced.episodes);
  rows.correct_share.push(mean(episodes.map(({ grade }) => (grade.correct ? 1 : 0))));
  rows.reward_mean.push(mean(rewards));
  rows.reward_std.push(standardDeviation(rewards));
  rows.prompt_tokens.push(sum(calls.map(({ prompt }) => prompt.length)));
  rows.response_tokens.push(sum(calls.map(({ completion }) => completion.ids.length)));
  streams.append('steps', rows);
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
  const rows = streams.columns('episodes');
  for (const [index, episode] of episodes.entries()) {
    const { problemIndex, sample, problem, answer, grade, calls, error } = episode;
    rows.step.push(step);
    rows.phase.push(phase);
    rows.episode.push(index);
    rows.problem_index.push(problemIndex);
    rows.sample.push(sample);
    rows.problem.push(problem.id);
    rows.question.push(problem.question);
    rows.right_answer.push(problem.answer ?? null);
    rows.answer.push(error === undefined ? answer : null);
    rows.extracted.push(error === undefined ? (task.extract(answer) ?? null) : null);
    rows.correct.push(grade.correct);
    rows.reward.push(grade.reward);
    rows.reason.push(grade.reason);
    rows.calls.push(calls.length);
    rows.error.push(error ?? null);
  }
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
  const rows = streams.columns('signals');
  for (const { role, signal, value } of roleSignals(episodes, { ...source, firstLength })) {
    rows.step.push(step);
    rows.phase.push(phase);
    rows.role.push(role);
    rows.signal.push(signal);
    rows.value.push(value);
  }
  streams.append('signals', rows);
}

export function recordEvaluation(streams: RunStreams, step: number, { episodes, greedy }: Evaluation): void {
  recordOutcomes(streams, 'evaluations', step, episodes);
  if (greedy !== undefined) recordOutcomes(streams, 'greedy_evaluations', step, greedy.episodes);
}

function recordOutcomes(
  streams: RunStreams,
  table: 'evaluations' | 'greedy_evaluations',
  step: number,
  episodes: readonly Episode[],
): void {
  const rows = streams.columns(table);
  for (const { problem, sample, grade, error, calls, answer } of episodes) {
    rows.step.push(step);
    rows.problem.push(problem.id);
    rows.sample.push(sample);
    rows.correct.push(grade.correct);
    rows.reward.push(grade.reward);
    rows.reason.push(grade.reason);
    rows.broken.push(error !== undefined);
    rows.calls.push(calls.length);
    rows.response_tokens.push(sum(calls.map(({ completion }) => completion.ids.length)));
    rows.answer.push(answer);
  }
  streams.append(table, rows);
}
