/**
 * Sums over the calls of a run. Every reduction over calls that an update depends on goes through here, because
 * this is where the sums of several processes will be added.
 */
export function sumOverCalls(values: readonly number[]): number {
  let sum = 0;
  for (const value of values) sum += value;
  return sum;
}
