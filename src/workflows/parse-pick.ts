/**
 * Reads which candidate an aggregator picks. What a text says is collected in classes, from the surest one down;
 * the first class that says anything decides, and where it names two candidates, or none that there is, the
 * reading is none: what happens then is the workflow's to say.
 */
import { ending, lastBoxes, plainText, sentences, withoutQuotes } from '../tasks/model-text.js';
import { isQuestion, judgements } from './judgements.js';

const NOUN = '(?:candidates?|options?|solutions?|responses?|choices?|programs?|proposals?|voters?)';
const SINGULAR = NOUN.replaceAll('s?', '');
const WORDS = ['one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten'];
const ORDINALS = [
  'first',
  'second',
  'third',
  'fourth',
  'fifth',
  'sixth',
  'seventh',
  'eighth',
  'ninth',
  'tenth',
];
/** A number as a candidate has it: not a part of 42, 2.5 or 2/3. */
const NUMBER = `(?:\\d{1,4}|${WORDS.join('|')})(?![\\w%]|[.,/]\\d)`;
const LABEL = `${NOUN}["']?[\\W_]{0,4}?(?:is|number|no\\.|num)?\\W{0,4}?#?(${NUMBER})`;
const ORDINAL = `(?:the|this|my)\\s+(${ORDINALS.join('|')}|\\d{1,2}(?:st|nd|rd|th))\\s+(?:${NOUN}|one|answer)\\b`;
/** What names a candidate: "candidate 2", "Option #2", "the second candidate", "best_candidate": 2. */
const MENTION = `(?:(?<![a-z])${LABEL}|\\b${ORDINAL})`;
/** The same, or the bare number. */
const NAMED = `(?:${MENTION}|(?:number\\s+|no\\.\\s*|#)?(${NUMBER}))`;

const PICKS = '(?:pick|choose|select|prefer|recommend|elect|go(?:ing)? with|vote (?:for|goes to)|settle on)';
const PICKED = '(?:picked|chose|chosen|selected|preferred|elected)';
const GOOD = '(?:best|better|correct|right|accurate|valid|winning|winner|strongest|most \\w+)';
const IS = `(?:\\s|\\bis\\b|\\bwould be\\b|\\bmust be\\b|\\btherefore\\b|\\bthus\\b|\\bclearly\\b|[:=>"'([{-])*`;

/** "I pick candidate 2", "best candidate: 2", "candidate 2 is the best": a choice in so many words. */
const CHOICES = [
  new RegExp(`\\b(?:${PICKS}|${PICKED})\\b${IS}(?:the\\s+)?${NAMED}`, 'gi'),
  new RegExp(
    `\\b(?:my|the|final|best)\\s+(?:pick|choice|selection|vote|decision|verdict)\\b${IS}${NAMED}`,
    'gi',
  ),
  new RegExp(
    `\\b(?:pick|choice|selection|vote|decision|verdict|winner|best|conclusion)["']?\\s*[:=]${IS}${NAMED}`,
    'gi',
  ),
  new RegExp(
    `\\b(?:${GOOD}|final|chosen|selected)\\s+${SINGULAR}\\b(?!${IS}(?:and|or)\\b)${IS}(?:number\\b${IS})?${NAMED}`,
    'gi',
  ),
  new RegExp(
    `\\b(?:correct|right|best|final|final answer|answer|winner|conclusion)["']?\\s*(?:is\\b|[:=])${IS}${MENTION}`,
    'gi',
  ),
  // The field of an object.
  new RegExp(
    `(?:"(?:\\w+_)?|\\b\\w{1,20}_)(?:${SINGULAR}|pick|choice|selection|winner|best)(?:_\\w+)?"?\\s*[:=]\\s*"?${NAMED}`,
    'gi',
  ),
  new RegExp(`${MENTION}\\s+wins\\b`, 'gi'),
  new RegExp(
    `${MENTION}\\s*(?:is|wins|has)\\s+(?:clearly\\s+|therefore\\s+|thus\\s+)?(?:the\\s+|my\\s+)?(?:only\\s+)?(?:best|better|winner|strongest|pick|choice|one (?:that|to|I)\\b|(?:one|${NOUN}) with (?:a|an|the) (?:correct|right|accurate)\\b|one\\s*[.!]?$)`,
    'gi',
  ),
  new RegExp(
    `(?:^|[,;]\\s*)(?:so|thus|therefore|hence|consequently|in conclusion|finally)\\b[\\s,:]*(?:it(?:'s| is)\\s+|the (?:answer|best) is\\s+)?${MENTION}\\s*[.!]?$`,
    'gi',
  ),
];

