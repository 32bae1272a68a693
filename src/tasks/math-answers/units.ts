/**
 * A quantity: an expression, a percent sign and a unit. Any noun behind a number is a unit ("18 eggs"), but words that
 * make another number of it are not: they multiply it ("5 million", "2 thirds") or leave it without a value here.
 */
import { integer, ONE } from './exact.js';
import { type Expression, product } from './expression.js';
import { parseExpression } from './grammar.js';
import type { Token } from './notation.js';
import { MULTIPLIERS, NOT_UNITS, NUMBER_WORDS, singular, UNIT_NAMES } from './vocabulary.js';

export interface Unit {
  percent: boolean;
  /** In one spelling, e.g. "cm^2", "mi/h", "egg"; "" for none. */
  name: string;
}

export interface Quantity {
  form: 'expression';
  value: Expression;
  unit: Unit;
  tokens: Token[];
}

/** undefined: these tokens are no expression with a unit. */
export function readQuantity(all: readonly Token[]): Quantity | undefined {
  const currency = all.find(({ kind }) => kind === 'unit')?.text;
  const tokens = currency === undefined ? all : all.filter(({ kind }) => kind !== 'unit');
  const [number, rest] = temperature(tokens) ?? atFirstWord(tokens);
  const said = number.length === 0 ? numberWord(rest) : undefined;
  const read = said === undefined ? withSign(number) : { value: said.value, percent: false, degrees: false };
  if (read === undefined) return undefined;
  const behind = multiplied(read.value, rest.slice(said?.length ?? 0));
  const percent = behind.rest.length === 1 && /^percent$/.test(behind.rest[0]?.text ?? '');
  const name = percent ? '' : unitName(behind.rest);
  if (name === undefined) return undefined;
  return {
    form: 'expression',
    value: behind.value,
    tokens: [...all],
    unit: {
      percent: percent || read.percent,
      name: read.degrees && /^[CFK]?$/.test(name) ? `degree ${name}`.trim() : name || currency || '',
    },
  };
}

/** 20 °C */
function temperature(tokens: readonly Token[]): [Token[], Token[]] | undefined {
  const text = tokens
    .slice(-3)
    .map(({ text }) => text)
    .join(' ');
  return /° (?:\} )?[CF]$/.test(text) ? [tokens.slice(0, -1), tokens.slice(-1)] : undefined;
}

