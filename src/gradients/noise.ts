/**
 * The noise floor of cosines between group gradients: how far a group's gradient repeats itself on other prompts
 * (split-half reliability, Spearman 1910, Brown 1910), cosines between groups over disjoint prompts corrected for it,
 * and their bootstrap intervals over prompts. Pure functions over a Gram matrix of groups × buckets of prompts.
 */
import { Random } from '../tasks/random.js';
import { type Gram, inner } from './statistics.js';

/** Gram matrix of `groups` · `buckets` gradients: group k on the prompts of bucket b is number k · buckets + b. */
export interface BucketGram {
  gram: Gram;
  buckets: number;
}

export interface Floor {
  /** r: cosine between the halves, mean over the ways to halve the buckets. */
  splitHalf: number | null;
  /** R = 2 r / (1 + r). */
  reliability: number | null;
}

export interface CorrectedCosine {
  /**
   * Mean cosine between halves / √(r_k r_l), the correction for attenuation (Spearman 1904): a cosine between halves is
   * weakened by the noise of halves. Null unless both split-half cosines are above 0; noise may carry it beyond ±1.
   */
  cosine: number | null;
  /** 95 % bootstrap interval; null where it was not asked for or too few resamples have a value. */
  low: number | null;
  high: number | null;
}

/** How often each bucket counts, in one half and in the other; no bucket counts in both. */
type Split = readonly [readonly number[], readonly number[]];

/** Ways to halve the buckets that are averaged over at most; six buckets have ten. */
const MOST_SPLITS = 16;
/** Of the bootstrap: the ends of its interval are the sixth values from either side. */
const RESAMPLES = 200;

export class NoiseFloor {
  readonly #source: BucketGram;
  readonly #splits: Split[];
  readonly #random: Random;

  /** `key` names the random numbers of splits and resamples. */
  constructor(source: BucketGram, ...key: (string | number)[]) {
    this.#source = source;
    this.#random = new Random('noise floor', ...key);
    this.#splits = halvings(source.buckets, this.#random);
  }

  floor(group: number): Floor {
    const splitHalf = meanOf(this.#splits.map((split) => this.#across(split, group, group)));
    return { splitHalf, reliability: reliabilityOf(splitHalf) };
  }

  corrected(k: number, l: number, interval: boolean): CorrectedCosine {
    const cosine = this.#correctedOver(this.#splits, k, l);
    if (!interval || cosine === null) return { cosine, low: null, high: null };
    const values = Array.from({ length: RESAMPLES }, () => {
      const split = this.#random.pick(this.#splits);
      return this.#correctedOver([resampled(split, this.#random)], k, l);
    }).filter((value) => value !== null);
    if (values.length < RESAMPLES / 2) return { cosine, low: null, high: null };
    const sorted = values.sort((a, b) => a - b);
    const at = (share: number) => sorted[Math.round(share * (sorted.length - 1))] ?? 0;
    // Resamples repeat prompts, which makes their halves noisier and their cosines smaller: only their spread counts.
    const shift = cosine - at(0.5);
    return { cosine, low: at(0.025) + shift, high: at(0.975) + shift };
  }

  #correctedOver(splits: readonly Split[], k: number, l: number): number | null {
    const cross = meanOf(
      splits.flatMap(([a, b]) => [this.#across([a, b], k, l), this.#across([b, a], k, l)]),
    );
    const [first, second] = [k, l].map((group) =>
      meanOf(splits.map((split) => this.#across(split, group, group))),
    );
    if (cross === null || !first || !second || first <= 0 || second <= 0) return null;
    return cross / Math.sqrt(first * second);
  }

  /** Cosine between group k on one half and group l on the other. */
  #across([a, b]: Split, k: number, l: number): number | null {
    const scale = Math.sqrt(this.#product(k, a, k, a) * this.#product(l, b, l, b));
    return scale > 0 ? this.#product(k, a, l, b) / scale : null;
  }

  #product(k: number, a: readonly number[], l: number, b: readonly number[]): number {
    const { gram, buckets } = this.#source;
    let sum = 0;
    for (let i = 0; i < buckets; i++) {
      const weight = a[i] ?? 0;
      if (weight === 0) continue;
      for (let j = 0; j < buckets; j++) {
        const other = b[j] ?? 0;
        if (other !== 0) sum += weight * other * inner(gram, k * buckets + i, l * buckets + j);
      }
    }
    return sum;
  }
}

/** R = 2 r / (1 + r): the reliability of the whole, which has twice the prompts. */
function reliabilityOf(splitHalf: number | null): number | null {
  return splitHalf === null || splitHalf <= -1 ? null : (2 * splitHalf) / (1 + splitHalf);
}

/** Ways to halve the buckets, bucket 0 always in the first half: all of them, or a random choice. */
function halvings(buckets: number, random: Random): Split[] {
  const all: Split[] = [];
  for (let mask = 1; mask < 2 ** buckets; mask += 2) {
    const first = Array.from({ length: buckets }, (_, b) => (mask >> b) & 1);
    if (first.reduce((sum, one) => sum + one, 0) * 2 !== buckets) continue;
    all.push([first, first.map((one) => 1 - one)]);
  }
  if (all.length <= MOST_SPLITS) return all;
  const order = random.permutation(all.length);
  return all.filter((_, i) => (order[i] ?? 0) < MOST_SPLITS);
}

/** Buckets drawn with replacement within each half, so that the halves stay disjoint. */
function resampled(split: Split, random: Random): Split {
  const [first, second] = split.map((half) => {
    const members = half.flatMap((weight, b) => (weight > 0 ? [b] : []));
    const drawn = half.map(() => 0);
    for (const _ of members) {
      const bucket = random.pick(members);
      drawn[bucket] = (drawn[bucket] ?? 0) + 1;
    }
    return drawn;
  });
  return [first ?? [], second ?? []];
}

function meanOf(values: readonly (number | null)[]): number | null {
  const known = values.filter((value) => value !== null);
  return known.length === 0 ? null : known.reduce((sum, value) => sum + value, 0) / known.length;
}
