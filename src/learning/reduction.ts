/**
 * Sums over the calls of a step. Every reduction over calls that an update depends on goes through here: over all calls,
 * whichever rank had them, since every rank has them all (collect.ts). A reduction over a rank's own calls would make
 * the ranks step apart.
 */
export function sumOverCalls(values: readonly number[]): number {
  let sum = 0;
  for (const value of values) sum += value;
  return sum;
}