/** Where the unit may begin: a word, or a fraction of words. */
function atFirstWord(tokens: readonly Token[]): [Token[], Token[]] {
  let at = tokens.findIndex(
    ({ kind, roman }, i) => (kind === 'word' || (roman && i > 0)) && !isScript(tokens, i),
  );
  if (at < 0) at = tokens.length;
  // \frac{\text{km}}{\text{h}} and {\text{cm}}
  while (at > 0 && at < tokens.length && /^(?:\{|frac|\()$/.test(tokens[at - 1]?.text ?? '')) at--;
  return [tokens.slice(0, at), tokens.slice(at)];
}

/** Above or below the line: 90^{\text{o}}, 2010_{\text{five}}. */
function isScript(tokens: readonly Token[], at: number): boolean {
  const before = tokens[at - 1]?.text === '{' ? at - 2 : at - 1;
  return tokens[before]?.text === '_' || (tokens[before]?.text === '^' && tokens[at]?.text === 'o');
}

/** "five", "twenty-five": the number, and how many tokens it is. */
function numberWord(words: readonly Token[]): { value: Expression; length: number } | undefined {
  const named = (at: number): bigint | undefined =>
    words[at]?.kind === 'word' ? NUMBER_WORDS[words[at]?.text ?? ''] : undefined;
  const [first, second] = [named(0), named(2)];
  if (first === undefined) return undefined;
  const joined = words[1]?.text === '-' && first >= 20n && second !== undefined && second < 10n;
  const value = joined ? first + (second ?? 0n) : first;
  return { value: { op: 'number', value: integer(value) }, length: joined ? 3 : 1 };
}

/** The expression before a percent sign, or with degree signs. */
function withSign(tokens: Token[]): { value: Expression; percent: boolean; degrees: boolean } | undefined {
  const percent = tokens.at(-1)?.text === '%';
  const signed = percent ? tokens.slice(0, -1) : tokens;
  const plain = isOfAngles(signed) ? signed : withoutDegrees(signed);
  const value = parseExpression(plain);
  return value && { value, percent, degrees: plain.length < signed.length };
}

/** Whether a function is applied: \\sin 30°. */
function isOfAngles(tokens: Token[]): boolean {
  return tokens.some(({ kind, text }) => kind === 'command' && /^(?:sin|cos|tan|cot|sec|csc)$/.test(text));
}

/** Without °, ^°, ^{°} and ^{o}. */
function withoutDegrees(tokens: Token[]): Token[] {
  const plain: Token[] = [];
  for (let i = 0; i < tokens.length; ) {
    const texts = tokens
      .slice(i, i + 4)
      .map(({ text }) => text)
      .join(' ');
    const [sign] = /^(?:°|\^ °|\^ \{ [°o] \}|\^ o$)/.exec(texts) ?? [];
    if (sign === undefined) plain.push(tokens[i] as Token);
    i += sign === undefined ? 1 : sign.split(' ').length;
  }
  return plain;
}

/** "5 million", "2 thirds", "3 dozen eggs". */
function multiplied(value: Expression, words: readonly Token[]): { value: Expression; rest: Token[] } {
  let result = value;
  let at = 0;
  for (; at < words.length; at++) {
    const word = words[at];
    const factor = word?.kind === 'word' ? MULTIPLIERS[singular(word.text)] : undefined;
    if (factor === undefined) break;
    // Folded into a number, so that "5 million" is as much a literal as 5000000.
    result =
      result.op === 'number'
        ? {
            op: 'number',
            value: { ...ONE, over: result.value.over * factor[0], under: result.value.under * factor[1] },
          }
        : product(result, factor[0], factor[1]);
  }
  return { value: result, rest: words.slice(at) };
}

/** The unit in one spelling; "" for none, undefined for words that are no unit. */
function unitName(tokens: readonly Token[]): string | undefined {
  const texts = tokens.filter(({ text }) => !/^[{}()*]$/.test(text));
  if (texts.length === 0) return '';
  if (texts.length > 8 || texts.some((token, i) => !isUnitPart(token) || isPartOf(texts, i)))
    return undefined;
  const words = texts.map(({ text }) => text);
  if (words[0] === 'frac')
    return words.length === 3 ? oneSpelling(`${spelled(words[1])}/${spelled(words[2])}`) : undefined;
  let power = '';
  const parts: string[] = [];
  for (const word of words) {
    if (/^(?:square|sq)$/.test(word)) power = '^2';
    else if (/^(?:cubic|cu)$/.test(word)) power = '^3';
    else if (word === 'per') parts.push('/');
    else if (word !== '.') {
      parts.push(/^[/^\d-]/.test(word) ? word : spelled(word) + power);
      if (/[a-z]/.test(word)) power = '';
    }
  }
  return oneSpelling(parts.join(' ').replace(/ ?([/^]) ?/g, '$1'));
}

function oneSpelling(name: string): string {
  return UNIT_NAMES[name] ?? name;
}

/** The "of" of "50 % of x". */
function isPartOf(tokens: Token[], at: number): boolean {
  return tokens[at]?.text === 'of' && tokens[at + 1]?.kind !== 'word';
}

function isUnitPart({ kind, text, spaced }: Token): boolean {
  if (kind === 'word')
    return !NOT_UNITS.has(text) && !NOT_UNITS.has(singular(text)) && !(singular(text) in MULTIPLIERS);
  if (kind === 'letter') return /^[a-zA-Z]$/.test(text);
  // cm2, but no "pounds 3 ounces".
  if (kind === 'number') return /^[23]$/.test(text) && !spaced;
  return ['/', '^', '-', '.', 'frac'].includes(text);
}

function spelled(word = ''): string {
  return UNIT_NAMES[word] ?? UNIT_NAMES[singular(word)] ?? singular(word);
}
