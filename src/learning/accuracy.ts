/** Accuracy with its uncertainty. */

/** Share of right answers. */
export interface Accuracy {
  correct: number;
  total: number;
  /** correct / total; 0 of 0 is null. */
  mean: number | null;
  /** 95 % Wilson score interval (Wilson 1927) over problems. */
  low: number | null;
  high: number | null;
}

/**
 * `problems`: how many independent ones the `total` answers are about. Several answers to one problem are alike, so
 * that the interval has the width of one answer each; where answers to a problem do differ it is too wide, never too
 * narrow.
 */
export function accuracy(correct: number, total: number, problems = total): Accuracy {
  if (total === 0) return { correct, total, mean: null, low: null, high: null };
  const mean = correct / total;
  return { correct, total, mean, ...wilson(mean, problems) };
}

/**
 * 95 % interval of a share `mean` over `n` independent problems (Wilson 1927). Of a mean of values between 0 and 1 it is
 * too wide, never too narrow: no such values vary more than those that are 0 or 1.
 */
export function wilson(mean: number, n: number): { low: number; high: number } {
  const z = 1.96;
  const denominator = 1 + (z * z) / n;
  const centre = (mean + (z * z) / (2 * n)) / denominator;
  const half = (z * Math.sqrt((mean * (1 - mean)) / n + (z * z) / (4 * n * n))) / denominator;
  return { low: Math.max(0, centre - half), high: Math.min(1, centre + half) };
}