/** "The answer is 2": the asked number, or what the task asks for; it counts where nothing better is said. */
const ANSWERS = [new RegExp(`\\b(?:answer|result)["']?\\s*(?:is\\b|[:=])${IS}${NAMED}`, 'gi')];

/** A text, or its first or last line, that is little but a number: "2", "Candidate 2.", "2, because …". */
const ALONE = new RegExp(
  `^\\W*(?:(?:so|thus|therefore|hence|final answer|answer|pick|choice)\\b\\W*)?(?:the\\s+)?${NAMED}\\W*$`,
  'i',
);
const FIRST = new RegExp(
  `^\\W*(?:${NOUN}\\s+)?#?(${NUMBER})\\s*(?:[-\\u2013\\u2014:](?!\\s*\\d)|,?\\s*(?:because|since|as|for|which)\\b|\\s+(?:is|looks)\\s+(?:${GOOD}|the ${GOOD})\\b)`,
  'i',
);

const HAS_NOUN = new RegExp(`\\b${NOUN}\\b`, 'i');
const NEGATION =
  /\b(?:not|never|neither|nor|no|none|cannot|instead of|rather than|except|without|over)\b|n't\b/i;
const PASSED =
  /\b(?:at first|was going to|wanted to|would have|initially|originally|first thought|was about to|tempted|if|suppose|assum\w+|whether|could|might|may|had)\b/i;

/** "candidate 2 (not candidate 1) is the best" */
const ASIDE = /\s\((?:not|unlike|rather than|instead of)\b[^()\n]*\)/gi;

/** The candidate that a text picks, 1 to `candidates`; undefined where it names none, or two. */
export function parsePick(text: string, candidates: number): number | undefined {
  const plain = withoutQuotes(ending(plainText(text))).replace(ASIDE, '');
  const pick = named(plain);
  return pick !== undefined && pick >= 1 && pick <= candidates ? pick : undefined;

  function named(plain: string): number | undefined {
    const said = sentences(plain).filter((sentence) => !isQuestion(sentence));
    const choices = said.flatMap((sentence) => statements(sentence, CHOICES));
    const boxed = lastBoxes(plain).map(
      (content) => numberAlone(content) ?? (/\p{L}/u.test(content) ? named(content) : undefined),
    );
    const isPick = boxed.every((number) => number !== undefined && number <= candidates);
    // A box that names no candidate is a quoted answer where a choice is made in words, else the answer.
    if (boxed.length > 0 && (isPick || choices.length === 0)) return only([...boxed, ...choices]);
    const { right, wrong } = assessments(said);
    if (choices.length > 0) {
      const choice = only(choices);
      const denied = choice !== undefined && (right.size > 0 ? !right.has(choice) : wrong.has(choice));
      return denied ? undefined : choice;
    }
    if (right.size > 0) return only([...right]);
    const answers = said.flatMap((sentence) => statements(sentence, ANSWERS));
    // "The answer is 3. Candidate 1 says 3."
    const others = said.flatMap(mentionsOf).flatMap(({ number }) => (wrong.has(number) ? [] : number));
    return only(answers.length > 0 ? [...answers, ...others] : numbersAlone(plain));
  }
}

/** The one value of a list, however often; undefined for none or several. */
function only<T>(values: readonly T[]): T | undefined {
  const [first, ...others] = new Set(values);
  return others.length === 0 ? first : undefined;
}

/** Candidates that a sentence chooses, without those that it denies, asks for or has left behind. */
function statements(sentence: string, patterns: readonly RegExp[]): number[] {
  return patterns.flatMap((pattern) =>
    [...sentence.matchAll(pattern)].flatMap((match) => {
      const before = clauseBefore(sentence, match.index);
      if (NEGATION.test(before) || PASSED.test(before) || NEGATION.test(match[0])) return [];
      const after = sentence.slice(match.index + match[0].length);
      // "Choose 1 of the 3 candidates" is an order.
      if (/^\s*of\b/i.test(after) && !HAS_NOUN.test(match[0])) return [];
      // "candidate 1 or 2" chooses neither; "candidates 1 and 2" both, which is none.
      const more =
        /^\s*(?:,|and|or|&|\/)\s*(?:(?:maybe|perhaps|possibly|also|even)\s+)?(?:(?:the\s+)?candidates?\s+)?#?(\d{1,4})(?!\w)/i.exec(
          after,
        );
      return [numberOf(match), ...(more === null ? [] : [Number(more[1])])];
    }),
  );
}

/** What stands before a place in its clause. */
function clauseBefore(sentence: string, at: number): string {
  if (/[,;]/.test(sentence[at] ?? '')) return '';
  return (
    sentence
      .slice(Math.max(0, at - 40), at)
      .split(/[,;]/)
      .at(-1) ?? ''
  );
}

