/** Measures of several samples of each problem: pass@k, majority@k, with 95 % intervals over problems. */
import { wilson } from '../accuracy.js';

/** One sample of a problem. */
export interface Sample {
  correct: boolean;
  /** The short answer in it, as the task reads it; undefined: none. */
  answer: string | undefined;
}

/** A mean over problems with its 95 % interval; null without problems. */
export interface Estimate {
  mean: number | null;
  low: number | null;
  high: number | null;
}

/**
 * Probability that at least one of k samples is right, estimated from n samples of which c are: 1 − C(n−c, k) / C(n, k),
 * which is unbiased (Chen et al. 2021, equation 1), as their product, which does not overflow. 1 ≤ k ≤ n.
 */
export function passAtK(n: number, c: number, k: number): number {
  if (n - c < k) return 1;
  let allWrong = 1;
  for (let i = n - c + 1; i <= n; i++) allWrong *= 1 - k / i;
  return 1 - allWrong;
}

/**
 * Share of right majorities among the ⌊n/k⌋ disjoint groups of k samples in their order. The majority of a group is the
 * answer that most of its samples give, the earliest of several such; samples without an answer have no vote, and a
 * group without any answer is wrong. 1 ≤ k ≤ n.
 */
export function majorityAtK(samples: readonly Sample[], k: number): number {
  const groups = Math.floor(samples.length / k);
  let right = 0;
  for (let g = 0; g < groups; g++) if (majorityIsRight(samples.slice(g * k, (g + 1) * k))) right += 1;
  return right / groups;
}

function majorityIsRight(samples: readonly Sample[]): boolean {
  const votes = new Map<string, { count: number; correct: boolean }>();
  for (const { answer, correct } of samples) {
    if (answer === undefined) continue;
    const vote = votes.get(answer) ?? { count: 0, correct };
    vote.count += 1;
    votes.set(answer, vote);
  }
  const most = Math.max(...[...votes.values()].map(({ count }) => count));
  // A map keeps the order in which answers first came.
  return [...votes.values()].find(({ count }) => count === most)?.correct ?? false;
}

/** Mean over problems of `value`, with its interval. */
export function estimate<T>(problems: readonly T[], value: (problem: T) => number): Estimate {
  if (problems.length === 0) return { mean: null, low: null, high: null };
  const mean = problems.reduce((sum, problem) => sum + value(problem), 0) / problems.length;
  return { mean, ...wilson(mean, problems.length) };
}

/** 1, 2, 4, … below n, and n: what is shown where nobody says which k. */
export function defaultKs(n: number): number[] {
  const powers: number[] = [];
  for (let k = 1; k < n; k *= 2) powers.push(k);
  return [...powers, n];
}
