/** Random numbers for the main thread: a counter function, so that they do not depend on what else was drawn. */

/** 32 well-mixed bits of a 32-bit input (Murmur3's finalizer). */
function mix(value: number): number {
  let x = value >>> 0;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

/** A stream of uniform numbers in [0, 1), given by its key. */
export function randomStream(...key: readonly number[]): () => number {
  const seed = key.reduce((hash, part) => mix(hash ^ mix(part + 0x9e3779b9)), 0x243f6a88);
  let counter = 0;
  return () => mix(seed ^ mix(counter++ + 0x9e3779b9)) / 2 ** 32;
}
