/**
 * Mathematical answers as tokens: TeX, Unicode and plain text in one spelling. What only changes the look of an
 * answer (fonts, colours, sizes, spaces, dollar signs) is gone afterwards; words and units are tokens of their own.
 */
import { COMMANDS, FUNCTIONS, isWord, LETTERS, SIGNS } from './vocabulary.js';

export interface Token {
  /** `unit` is a currency sign; `command` a function or construction, e.g. frac, sqrt, sin, begin. */
  kind: 'number' | 'letter' | 'word' | 'unit' | 'command' | 'sign';
  text: string;
  /** Space stands before it: "1 2" is not "12". */
  spaced: boolean;
  /** A letter of \text or \mathrm: behind a number it is a unit. */
  roman?: boolean;
}

/** More tokens than any answer has. */
const MOST_TOKENS = 600;

const SUPERSCRIPTS = '⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ';
const SUPERSCRIPT_TEXT = '0123456789+-n';
const FRACTIONS: Record<string, string> = {
  '½': '1/2',
  '⅓': '1/3',
  '⅔': '2/3',
  '¼': '1/4',
  '¾': '3/4',
  '⅕': '1/5',
  '⅖': '2/5',
  '⅗': '3/5',
  '⅘': '4/5',
  '⅙': '1/6',
  '⅚': '5/6',
  '⅛': '1/8',
  '⅜': '3/8',
  '⅝': '5/8',
  '⅞': '7/8',
};

const SUBSCRIPTS = '₀₁₂₃₄₅₆₇₈₉';
/** Signs that the normal form of Unicode takes for letters. */
const AS_TEX: Record<string, string> = {
  ℝ: '\\mathbb{R}',
  ℤ: '\\mathbb{Z}',
  ℕ: '\\mathbb{N}',
  ℚ: '\\mathbb{Q}',
  ℂ: '\\mathbb{C}',
  '∠': '\\angle ',
  '∡': '\\angle ',
  '△': '\\triangle ',
  '∛': '\\sqrt[3]',
  '∜': '\\sqrt[4]',
  º: '°',
  '˚': '°',
};

