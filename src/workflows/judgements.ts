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
/** What there is none of in a right draft. A problem is one where there is said to be one, else what is to be solved. */
const FAULTS =
  "(?:errors?|mistakes?|flaws?|faults?|issues?|bugs?|inaccurac(?:y|ies)|discrepanc(?:y|ies)|(?<=\\b(?:no|any|without|there(?:'s| is| are| was| were)|has|have|found|finds?|see|contains?)(?: an?| any| some| several)? )problems?|problems?(?= (?:with|in (?:the|step|line))\\b))";
/** "errors: none", "is_correct": false. */
const FIELD = `(?:\\b|_)(?:(?<rightField>${RIGHT})|(?:${WRONG}|${FAULTS}(?: found)?))["']?\\s*[:=]\\s*["']?(?:(?<yes>true|yes)|none|no|false|0|\\[\\])(?=["']?\\s*(?:[,.;}\\]]|$))`;

const JUDGEMENT = new RegExp(
  `${FIELD}|(?<right>\\b(?:${RIGHT})\\b|[✅✓✔👍])|(?<wrong>\\b(?:${WRONG})\\b|[❌✗✘👎])|(?<fault>\\b${FAULTS}\\b)|(?<no>\\bno\\b(?=\\W*$|\\s*[,.;:!–—-]))`,
  'giu',
);
/** "issues, mistakes or errors" are one fault. */
const FAULT_LIST = new RegExp(`\\b${FAULTS}(?:,? (?:or|and|nor) |, )(?=${FAULTS}\\b)`, 'gi');

/** A negation reaches over this many words to the word that it denies. */
const NEGATION =
  /(?:\b(?:not(?! (?:only|just|merely|simply)\b)|never|none|neither|nor|cannot|hardly|far from|no longer|fail(?:s|ed)? to|unable to)\b|n't\b)(?:\W+\w+){0,4}?\W*$|\bnot (?:the case|true) that\b/i;
const NONE =
  /\b(?:no|not any|without|zero|free of|free from|0|not (?:find|see|spot|contain|have|detect)(?: any)?|n't (?:find|see|spot|contain|have|detect)(?: any)?|neither|nor)\b(?:\W+(?!but\b)\w+){0,3}?\W*$/i;

/** "the correct answer", which says nothing of a draft, unless the draft is said to give it. */
const QUALIFIES =
  /^\s+(?:final\s+|numerical\s+)?(?:answers?|results?|solutions?|values?|sums?|products?|numbers?|ways?|approach(?:es)?|methods?|ideas?|steps?|formulas?|equations?|expressions?|totals?|outputs?|verdicts?|conclusions?|one|side|hand|operations?|order|candidates?|options?)\b/i;
/** The right hand, no right draft. */
const SIDE = /^[\s-]+(?:hand|side|now|away|to left|triangles?|angles?|columns?|digits?|place|most|half)\b/i;
const REACHES =
  /\b(?:gives?|giving|reach(?:es|ed|ing)?|arriv(?:es|ed|ing) at|obtain(?:s|ed|ing)?|gets?|got|yields?|produces?|matches|equals|finds?|found|provides?|leads? to|leading to|comes? to|returns?|has|have|is|are)\s+(?:\w+\s+)?(?:the|a|an)\s*$/i;

/** Right in part says neither right nor wrong. */
const PARTLY =
  /\b(?:almost|nearly|partly|partially|mostly|largely|half|close to|not (?:fully|entirely|completely))\W+(?:\w+\W+)?$/i;
const EXCEPT = /\b(?:except|apart from|aside from|other than|with the exception of)\b/i;

/** What is asked or supposed says nothing. */
const SUPPOSED =
  /\b(?:if|whether|unless|suppos\w+|assum\w+|might|may|maybe|perhaps|possibly|probably not sure|unsure|let's|let me|either|correct or|right or|yes or|(?:wrong|incorrect|false) (?:to|that)|only (?:if|when)|to be (?:correct|right|valid|accepted))\b/i;
/** What is wished says nothing of what is, within its clause. */
const WISHED = /\b(?:would|should|could|need to|must)\b/i;
const WISHED_OF_IT = /^\s+(?:would|should|could|must)\b/i;
const TURNED = /\b(?:but|yet|though|however)\b[^,;]*(?:\b(?:is|are|does) not|n't)\W*$/i;
/** "Right, so first we add". */
const DISCOURSE = /^\W*right, (?:so|let|first|now|we|then)\b/i;

/** `sentence`: plain text (tasks/model-text.ts). In the order of the words; none of questions and suppositions. */
export function judgements(sentence: string): Judgement[] {
  const own = withoutQuotes(sentence)
    .replace(/\bI(?:'d| would) (?=accept|approve|reject)/i, (said) => ' '.repeat(said.length))
    .replace(DISCOURSE, (said) => ' '.repeat(said.length))
    .replace(FAULT_LIST, (said) => ' '.repeat(said.length));
  if (isQuestion(sentence) || SUPPOSED.test(own)) return [];
  const found = [...own.matchAll(JUDGEMENT)].flatMap((match) => judgement(own, match));
  const last = found.at(-1);
  // "It looks wrong, but it isn't."
  return last !== undefined && TURNED.test(own) ? [...found, { at: own.length, right: !last.right }] : found;
}

export function isQuestion(sentence: string): boolean {
  return /\?["')\]]*$/.test(sentence);
}

const CLAUSES = /[,;:]|\b(?:but|so|and|because|since|while)\b/;

function judgement(sentence: string, match: RegExpMatchArray & { index: number }): Judgement[] {
  const { index: at, groups = {} } = match;
  const clause = sentence.slice(0, at).split(CLAUSES).at(-1) ?? '';
  const after = sentence.slice(at + match[0].length);
  if (WISHED.test(clause) || WISHED_OF_IT.test(after)) return [];
  if (/[:=]/.test(match[0]))
    return [{ at, right: (groups.rightField !== undefined) === (groups.yes !== undefined) }];
  const denied = NEGATION.test(clause);
  if (groups.no !== undefined) return [{ at, right: false }];
  if (groups.fault !== undefined) return [{ at, right: NONE.test(clause) || denied }];
  if (groups.wrong !== undefined)
    return [{ at, right: denied || /\bnothing\b(?:\W+\w+){0,2}\W*$/i.test(clause) }];
  const isRight = /^right$/i.test(match[0]);
  if (isRight && (SIDE.test(after) || /\b(?:to|on|at|from)(?: the)? $/i.test(clause))) return [];
  if (QUALIFIES.test(after) && !REACHES.test(clause)) return [];
  if (!denied && (PARTLY.test(clause) || EXCEPT.test(after))) return [];
  return [{ at, right: !denied }];
}

/** true or false where all judgements agree, undefined where there are none or both. */
export function agreed(found: readonly Judgement[]): boolean | undefined {
  const [first] = found;
  return found.every(({ right }) => right === first?.right) ? first?.right : undefined;
}
