/**
 * How far a role's policy in the trainer is from the one that sampled, and what its responses looked like. Let ℓ
 * be the trainer's log-probability of a sampled token and ρ the rollout's, at the same temperature, d = ℓ − ρ;
 * means are over response tokens unless said otherwise. What they are written into: the table `roles`.
 */

/** The tokens of one call, each array [response tokens]. */
export interface MismatchCall {
  /** ρ. */
  rollout: Float32Array;
  /** ℓ. */
  trainer: Float32Array;
  /** What the loss's ratio compares ℓ with; left out: ρ. */
  old?: Float32Array;
  /** Nats. */
  entropy: Float32Array;
  advantage: number;
  /** How many calls this one stands for, where the mismatch is measured on a sample; 1 without. */
  weight?: number;
}

export interface Mismatch {
  calls: number;
  tokens: number;
  /** exp(−mean ℓ) of a response, mean over responses. */
  perplexity: number | null;
  /** exp(mean ρ − mean ℓ) of a response, mean over responses. */
  perplexityRatio: number | null;
  /** mean(ρ − ℓ), nats: an estimate of KL(rollout ‖ trainer), negative by chance. */
  klK1: number | null;
  /** mean(exp(d) − d − 1), nats: the same, never negative (Schulman's k3). */
  klK3: number | null;
  /** mean(exp(2d)) − 1. */
  chiSquared: number | null;
  /** Nats. */
  entropy: number | null;
  /** Tokens whose ratio in the loss is below 1 − clipLow while the advantage is negative. */
  clipLowShare: number | null;
  /** Tokens whose ratio is above 1 + clipHigh while the advantage is positive. */
  clipHighShare: number | null;
  /** Tokens whose importance weight lies outside its bounds: clamped or masked. */
  importanceOutsideShare: number | null;
}

/** exp(2 · 20) is still far from overflow, and a token this far off is an error, not a mismatch. */
const LARGEST_DIFFERENCE = 20;

interface Sums {
  responses: number;
  tokens: number;
  perplexity: number;
  perplexityRatio: number;
  k1: number;
  k3: number;
  chiSquared: number;
  entropy: number;
  clipLow: number;
  clipHigh: number;
  importanceOutside: number;
}

/** Bounds of p_old / p_rollout, of each token or as the product over a response (engine/importance.ts). */
export interface ImportanceBounds {
  low: number;
  high: number;
  level: 'token' | 'sequence';
}

/** A loss clips the ratio of each token, or of each response (the geometric mean), outside of [1 − low, 1 + high]. */
export interface Clip {
  low: number;
  high: number;
  level: 'token' | 'sequence';
}

/**
 * Mismatch over the calls of one role. Calls without response tokens count nowhere; without any, all is null. Without
 * `clip` the shares of clipped tokens are null, without `importance` that of weights outside their bounds.
 */
export function mismatch(
  calls: readonly MismatchCall[],
  clip: Clip | undefined,
  importance?: ImportanceBounds,
): Mismatch {
  const sums: Sums = {
    responses: 0,
    tokens: 0,
    perplexity: 0,
    perplexityRatio: 0,
    k1: 0,
    k3: 0,
    chiSquared: 0,
    entropy: 0,
    clipLow: 0,
    clipHigh: 0,
    importanceOutside: 0,
  };
  const measured = calls.filter((call) => call.trainer.length > 0);
  for (const call of measured) {
    addCall(sums, call, clip);
    if (importance !== undefined) sums.importanceOutside += outside(call, importance);
  }
  const perToken = (sum: number) => (sums.tokens === 0 ? null : sum / sums.tokens);
  const perResponse = (sum: number) => (sums.responses === 0 ? null : sum / sums.responses);
  return {
    calls: measured.length,
    tokens: measured.reduce((sum, call) => sum + call.trainer.length, 0),
    perplexity: perResponse(sums.perplexity),
    perplexityRatio: perResponse(sums.perplexityRatio),
    klK1: perToken(sums.k1),
    klK3: perToken(sums.k3),
    chiSquared: perToken(sums.chiSquared),
    entropy: perToken(sums.entropy),
    clipLowShare: clip === undefined ? null : perToken(sums.clipLow),
    clipHighShare: clip === undefined ? null : perToken(sums.clipHigh),
    importanceOutsideShare: importance === undefined ? null : perToken(sums.importanceOutside),
  };
}

