/** Accuracy with its uncertainty. */

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
  const z = 1.96;
  const n = problems;
  const mean = correct / total;
  const denominator = 1 + (z * z) / n;
  const centre = (mean + (z * z) / (2 * n)) / denominator;
  const half = (z * Math.sqrt((mean * (1 - mean)) / n + (z * z) / (4 * n * n))) / denominator;
  return { correct, total, mean, low: Math.max(0, centre - half), high: Math.min(1, centre + half) };
}
