/**
 * The permutations of numpy, number for number, so that a split that somebody made in Python is made again here:
 * `numpy.random.RandomState(seed).permutation(n)`, which sklearn's train_test_split draws, and
 * `numpy.random.default_rng(seed).permutation(n)`, which the shuffle and train_test_split of `datasets` draw.
 * Seeds are whole numbers from 0 to 2^32 − 1. Sources: numpy/random/src (mt19937, pcg64, distributions) and
 * bit_generator.pyx; goldens: test/golden/permutations.py.
 */

/** `numpy.random.RandomState(seed).permutation(count)`. */
export function legacyPermutation(seed: number, count: number): Uint32Array {
  return shuffled(count, mersenneTwister(seed));
}

/** `numpy.random.default_rng(seed).permutation(count)`. */
export function generatorPermutation(seed: number, count: number): Uint32Array {
  return shuffled(count, pcg64(seed));
}

/** 0 … count − 1 shuffled from the end on (Fisher and Yates), by draws under a mask until one is small enough. */
function shuffled(count: number, next: () => number): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const mask = 2 ** (32 - Math.clz32(i)) - 1;
    let j = i + 1;
    while (j > i) j = (next() & mask) >>> 0;
    const value = order[i] as number;
    order[i] = order[j] as number;
    order[j] = value;
  }
  return order;
}

const WORDS = 624;
const AHEAD = 397;

/** MT19937 (Matsumoto and Nishimura 1998), seeded by a number: its numbers of 32 bits. */
function mersenneTwister(seed: number): () => number {
  const state = new Uint32Array(WORDS);
  state[0] = seed;
  for (let i = 1; i < WORDS; i++) {
    const before = state[i - 1] as number;
    state[i] = Math.imul(1812433253, before ^ (before >>> 30)) + i;
  }
  let at = WORDS;
  return () => {
    if (at === WORDS) {
      twist(state);
      at = 0;
    }
    let value = state[at++] as number;
    value ^= value >>> 11;
    value ^= (value << 7) & 0x9d2c5680;
    value ^= (value << 15) & 0xefc60000;
    return (value ^ (value >>> 18)) >>> 0;
  };
}

function twist(state: Uint32Array): void {
  for (let i = 0; i < WORDS; i++) {
    const next = state[(i + 1) % WORDS] as number;
    const joined = ((state[i] as number) & 0x80000000) | (next & 0x7fffffff);
    state[i] = (state[(i + AHEAD) % WORDS] as number) ^ (joined >>> 1) ^ (next & 1 ? 0x9908b0df : 0);
  }
}

const LOW32 = 2n ** 32n - 1n;
const LOW64 = 2n ** 64n - 1n;
const PCG_MULTIPLIER = 0x2360ed051fc65da44385df649fccf645n;

/** PCG XSL RR 128/64 (O'Neill 2014), seeded as numpy seeds it: halves of its numbers of 64 bits, the low one first. */
function pcg64(seed: number): () => number {
  const [a, b, c, d] = seedSequence(seed);
  const increment = BigInt.asUintN(128, (((c << 64n) | d) << 1n) | 1n);
  const step = (state: bigint) => BigInt.asUintN(128, state * PCG_MULTIPLIER + increment);
  let state = step(BigInt.asUintN(128, step(0n) + ((a << 64n) | b)));
  let high: number | undefined;
  return () => {
    if (high !== undefined) {
      const value = high;
      high = undefined;
      return value;
    }
    state = step(state);
    const mixed = (state >> 64n) ^ (state & LOW64);
    const turn = state >> 122n;
    const value = ((mixed >> turn) | (mixed << (64n - turn))) & LOW64;
    high = Number(value >> 32n);
    return Number(value & LOW32);
  };
}

const POOL = 4;

/** numpy.random.SeedSequence(seed).generate_state(4, uint64), after O'Neill's seed_seq_fe128. */
function seedSequence(seed: number): [bigint, bigint, bigint, bigint] {
  const mixEntropy = hash(0x43b0d7e5, 0x931e8875);
  const pool = new Uint32Array(POOL).map((_, i) => mixEntropy(i === 0 ? seed : 0));
  for (let from = 0; from < POOL; from++) {
    for (let to = 0; to < POOL; to++) {
      if (from === to) continue;
      const mixed = mixEntropy(pool[from] as number);
      const sum = Math.imul(0xca01f9dd, pool[to] as number) - Math.imul(0x4973f715, mixed);
      pool[to] = sum ^ ((sum >>> 0) >>> 16);
    }
  }
  const output = hash(0x8b51f9dd, 0x58f38ded);
  const words = Array.from({ length: 2 * POOL }, (_, i) => BigInt(output(pool[i % POOL] as number)));
  const word = (i: number) => (words[2 * i] as bigint) | ((words[2 * i + 1] as bigint) << 32n);
  return [word(0), word(1), word(2), word(3)];
}

/** A hash of 32 bits whose constant changes with each use. */
function hash(initial: number, multiplier: number): (value: number) => number {
  let constant = initial;
  return (value) => {
    const before = value ^ constant;
    constant = Math.imul(constant, multiplier);
    const product = Math.imul(before, constant);
    return (product ^ (product >>> 16)) >>> 0;
  };
}
