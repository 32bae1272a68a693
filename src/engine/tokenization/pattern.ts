/**
 * Regular expressions and strings of tokenizer.json, and how a text is split at their matches. The expressions are
 * Oniguruma's (a translation to JavaScript is a library's work); one that nobody published may take time without end
 * on some text, so it runs against the clock.
 */
import { createContext, Script } from 'node:vm';
import { toRegExp } from 'oniguruma-to-es';
import type { Behavior, PatternJson } from './schema.js';

/** A stretch of a text, from `start` up to `end`, that the pattern matched or did not. */
export interface Stretch {
  start: number;
  end: number;
  match: boolean;
}

export const GPT2 = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;
const CONTRACTIONS = `(?i:'s|'t|'re|'ve|'m|'ll|'d)`;
const REST = String.raw` ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
const WORD = String.raw`[^\r\n\p{L}\p{N}]?\p{L}+`;

/** Qwen2 and Qwen3, Llama 3, GPT-4: linear in the length of the text. */
const QWEN2 = String.raw`${CONTRACTIONS}|${WORD}|\p{N}|${REST}`;
const LLAMA3 = String.raw`${CONTRACTIONS}|${WORD}|\p{N}{1,3}|${REST}`;
const LINEAR = new Set([GPT2, QWEN2, LLAMA3]);

/** Milliseconds that encoding one text may take where an expression is unknown. */
const LIMIT = 2000;

export class Pattern {
  readonly #regex: RegExp;
  /** It may take time without end. */
  readonly unbounded: boolean;

  constructor(json: PatternJson) {
    if ('String' in json) {
      this.#regex = new RegExp(json.String.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&'), 'gu');
      this.unbounded = false;
    } else {
      this.#regex = translated(json.Regex);
      this.unbounded = !LINEAR.has(json.Regex);
    }
  }

  /** Stretches that cover the text. */
  stretches(text: string): Stretch[] {
    const found: Stretch[] = [];
    let last = 0;
    let afterMatch = -1;
    for (const { index, 0: match } of text.matchAll(this.#regex)) {
      const end = index + match.length;
      // As in Oniguruma, a match of nothing does not follow a match at once.
      if (match === '' && index === afterMatch) continue;
      if (last < index) found.push({ start: last, end: index, match: false });
      found.push({ start: index, end, match: true });
      last = end;
      afterMatch = end;
    }
    if (last < text.length || text === '') found.push({ start: last, end: text.length, match: false });
    return found;
  }

  replace(text: string, content: string): string {
    return this.stretches(text)
      .map(({ start, end, match }) => (match ? content : text.slice(start, end)))
      .join('');
  }
}

/** \w outside of a class: ² is one and ⁴ is none. */
const WORD_ALONE = String.raw`\p{word}²³¹¼½¾`;
const SPELLED: Record<string, [outside: string, inClass: string]> = {
  w: [`[${WORD_ALONE}]`, String.raw`\p{word}`],
  W: [`[^${WORD_ALONE}]`, String.raw`\p{^word}`],
  b: [`(?:(?<=[${WORD_ALONE}])(?![${WORD_ALONE}])|(?<![${WORD_ALONE}])(?=[${WORD_ALONE}]))`, String.raw`\b`],
  B: [`(?:(?<=[${WORD_ALONE}])(?=[${WORD_ALONE}])|(?<![${WORD_ALONE}])(?![${WORD_ALONE}]))`, String.raw`\B`],
};

/** The translation takes every \p{N} for a letter of words; Oniguruma takes others in a class than outside of one. */
function translated(expression: string): RegExp {
  let depth = 0;
  const spelled = expression.replace(/\\.|[[\]]/gsu, (part) => {
    if (part === '[') depth++;
    else if (part === ']') depth = Math.max(0, depth - 1);
    return SPELLED[part.slice(1)]?.[depth === 0 ? 0 : 1] ?? part;
  });
  // Strict: what cannot be translated exactly is refused.
  return toRegExp(spelled, { global: true, accuracy: 'strict' });
}

/** Every character that the class holds is a match of its own. `characters` has the flags g and u. */
export function characterStretches(text: string, characters: RegExp): Stretch[] {
  const found: Stretch[] = [];
  let last = 0;
  for (const { index, 0: match } of text.matchAll(characters)) {
    if (last < index) found.push({ start: last, end: index, match: false });
    last = index + match.length;
    found.push({ start: index, end: last, match: true });
  }
  if (last < text.length) found.push({ start: last, end: text.length, match: false });
  return found;
}

export const inverted = (stretches: readonly Stretch[]): Stretch[] =>
  stretches.map((stretch) => ({ ...stretch, match: !stretch.match }));

/** What a split makes of the stretches: NormalizedString::split of tokenizers. */
export function split(stretches: readonly Stretch[], behavior: Behavior): Stretch[] {
  switch (behavior) {
    case 'Isolated':
      return [...stretches];
    case 'Removed':
      return stretches.filter(({ match }) => !match);
    case 'Contiguous':
      return merged(stretches, (match, before) => match === before, false);
    case 'MergedWithPrevious':
      return merged(stretches, (match, before) => match && !before, false);
    case 'MergedWithNext':
      return merged([...stretches].reverse(), (match, before) => match && !before, true).reverse();
  }
}

/** Joins a stretch to the one before it where `joins`. */
function merged(
  stretches: readonly Stretch[],
  joins: (match: boolean, before: boolean) => boolean,
  reversed: boolean,
): Stretch[] {
  const found: Stretch[] = [];
  let before = false;
  for (const stretch of stretches) {
    const last = found.at(-1);
    if (last === undefined || !joins(stretch.match, before)) found.push({ ...stretch });
    else if (reversed) last.start = stretch.start;
    else last.end = stretch.end;
    before = stretch.match;
  }
  return found;
}

const context = createContext({ work: () => undefined });
const script = new Script('work()');

/** Runs `work`, which has expressions that may not end. Throws after two seconds. */
export function againstTheClock<T>(work: () => T): T {
  context.work = work;
  try {
    return script.runInContext(context, { timeout: LIMIT }) as T;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw cause;
    throw new Error(`its regular expressions take more than ${LIMIT / 1000} seconds on one text`, { cause });
  } finally {
    context.work = undefined;
  }
}
