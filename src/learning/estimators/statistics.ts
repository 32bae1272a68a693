/** Sums over rewards that the estimators have in common. */
import { sumOverCalls } from '../reduction.js';

/** Rewards that differ by less, relative to the largest, differ by rounding alone: means of the same values may. */
const ROUNDING = 1e-12;

/** Whether no values differ by more than rounding. */
export function isFlat(values: readonly number[]): boolean {
  let lowest = Number.POSITIVE_INFINITY;
  let highest = Number.NEGATIVE_INFINITY;
  for (const value of values) {
    lowest = Math.min(lowest, value);
    highest = Math.max(highest, value);
  }
  return values.length < 2 || highest - lowest <= ROUNDING * Math.max(Math.abs(lowest), Math.abs(highest));
}

export const meanOf = (values: readonly number[]): number => sumOverCalls(values) / values.length;

/** Unbiased standard deviation. */
export function deviationOf(values: readonly number[]): number {
  const mean = meanOf(values);
  return Math.sqrt(sumOverCalls(values.map((value) => (value - mean) ** 2)) / (values.length - 1));
}
