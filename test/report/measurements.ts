/** Made-up steps of a voting run under one policy, with every table that the pages read. */
import type { TableName } from '../../src/streams/tables.js';
import type { Row, Words } from '../runs/made-up-run.js';
import { VOTING } from '../runs/made-up-run.js';

export const LAYERS = [-1, 0, 1];

/** Norms of the two roles at a step: 3 and 1, later 1 and 1. */
export const norms = (step: number) => (step < 30 ? [3, 1] : [1, 1]);
/** Cosine of the two roles in a layer. */
export const cosine = (layer: number, step: number) => (step < 30 ? 0.5 : -0.5) + layer / 10;

export function stepRows(
  step: number,
  text = 'The answer is 4.',
  { roles, policies }: Words = VOTING,
): Partial<Record<TableName, Row[]>> {
  const [first = '', second = ''] = roles;
  const policy = policies[0] as string;
  const role = { step, policy, grouping: 'role' };
  const pair = { ...role, role_a: first, role_b: second };
  const scopes = [{ scope: 'total', layer: null }, ...LAYERS.map((layer) => ({ scope: 'layer', layer }))];
  const call = { step, policy, problem: 'sum-1', finish: 'stop', weight: 0.1 };
  return {
    steps: [{ step, problems: 1, episodes: 2, correct_share: 0.5 }],
    updates: [{ step, policy, gradient_norm: 2, loss: 0.1 }],
    gradients: scopes.flatMap((scope) =>
      roles.map((name, i) => ({
        ...role,
        ...scope,
        role: name,
        norm: norms(step)[i],
        amplification: i === 0 ? 1.5 : 1,
      })),
    ),
    gradient_pairs: scopes.map((scope) => {
      const value = cosine(scope.layer ?? 0, step);
      const [a = 0, b = 0] = norms(step);
      return { ...pair, ...scope, cosine: value, gram: value * a * b };
    }),
    roles: roles.map((name) => ({ step, role: name, policy, kl_k3: 0.01, perplexity: 2, entropy: 0.7 })),
    signals: roles.map((name) => ({ step, phase: 'train', role: name, signal: 'format_share', value: 0.9 })),
    calls: [1, 0].flatMap((reward, sample) =>
      roles.map((name, i) => ({
        ...call,
        sample,
        call: i,
        role: name,
        reward,
        episode_reward: reward,
        episode_reason: reward === 1 ? 'correct' : 'wrong',
        advantage: reward - 0.5,
        text,
      })),
    ),
    prompts: [{ step, prompt: 0, text: `[user]\nWhat is 2 + 2 at step ${step}?` }],
    episodes: [1, 0].map((reward, sample) => ({
      step,
      sample,
      episode: sample,
      problem: 'sum-1',
      question: `2 + 2 at step ${step}`,
      right_answer: '4',
      extracted: reward === 1 ? '4' : null,
      error: reward === 1 ? null : 'too long',
    })),
    timings: [{ step, total_seconds: 3, rollout_seconds: 2, backward_seconds: 1 }],
  };
}

export function evaluation(step: number, right: number, problems = 20): Partial<Record<TableName, Row[]>> {
  return {
    evaluations: Array.from({ length: problems }, (_, i) => ({ step, problem: `${i}`, correct: i < right })),
  };
}