function numberOf(match: RegExpMatchArray): number {
  return numberNamed(match.slice(1).find((group) => group !== undefined) ?? '');
}

function numberNamed(word: string): number {
  const lower = word.toLowerCase();
  const named = Math.max(WORDS.indexOf(lower), ORDINALS.indexOf(lower));
  return named >= 0 ? named + 1 : Number.parseInt(lower, 10);
}

/** The candidate of a box or a line that says nothing else: "2", "Candidate 2", "#2.". */
function numberAlone(content: string): number | undefined {
  const match = ALONE.exec(content);
  return match === null ? undefined : numberOf(match);
}

/** What the first and the last line say by themselves. */
function numbersAlone(plain: string): number[] {
  const lines = plain.split('\n').filter((line) => line.trim() !== '');
  const found = [lines.at(0), lines.at(-1)].flatMap((line) =>
    line === undefined ? [] : (numberAlone(line) ?? []),
  );
  if (found.length > 0) return found;
  const first = FIRST.exec(lines[0] ?? '');
  return first === null ? [] : [numberOf(first)];
}

const HEADING = new RegExp(`^\\W*(?:\\d+[.)]\\s*)?${MENTION}\\s*(?::|$)`, 'i');
const LIST_GLUE = /^\s*(?:(?:,|and|or|&|both|as well as)\s*)*$/i;

interface Assessments {
  /** Candidates that are called right, and nowhere wrong. */
  right: Set<number>;
  wrong: Set<number>;
  /** What was said last, which "and so is candidate 3" repeats. */
  last?: boolean | undefined;
}

/** "and so is candidate 3", "as does candidate 3", "candidate 3 is too". */
const ALSO = new RegExp(
  `\\b(?:so|as|neither|nor)\\s+(?:is|are|does|do|was)\\s+(?:also\\s+)?${MENTION}|${MENTION}\\s+(?:is|does|was)(?:\\s+not|n't)?\\s+(?:too|as well|either)\\b`,
  'gi',
);

/** Before a judgement: it is of a number, no candidate. */
const OF_A_NUMBER = /(?:[,;]|\b(?:so|thus|hence|therefore|and|but))\s+\d(?:[\d.,]*\d)?\s+(?:is|are|was)\b/i;

/** What is said of the candidates one by one. A line "Candidate 2:" speaks of it until the next one is named. */
function assessments(said: readonly string[]): Assessments {
  const found: Assessments = { right: new Set(), wrong: new Set() };
  let heading: number[] = [];
  for (const sentence of said) {
    const named = HEADING.exec(sentence);
    if (named !== null) heading = [numberOf(named)];
    assess(sentence, heading, found);
  }
  for (const number of found.wrong) found.right.delete(number);
  return found;
}

/** Each judgement is of the candidates named last before it in the sentence, else of those of the heading. */
function assess(sentence: string, heading: readonly number[], found: Assessments): void {
  const mentions = mentionsOf(sentence);
  const said = judgements(sentence);
  found.last = said.at(-1)?.right ?? found.last;
  for (const also of sentence.matchAll(ALSO)) {
    const right = /^(?:neither|nor)\b/i.test(also[0]) ? false : found.last;
    if (right !== undefined) (right ? found.right : found.wrong).add(numberOf(also));
  }
  for (const { at, right } of said) {
    const before = mentions.filter((mention) => mention.end <= at);
    // "candidates 1 and 2 give 42, so 42 is right"
    if (OF_A_NUMBER.test(sentence.slice(before.at(-1)?.end ?? 0, at))) continue;
    const group = before.at(-1)?.group;
    const about =
      group === undefined ? heading : before.filter((one) => one.group === group).map(({ number }) => number);
    for (const number of about) (right ? found.right : found.wrong).add(number);
  }
}

interface Mention {
  number: number;
  end: number;
  /** Mentions of one list, "candidates 1 and 3", share a group. */
  group: number;
}

const MENTIONS = new RegExp(
  `${MENTION}|(?<=\\d\\s*(?:,|and|or|&)\\s*(?:and\\s+)?)#?(\\d{1,4})(?![\\w%]|[.,/]\\d)`,
  'gi',
);

function mentionsOf(sentence: string): Mention[] {
  const mentions: Mention[] = [];
  let end = 0;
  for (const match of sentence.matchAll(MENTIONS)) {
    const last = mentions.at(-1);
    const joined = last !== undefined && LIST_GLUE.test(sentence.slice(end, match.index));
    if (match[3] !== undefined && !joined) continue;
    end = match.index + match[0].length;
    mentions.push({
      number: numberOf(match),
      end,
      group: last === undefined ? 0 : joined ? last.group : last.group + 1,
    });
  }
  return mentions;
}
