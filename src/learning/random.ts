/** Random numbers for the main thread: a counter function, so that they do not depend on what else was drawn. */
import { mix } from '../tasks/random.js';

/** A stream of uniform numbers in [0, 1), given by its key. */
export function randomStream(...key: readonly number[]): () => number {
  const seed = key.reduce((hash, part) => mix(hash ^ mix(part + 0x9e3779b9)), 0x243f6a88);
  let counter = 0;
  return () => mix(seed ^ mix(counter++ + 0x9e3779b9)) / 2 ** 32;
}
