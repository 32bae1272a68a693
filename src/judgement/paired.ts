/**
 * The difference of two evaluations on the same problems with the same random numbers, with its uncertainty. What
 * both have in common cancels, so the interval is much narrower than that of two separate accuracies.
 */

/** Outcomes of one evaluation by problem: the list of its samples. */
export type Outcomes = ReadonlyMap<string, readonly boolean[]>;

/** How much more often one evaluation is right than another, on the same problems. */
export interface Difference {
  /** Mean accuracy of the first minus that of the second, over the problems that both have. */
  difference: number;
  low: number;
  high: number;
  /** Problems that both have. */
  problems: number;
}

/**
 * `first` − `second` with the interval of Bonett and Price (2012) for paired proportions: a normal interval after
 * one problem each way is added, so that it has a width even where nothing differs. With several samples of a
 * problem, the problem counts once, by the difference of its means. `comparisons`: how many such intervals are
 * looked at; each is widened so that all together hold with 95 % (Bonferroni). Null without common problems.
 */
export function pairedDifference(first: Outcomes, second: Outcomes, comparisons = 1): Difference | null {
  const differences = [...first].flatMap(([problem, outcomes]) => {
    const others = second.get(problem);
    return others === undefined || others.length === 0 || outcomes.length === 0
      ? []
      : [shareOf(outcomes) - shareOf(others)];
  });
  const problems = differences.length;
  if (problems === 0) return null;
  const sum = differences.reduce((total, value) => total + value, 0);
  const squares = differences.reduce((total, value) => total + value * value, 2);
  const centre = sum / (problems + 2);
  const variance = Math.max(0, squares / (problems + 2) - centre * centre) / (problems + 2);
  const half = normalQuantile(1 - 0.025 / Math.max(1, comparisons)) * Math.sqrt(variance);
  return {
    difference: sum / problems,
    low: Math.max(-1, centre - half),
    high: Math.min(1, centre + half),
    problems,
  };
}

function shareOf(outcomes: readonly boolean[]): number {
  return outcomes.filter((correct) => correct).length / outcomes.length;
}

/** Mean over problems of the share of right samples; null without any. */
export function accuracyOf(outcomes: Outcomes): number | null {
  const shares = [...outcomes.values()].filter((samples) => samples.length > 0).map(shareOf);
  return shares.length === 0 ? null : shares.reduce((sum, share) => sum + share, 0) / shares.length;
}

/** z with P(Z < z) = p for 0.5 ≤ p < 1, to 4.5e-4 (Abramowitz and Stegun 26.2.23). */
export function normalQuantile(p: number): number {
  const t = Math.sqrt(-2 * Math.log(1 - p));
  const above = 2.515517 + t * (0.802853 + t * 0.010328);
  return t - above / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308)));
}
