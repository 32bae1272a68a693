/**
 * Hashes and counter random numbers for problems: what is drawn depends on the named numbers alone, never on
 * what was drawn before, so that problem `index` of a seed is the same in every run and order.
 */

/** 32-bit hash of a text: FNV-1a with Murmur3's finalizer, which mixes short texts that differ in one letter. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  return mix(value);
}

/** 32 well-mixed bits of 32 bits (Murmur3's finalizer). */
export function mix(value: number): number {
  let mixed = value ^ (value >>> 16);
  mixed = Math.imul(mixed, 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}

/** Whether the thing with this name is held out of training, if `fraction` (0 to 1) of all things are. */
export function heldOut(name: string, fraction: number): boolean {
  return hash(`held-out ${name}`) < fraction * 2 ** 32;
}

/** Random numbers that follow from a name: equal names give equal sequences. */
export class Random {
  readonly #key: number;
  #counter = 0;

  constructor(...name: (string | number)[]) {
    this.#key = hash(name.join(' '));
  }

  /** Uniform in [0, 1). */
  next(): number {
    this.#counter = (this.#counter + 1) | 0;
    return mix(this.#key ^ mix(Math.imul(this.#counter, 0x9e3779b1))) / 2 ** 32;
  }

  /** A whole number from `low` to `high`, both included. */
  integer(low: number, high: number): number {
    return low + Math.floor(this.next() * (high - low + 1));
  }

  pick<T>(values: readonly T[]): T {
    const value = values[this.integer(0, values.length - 1)];
    if (value === undefined) throw new RangeError('nothing to pick from');
    return value;
  }

  /** The numbers 0 … count − 1 in a random order. */
  permutation(count: number): Uint32Array {
    const order = Uint32Array.from({ length: count }, (_, i) => i);
    for (let i = count - 1; i > 0; i--) {
      const j = this.integer(0, i);
      const value = order[i] as number;
      order[i] = order[j] as number;
      order[j] = value;
    }
    return order;
  }
}

/** Problem numbers of an endless pass over `count` problems, reshuffled each time round. */
export class ShuffledOrder {
  readonly #count: number;
  #of = '';
  #order: Uint32Array = new Uint32Array();

  constructor(count: number) {
    this.#count = count;
  }

  at(seed: number, index: number): number {
    const of = `${seed} ${Math.floor(index / this.#count)}`;
    if (of !== this.#of) {
      this.#order = new Random('shuffle', of).permutation(this.#count);
      this.#of = of;
    }
    return this.#order[index % this.#count] as number;
  }
}
