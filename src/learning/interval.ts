/** Accuracy with its uncertainty. */

export interface Accuracy {
  correct: number;
  total: number;
  /** correct / total; 0 of 0 is null. */
  mean: number | null;
  /** 95 % Wilson score interval (Wilson 1927). */
  low: number | null;
  high: number | null;
}

export function accuracy(correct: number, total: number): Accuracy {
  if (total === 0) return { correct, total, mean: null, low: null, high: null };
  const z = 1.96;
  const mean = correct / total;
  const denominator = 1 + (z * z) / total;
  const centre = (mean + (z * z) / (2 * total)) / denominator;
  const half = (z * Math.sqrt((mean * (1 - mean)) / total + (z * z) / (4 * total * total))) / denominator;
  return { correct, total, mean, low: Math.max(0, centre - half), high: Math.min(1, centre + half) };
}