function addCall(sums: Sums, call: MismatchCall, clip: Clip | undefined): void {
  const { rollout, trainer, entropy, weight = 1 } = call;
  if (rollout.length !== trainer.length || entropy.length !== trainer.length) {
    throw new RangeError(
      `mismatch needs one value per token of each: rollout ${rollout.length}, trainer ${trainer.length}, entropy ${entropy.length}`,
    );
  }
  let trainerSum = 0;
  let rolloutSum = 0;
  for (let token = 0; token < trainer.length; token += 1) {
    const inTrainer = trainer[token] ?? 0;
    const inRollout = rollout[token] ?? 0;
    const raw = inTrainer - inRollout;
    const difference = Math.max(-LARGEST_DIFFERENCE, Math.min(LARGEST_DIFFERENCE, raw));
    trainerSum += inTrainer;
    rolloutSum += inRollout;
    sums.k1 -= weight * raw;
    // expm1 keeps the digits that exp(d) − 1 loses for the small d that are the rule.
    sums.k3 += weight * (Math.expm1(difference) - difference);
    sums.chiSquared += weight * Math.expm1(2 * difference);
    sums.entropy += weight * (entropy[token] ?? 0);
  }
  if (clip !== undefined) addClipped(sums, call, clip);
  const length = trainer.length;
  sums.responses += weight;
  sums.tokens += weight * length;
  sums.perplexity += weight * Math.exp(-trainerSum / length);
  sums.perplexityRatio += weight * Math.exp((rolloutSum - trainerSum) / length);
}

/** Counts the tokens whose ratio the loss clips: only on the side that the advantage pushes to. */
function addClipped(sums: Sums, call: MismatchCall, { low, high, level }: Clip): void {
  const { trainer, rollout, old = rollout, advantage, weight = 1 } = call;
  const differences = Array.from(trainer, (value, token) => value - (old[token] ?? 0));
  const ofResponse = mean(differences) ?? 0;
  for (const difference of differences) {
    const ratio = Math.exp(level === 'sequence' ? ofResponse : difference);
    if (advantage < 0 && ratio < 1 - low) sums.clipLow += weight;
    if (advantage > 0 && ratio > 1 + high) sums.clipHigh += weight;
  }
}

/** Tokens, by the call's weight, whose importance weight lies outside the bounds. */
function outside(call: MismatchCall, { low, high, level }: ImportanceBounds): number {
  const { rollout, old = rollout, weight = 1 } = call;
  const differences = Array.from(rollout, (value, token) => (old[token] ?? 0) - value);
  const ofResponse = differences.reduce((total, value) => total + value, 0);
  const ratios = differences.map((value) => Math.exp(level === 'sequence' ? ofResponse : value));
  return weight * ratios.filter((ratio) => ratio < low || ratio > high).length;
}

/** What is known of a call without the trainer. */
export interface ResponseCall {
  /** Response tokens. */
  tokens: number;
  /** The length limit cut it. */
  truncated: boolean;
  reward: number;
  advantage: number;
  /** Whether it is right by itself; undefined where not graded. */
  correct?: boolean;
  /** Calls of one advantage group have the same name here. */
  advantageGroup: string;
  /** The rewards of that group, calls of other roles included, are all the same. */
  flat: boolean;
}

export interface Responses {
  calls: number;
  tokens: number;
  rewardMean: number | null;
  /** Unbiased; null for fewer than two. */
  rewardStd: number | null;
  correctShare: number | null;
  /** Share of the calls' advantage groups in which every reward is the same (a group of one is one of them). */
  zeroVarianceShare: number | null;
  zeroAdvantageShare: number | null;
  lengthMean: number | null;
  lengthP50: number | null;
  lengthP95: number | null;
  truncatedShare: number | null;
}

/** Lengths, rewards and advantage groups over the calls of one role. */
export function responses(calls: readonly ResponseCall[]): Responses {
  const lengths = calls.map((call) => call.tokens);
  const rewards = calls.map((call) => call.reward);
  const graded = calls.filter((call) => call.correct !== undefined);
  const groups = new Map(calls.map(({ advantageGroup, flat }) => [advantageGroup, flat]));
  const flat = [...groups.values()].filter(Boolean);
  return {
    calls: calls.length,
    tokens: lengths.reduce((sum, length) => sum + length, 0),
    rewardMean: mean(rewards),
    rewardStd: standardDeviation(rewards),
    correctShare: shareOf(graded, (call) => call.correct === true),
    zeroVarianceShare: groups.size === 0 ? null : flat.length / groups.size,
    zeroAdvantageShare: shareOf(calls, (call) => call.advantage === 0),
    lengthMean: mean(lengths),
    lengthP50: quantile(lengths, 0.5),
    lengthP95: quantile(lengths, 0.95),
    truncatedShare: shareOf(calls, (call) => call.truncated),
  };
}

/** Null for no values. */
export function mean(values: readonly number[]): number | null {
  return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Unbiased; null for fewer than two values. */
export function standardDeviation(values: readonly number[]): number | null {
  const centre = mean(values);
  if (centre === null || values.length < 2) return null;
  const squares = values.reduce((sum, value) => sum + (value - centre) ** 2, 0);
  return Math.sqrt(squares / (values.length - 1));
}

/** Quantile `at` (0 to 1) with linear interpolation, as NumPy's default; null for no values. */
export function quantile(values: readonly number[], at: number): number | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const position = (sorted.length - 1) * at;
  const below = sorted[Math.floor(position)] ?? 0;
  const above = sorted[Math.ceil(position)] ?? 0;
  return below + (above - below) * (position - Math.floor(position));
}

function shareOf<T>(items: readonly T[], is: (item: T) => boolean): number | null {
  return items.length === 0 ? null : items.filter(is).length / items.length;
}
