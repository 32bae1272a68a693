/**
 * Finds in a sentence what is called right and what is called wrong: words with their negations ("not quite
 * right", "no errors were found"), without those that only qualify ("the correct answer is 42"). Evaluators'
 * verdicts and aggregators' picks are read with it.
 */

import { withoutQuotes } from '../tasks/model-text.js';

export interface Judgement {
  /** Where it stands in the sentence. */
  at: number;
  right: boolean;
}

const RIGHT =
  'correct|right|accurate|valid|sound|true|fine|flawless|error-free|acceptable|accept(?:ed|s)?|approve[ds]?|pass(?:es|ed)?|yes|checks out|looks good|is good|holds up';
const WRONG =
  'incorrect(?:ly)?|wrong(?:ly)?|inaccurate|invalid|unsound|untrue|false|flawed|faulty|mistaken(?:ly)?|erroneous(?:ly)?|reject(?:ed|s)?|revise[ds]?|fail(?:s|ed)?|unacceptable|needs? (?:a |to be )?(?:revision|revised|correction|corrected|fixed|reworked)';
/** What there is none of in a right draft. */
const FAULTS =
  'errors?|mistakes?|flaws?|faults?|issues?|problems?|bugs?|inaccurac(?:y|ies)|discrepanc(?:y|ies)';

const JUDGEMENT = new RegExp(
  `(?<right>\\b(?:${RIGHT})\\b|[✅✓✔👍])|(?<wrong>\\b(?:${WRONG})\\b|[❌✗✘👎])|(?<fault>\\b(?:${FAULTS})\\b)|(?<no>\\bno\\b(?=\\W*$|\\s*[,.;:!–—-]))`,
  'giu',
);

/** A negation reaches over this many words to the word that it denies. */
const NEGATION =
  /(?:\b(?:not|never|neither|nor|cannot|hardly|far from|no longer|fail(?:s|ed)? to|unable to)\b|n't\b)(?:\W+\w+){0,4}?\W*$|\bnot (?:the case|true) that\b/i;
const NONE =
  /\b(?:no|not any|without|zero|free of|free from|0|not (?:find|see|spot|contain|have|detect)(?: any)?|n't (?:find|see|spot|contain|have|detect)(?: any)?|neither|nor)\b(?:\W+(?!but\b)\w+){0,3}?\W*$/i;

/** "the correct answer", which says nothing of a draft, unless the draft is said to give it. */
const QUALIFIES =
  /^\s+(?:final\s+|numerical\s+)?(?:answers?|results?|solutions?|values?|sums?|products?|numbers?|ways?|approach(?:es)?|methods?|ideas?|steps?|formulas?|equations?|expressions?|totals?|outputs?|verdicts?|conclusions?|one|side|hand|operations?|order|candidates?|options?)\b/i;
const REACHES =
  /\b(?:gives?|giving|reach(?:es|ed|ing)?|arriv(?:es|ed|ing) at|obtain(?:s|ed|ing)?|gets?|got|yields?|produces?|matches|equals|finds?|found|provides?|leads? to|leading to|comes? to|returns?|has|have|is|are)\s+(?:\w+\s+)?(?:the|a|an)\s*$/i;

/** What is asked, supposed or wished says nothing. */
const SUPPOSED =
  /\b(?:if|whether|unless|suppos\w+|assum\w+|would|should|could|might|may|maybe|perhaps|possibly|probably not sure|unsure|let's|let me|need to|must|either|correct or|right or|yes or)\b/i;

/** `sentence`: plain text (tasks/model-text.ts). In the order of the words; none of questions and suppositions. */
export function judgements(sentence: string): Judgement[] {
  if (
    isQuestion(sentence) ||
    SUPPOSED.test(sentence.replace(/\bI(?:'d| would) (?=accept|approve|reject)/i, ''))
  )
    return [];
  const own = withoutQuotes(sentence);
  return [...own.matchAll(JUDGEMENT)].flatMap((match) => judgement(own, match));
}

export function isQuestion(sentence: string): boolean {
  return /\?["')\]]*$/.test(sentence);
}

function judgement(sentence: string, match: RegExpMatchArray & { index: number }): Judgement[] {
  const { index: at, groups = {} } = match;
  const clause =
    sentence
      .slice(0, at)
      .split(/[,;:]|\b(?:but|so|and|because|since|while)\b/)
      .at(-1) ?? '';
  const denied = NEGATION.test(clause);
  if (groups.no !== undefined) return [{ at, right: false }];
  if (groups.fault !== undefined) return [{ at, right: NONE.test(clause) || denied }];
  if (groups.wrong !== undefined)
    return [{ at, right: denied || /\bnothing\b(?:\W+\w+){0,2}\W*$/i.test(clause) }];
  const after = sentence.slice(at + match[0].length);
  if (QUALIFIES.test(after) && !REACHES.test(clause)) return [];
  return [{ at, right: !denied }];
}

/** true or false where all judgements agree, undefined where there are none or both. */
export function agreed(found: readonly Judgement[]): boolean | undefined {
  const [first] = found;
  return found.every(({ right }) => right === first?.right) ? first?.right : undefined;
}
