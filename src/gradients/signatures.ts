/**
 * Text signatures of one role: what its responses look like when training goes wrong. Pure counts over recorded
 * calls; which role should answer in which form is the workflow's to say (`formats`), which values are alarming
 * is judgement/alarms.ts's.
 */
import type { RoleCall } from '../workflows/types.js';
import { mean } from './mismatch.js';

/** Shares are of the role's calls; null for none. */
export interface Signatures {
  /** Responses in the form that the workflow reads; null where it names none for the role. */
  format_share: number | null;
  /** Responses with \boxed. */
  boxed_share: number | null;
  /** Responses with a program: a code fence, or lines that begin as Python does. */
  code_share: number | null;
  /** Responses of at most `TERSE_WORDS` words: a verdict without its reasons. */
  terse_share: number | null;
  /** Responses that the length limit cut. */
  truncated_share: number | null;
  /** Response tokens, mean. */
  length_mean: number | null;
  /**
   * How much parallel calls of the role say the same: Jaccard index of the sets of token n-grams of two slots,
   * mean over pairs of slots of one episode and turn, mean over those. Null without parallel calls.
   */
  slot_overlap: number | null;
}

/** The calls of one episode that the role made. */
export type EpisodeCalls = readonly Pick<RoleCall, 'slot' | 'turn' | 'text' | 'completion'>[];

const TERSE_WORDS = 10;
const GRAM = 3;

const CODE = /```|^[ \t]*(?:def|class) +\w+.*:\s*(?:$|\S)|^[ \t]*(?:import|from) +\w+/m;

/** `isFormed`: whether a response has its form; undefined where the role has none. */
export function signatures(
  episodes: readonly EpisodeCalls[],
  isFormed: ((text: string) => boolean) | undefined,
): Signatures {
  const calls = episodes.flat();
  const share = (holds: (call: EpisodeCalls[number]) => boolean) => {
    return calls.length === 0 ? null : calls.filter(holds).length / calls.length;
  };
  return {
    format_share: isFormed === undefined ? null : share(({ text }) => isFormed(text)),
    boxed_share: share(({ text }) => /\\boxed\b/.test(text)),
    code_share: share(({ text }) => CODE.test(text)),
    terse_share: share(({ text }) => wordCount(text) <= TERSE_WORDS),
    truncated_share: share(({ completion }) => completion.finish === 'length'),
    length_mean: mean(calls.map(({ completion }) => completion.ids.length)),
    slot_overlap: mean(episodes.flatMap(overlaps)),
  };
}

function wordCount(text: string): number {
  return text.match(/\S+/g)?.length ?? 0;
}

/** One value for each turn of the episode in which several slots answered. */
function overlaps(calls: EpisodeCalls): number[] {
  const turns = new Map<number, Set<string>[]>();
  for (const { turn, completion } of calls) {
    turns.set(turn, [...(turns.get(turn) ?? []), ngrams(completion.ids)]);
  }
  return [...turns.values()].flatMap((slots) => {
    const pairs = slots.flatMap((one, i) => slots.slice(i + 1).map((other) => jaccard(one, other)));
    const value = mean(pairs);
    return value === null ? [] : [value];
  });
}

/** Runs of three tokens; a response that is shorter is one run. */
export function ngrams(ids: Int32Array): Set<string> {
  if (ids.length <= GRAM) return new Set(ids.length === 0 ? [] : [ids.join(' ')]);
  return new Set(
    Array.from({ length: ids.length - GRAM + 1 }, (_, at) => ids.slice(at, at + GRAM).join(' ')),
  );
}

/** |a ∩ b| / |a ∪ b|; 1 for two empty sets, which say the same. */
function jaccard(a: ReadonlySet<string>, b: ReadonlySet<string>): number {
  const common = [...a].filter((gram) => b.has(gram)).length;
  const all = a.size + b.size - common;
  return all === 0 ? 1 : common / all;
}
