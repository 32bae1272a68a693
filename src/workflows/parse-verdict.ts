/**
 * Reads whether an evaluator accepts a draft: what its box says, else what follows its last "verdict", else all
 * that it says is right or wrong. Where that is both, the reading is none: what happens then is the workflow's
 * to say.
 */
import { ending, lastBoxes, plainText, sentences, withoutQuotes } from '../tasks/model-text.js';
import { agreed, isQuestion, type Judgement, judgements } from './judgements.js';

/** "Verdict:", "the verdict is", "## Verdict", and headings that mean it. */
const MARK =
  /\b(?:verdict|(?<=^|\n)[ \t]*(?:\d+\.\s*)?(?:final |overall )?(?:conclusion|judge?ment|decision|assessment|evaluation|final answer|answer|status|result))\b["']?[ \t]*(?:is\b|[:=\u2013\u2014\u2192-]|(?=\n)(?:\n[-=]{3,}(?=\n))?)[ \t:]*/gi;

/** Sentences that sum up what those before them weighed. */
const SUMMARY =
  /^\W*(?:so|thus|therefore|hence|overall|in conclusion|in summary|finally|consequently|as a result|in short)\b/i;
const TURN = /\b(?:but|however|wait|actually|on second thought|hmm)\b/i;

/** Whether the text accepts a draft; undefined: it says neither, or both. */
export function parseVerdict(text: string): boolean | undefined {
  const plain = ending(plainText(text));
  const boxed = agreed(lastBoxes(plain).flatMap(judgements));
  const marked = [...withoutQuotes(plain).matchAll(MARK)].at(-1);
  if (marked === undefined) return boxed ?? readingOf(sentences(plain));
  const reading = readingAfter(plain.slice(marked.index + marked[0].length));
  return boxed !== undefined && reading !== undefined && boxed !== reading ? undefined : (reading ?? boxed);
}

/** Of what stands behind a mark: the first sentence decides, unless one that takes it back follows. */
function readingAfter(rest: string): boolean | undefined {
  const [first = '', ...others] = sentences(rest.replace(/^\s*(?:\d+[.)]|[-*•])\s+/, ''));
  const reading = agreed(judgements(first));
  const turn = others.findIndex((sentence) => TURN.test(sentence));
  if (turn < 0 || reading === undefined) return reading;
  const later = others.slice(turn).flatMap(judgements);
  return later.some(({ right }) => right !== reading) ? undefined : reading;
}

function readingOf(said: readonly string[]): boolean | undefined {
  const found = said.map((sentence, i) => answerTo(said[i - 1], sentence) ?? judgements(sentence));
  const all: Judgement[] = found.flat();
  const reading = agreed(all);
  if (reading !== undefined || all.length === 0) return reading;
  // What was weighed one way and the other counts where a last sentence sums it up.
  const last = said.findLastIndex((_, i) => (found[i]?.length ?? 0) > 0);
  return SUMMARY.test(said[last] ?? '') ? agreed(found[last] ?? []) : undefined;
}

/** "Is it right? No." and "Is there an error? No." say opposite things. */
function answerTo(question: string | undefined, sentence: string): Judgement[] | undefined {
  const [, word] = /^\W*(yes|no)\b/i.exec(sentence) ?? [];
  if (question === undefined || !isQuestion(question) || word === undefined) return undefined;
  const asked = agreed(judgements(question.replace(/\?\W*$/, '')));
  return asked === undefined ? [] : [{ at: 0, right: word.toLowerCase() === 'yes' ? asked : !asked }];
}