/** Unicode in the letters of TeX: superscripts, fractions, full-width forms, digits of other scripts, dashes. */
function plainUnicode(text: string): string {
  return (
    text
      // Narrow spaces, which group digits.
      .replace(/[\u2009\u202f]|\\thinspace(?![a-zA-Z])\s*/gu, '\\,')
      .replace(/[ℝℤℕℚℂ∠∡△∛∜º˚]/gu, (sign) => AS_TEX[sign] ?? sign)
      .replace(/[₀₁₂₃₄₅₆₇₈₉]+/gu, (run) => `_{${[...run].map((sign) => SUBSCRIPTS.indexOf(sign)).join('')}}`)
      .replace(
        /[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+/gu,
        (run) => `^{${[...run].map((sign) => SUPERSCRIPT_TEXT[SUPERSCRIPTS.indexOf(sign)]).join('')}}`,
      )
      .replace(/[½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞]/gu, (sign) => {
        const [over, under] = (FRACTIONS[sign] ?? '').split('/');
        return `\\frac{${over}}{${under}}`;
      })
      .normalize('NFKC')
      .replace(/\p{Nd}/gu, (digit) => String(digitValue(digit)))
      .replace(/[‐‑‒–—−﹣]/gu, '-')
      .replace(/\u2044/gu, '/')
      .replace(/[\u200b-\u200f\u2060-\u2064\ufeff]/gu, '')
  );
}

/** Digits of every script lie in runs of ten from zero on. */
function digitValue(digit: string): number {
  const code = digit.codePointAt(0) ?? 0;
  if (code < 128) return code - 48;
  let zero = code;
  while (code - zero < 9 && /\p{Nd}/u.test(String.fromCodePoint(zero - 1))) zero--;
  return (code - zero) % 10;
}

/** The whole of an answer: but for some, or between some, they are others. */
const ALL_REALS =
  /^\s*(?:\\(?:text|textrm|mathrm|mbox)\s*\{)?\s*(?:the set of )?all (?:real numbers|reals)\s*\}?\.?\s*$/i;

/** The tokens of an answer, or undefined where it is longer than any answer. Linear in its length. */
export function tokensOf(answer: string): Token[] | undefined {
  const plain = plainUnicode(answer.replace(/^\s*\*\*(.*)\*\*\s*$/s, '$1'));
  const reader = new Reader(ALL_REALS.test(plain) ? '\\mathbb{R}' : plain);
  reader.read(false);
  return reader.tokens.length > MOST_TOKENS ? undefined : reader.tokens;
}

/** Behind the point, in groups of three or in one; 3.125\,10^3 is a product. */
const DECIMALS = String.raw`\.(?:\d{3}(?:\\,\d{3})*\\,\d{1,3}(?!\d|\\,\d|\s*\^)|\d+)`;
const NUMBER = new RegExp(
  [
    String.raw`[1-9]\d{0,2}(?:(?:,|\{,\}|,\\!|\\,)\d{3})+(?!\d|,\d|\{,\}\d|\\,\d)(?:${DECIMALS})?`,
    String.raw`\d+(?:\.\d+)?[eE][+-]?\d{1,3}(?![\w.])`,
    String.raw`\d+${DECIMALS}`,
    String.raw`\d+\.(?=\\(?:overline|bar|dot)(?![a-zA-Z]))`,
    String.raw`\d+`,
    DECIMALS,
  ].join('|'),
  'y',
);
/** Three dots behind decimals that repeat: 0.333…, 0.1666… */
const DOTS = /\.\.\.|…|\\[lc]?dots(?![a-zA-Z])/y;
/** The group behind these says nothing about the value. */
const WITHOUT_ARGUMENT = new Set(['color', 'phantom', 'hspace', 'vspace', 'label', 'tag', 'hphantom']);
const FIRST_ARGUMENT_IS_LOOK = new Set(['textcolor', 'colorbox']);
const TEXT = new Set(
  'text textbf textit textrm textsf texttt textnormal mbox hbox emph textsc mathrm operatorname'.split(' '),
);
const LOOK = new Set(
  `left right big Big bigg Bigg bigl bigr Bigl Bigr displaystyle textstyle scriptstyle limits nolimits quad qquad
   tiny scriptsize footnotesize small normalsize large Large LARGE huge Huge bfseries itshape rmfamily sffamily
   mathbf mathit mathcal mathsf mathtt mathnormal bm boldsymbol pmb bf it rm sf tt em underline boxed fbox middle
   mathopen mathclose mathstrut strut enspace medspace ensuremath`.split(/\s+/),
);
const CURRENCIES: Record<string, string> = {
  '€': 'euro',
  '£': 'pound',
  '¥': 'yen',
  '¢': 'cent',
  '₹': 'rupee',
};

class Reader {
  readonly tokens: Token[] = [];
  readonly #source: string;
  #at = 0;
  #spaced = false;
  /** Brackets that are open: (100,200) is a pair. */
  #open = 0;

  constructor(source: string) {
    this.#source = source;
  }

  /** Reads to the end or, with `inText`, to the brace that closes a \text group. */
  read(inText: boolean): void {
    let depth = 0;
    while (this.#at < this.#source.length && this.tokens.length <= MOST_TOKENS) {
      const letter = this.#source[this.#at] ?? '';
      if (inText && letter === '{') depth++;
      if (inText && letter === '}' && depth-- === 0) return;
      this.#next(letter, inText);
    }
  }

  #next(letter: string, inText: boolean): void {
    if (/\s/.test(letter)) this.#skip(1, true);
    else if (letter === '\\') this.#command(inText);
    else if (letter === '~') this.#skip(1, true);
    else if (letter === '$') this.#skip(1, this.#spaced);
    else if (/[\d.]/.test(letter) && this.#number()) return;
    else if (/\p{L}/u.test(letter)) this.#letters(inText);
    else this.#sign(letter);
  }

  #skip(length: number, spaced: boolean): void {
    this.#at += length;
    this.#spaced = spaced;
  }

  #push(kind: Token['kind'], text: string, length: number): void {
    this.tokens.push({ kind, text, spaced: this.#spaced });
    if (kind === 'sign' && /^(?:\(|\[|\\\{)$/.test(text)) this.#open++;
    if (kind === 'sign' && /^(?:\)|\]|\\\})$/.test(text)) this.#open--;
    this.#skip(length, false);
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    return pattern.exec(this.#source)?.[0];
  }

  #number(): boolean {
    const longest = this.#match(NUMBER);
    if (longest === undefined) return false;
    const isPair = this.#open > 0 && /\d,[1-9]/.test(longest);
    const length = isPair ? longest.search(/(?<=\d),/) : longest.length;
    const number = longest.slice(0, length).replace(/[,{}\\!]/g, '');
    const last = this.tokens.at(-1);
    // "a_12" and "log_2 8" have one subscript; TeX reads the first digit only where no brace groups them.
    this.#push('number', number, length);
    const dots = last?.text === '_' ? undefined : this.#match(DOTS);
    const repeats = /\.\d*?(\d+?)\1{2,}$/.exec(number) ?? /\.\d*?(\d{2,}?)\1$/.exec(number);
    if (dots !== undefined && repeats !== null) {
      this.#push('command', 'overline', dots.length);
      this.tokens.push(
        { kind: 'sign', text: '{', spaced: false },
        { kind: 'number', text: repeats[1] ?? '', spaced: false },
        { kind: 'sign', text: '}', spaced: false },
      );
    }
    return true;
  }

  #letters(inText: boolean): void {
    const run = this.#match(/[\p{L}\p{M}]+(?:['’][\p{L}]+)*/uy) ?? this.#source[this.#at] ?? '';
    if (this.#isArticle(run, inText)) {
      this.#push('word', 'a', 1);
      return;
    }
    const time = this.#match(/[aApP]\.? ?[mM]\.?(?!\p{L})/uy);
    if (time !== undefined && this.tokens.at(-1)?.kind === 'number') {
      this.#push('word', `${time[0]?.toLowerCase()}m`, time.length);
      return;
    }
    if (FUNCTIONS.has(run) && !(run === 'sec' && this.#match(/sec\s*(?!\s*[\w({\\^])/y) !== undefined)) {
      this.#push('command', run, run.length);
      return;
    }
    const named = LETTERS[run];
    if (named !== undefined && run.length > 1) {
      this.#push('letter', named, run.length);
      return;
    }
    if (inText ? [...run].length > 1 : isWord(run)) {
      this.#push('word', run.toLowerCase(), run.length);
      return;
    }
    for (const letter of run.normalize('NFC').match(/\p{L}\p{M}*/gu) ?? [run]) {
      this.#push('letter', LETTERS[letter] ?? letter, letter.length);
      const token = this.tokens.at(-1);
      if (inText && token !== undefined) token.roman = true;
    }
  }

  /** "a circle" in text, but not "a and b". */
  #isArticle(run: string, inText: boolean): boolean {
    return inText && run === 'a' && this.#match(/a (?!(?:and|or|is|are|be|to)\b)[a-z]{2}/y) !== undefined;
  }

  #sign(letter: string): void {
    const named = LETTERS[letter];
    if (named !== undefined) {
      this.#push('letter', named, letter.length);
      return;
    }
    const currency = CURRENCIES[letter];
    if (currency !== undefined) {
      this.#push('unit', currency, 1);
      return;
    }
    const [, alone] = this.#match(/\{[:=<>+*-]\}/y) ?? '';
    if (alone !== undefined) {
      this.#push('sign', SIGNS[alone] ?? alone, 3);
      return;
    }
    if (this.#match(/\.\.\./y) !== undefined) {
      this.#push('sign', '…', 3);
      return;
    }
    const two = this.#source.slice(this.#at, this.#at + 2);
    if (two === '**' || two === '!=' || two === '<=' || two === '>=' || two === '->') {
      this.#push('sign', SIGNS[two] ?? two, 2);
      return;
    }
    if (letter === '\u221a') {
      this.#push('command', 'sqrt', 1);
      return;
    }
    this.#push('sign', SIGNS[letter] ?? letter, letter.length);
  }

  #command(inText: boolean): void {
    const name = this.#match(/\\([a-zA-Z]+)/y)?.slice(1);
    if (name === undefined) {
      this.#escaped();
      return;
    }
    const length = name.length + 1;
    if (TEXT.has(name)) {
      this.#textGroup(name, length);
      return;
    }
    if (LOOK.has(name)) {
      this.#skip(length, true);
      // \\mathbf{v} is v.
      const letter = this.#match(/\s*\{\s*[a-zA-Z]\s*\}/y);
      if (letter !== undefined) this.#push('letter', letter.replace(/[{}\s]/g, ''), letter.length);
      return;
    }
    if (WITHOUT_ARGUMENT.has(name) || FIRST_ARGUMENT_IS_LOOK.has(name)) {
      this.#dropGroup(length);
      return;
    }
    const letter = LETTERS[name];
    if (letter !== undefined) {
      this.#push('letter', letter, length);
      return;
    }
    const denied = name === 'not' ? this.#match(/\\not\s*=/y) : undefined;
    if (denied !== undefined) {
      this.#push('sign', '≠', denied.length);
      return;
    }
    const sign = COMMANDS[name];
    if (sign !== undefined) {
      this.#push('sign', sign, length);
      return;
    }
    if (name === 'mathbb' || name === 'Bbb') {
      this.#blackboard(length);
      return;
    }
    if (inText && name.length === 1) {
      this.#push('letter', name, length);
      return;
    }
    this.#push('command', /^[dtc]frac$|^[sn](?:ice)?frac$/.test(name) ? 'frac' : name, length);
  }

  /** A backslash and a sign: \{ \} \$ \% \, \\ \| and the marks of inline formulas, \( \) \[ \]. */
  #escaped(): void {
    const next = this.#source[this.#at + 1] ?? '';
    if (next === '$') {
      this.#push('unit', 'dollar', 2);
      return;
    }
    if (next === '\\') {
      // With the space to the next row: \\[4pt]
      const rowEnd = this.#match(/\\\\\*?(?:\[\s*-?[\d.]+\s*[a-z]{2}\s*\])?/y) ?? '';
      this.#push('sign', '\\\\', Math.max(2, rowEnd.length));
      return;
    }
    if (next === '%' || next === '&' || next === '#' || next === '_') {
      this.#push('sign', next, 2);
      return;
    }
    if (next === '{' || next === '}') {
      this.#push('sign', `\\${next}`, 2);
      return;
    }
    if (next === '|') {
      this.#push('sign', '\u2016', 2);
      return;
    }
    this.#skip(next === '' ? 1 : 2, next !== '!' || this.#spaced);
  }

  #textGroup(name: string, length: number): void {
    this.#skip(length, this.#spaced);
    const space = this.#match(/\s*\*?\s*(?=\{)/y);
    if (space === undefined) return;
    this.#skip(space.length + 1, this.#spaced || name !== 'mathrm');
    const before = this.tokens.length;
    this.read(true);
    // The brace that closes the group, or the end of the text.
    this.#skip(1, this.tokens.length > before && this.#spaced);
  }

  #dropGroup(length: number): void {
    this.#skip(length, true);
    const group = this.#match(/\s*(?:\[[^\]]*\])?\s*\{[^{}]*\}/y);
    if (group !== undefined) this.#skip(group.length, true);
  }

  #blackboard(length: number): void {
    this.#skip(length, this.#spaced);
    const group = this.#match(/\s*(?:\{\s*[A-Za-z]\s*\}|[A-Za-z])/y) ?? '';
    this.#push('letter', `mathbb ${group.replace(/[{}\s]/g, '')}`, group.length);
  }
}
