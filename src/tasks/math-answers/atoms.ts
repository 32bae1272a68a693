/** Numbers and names as they are written: mixed numbers, repeating decimals, other bases, subscripts, primes, vectors. */
import { type Cursor, NotAnExpression } from './cursor.js';
import { decimal, IMAGINARY } from './exact.js';
import type { Expression } from './expression.js';
import { NUMBER_WORDS } from './vocabulary.js';

/** A number, one with repeating decimals, or a mixed number. */
export function number(tokens: Cursor, text: string): Expression {
  const fraction = text.split('.')[1];
  if (fraction !== undefined && ['overline', 'bar', 'dot'].includes(tokens.peek()?.text ?? '')) {
    tokens.at++;
    return repeating(tokens, text, fraction.length);
  }
  if (tokens.is('_')) return inBase(tokens, text);
  const decimals = /[eE]/.test(text) ? undefined : fraction?.length;
  const value: Expression = {
    op: 'number',
    value: decimal(text),
    ...(decimals === undefined ? {} : { decimals }),
  };
  return fraction === undefined && /^\d+$/.test(text) ? mixed(tokens, value) : value;
}

/** 2010_5, 2010_{\text{five}}: a number in another base is itself alone. */
function inBase(tokens: Cursor, digits: string): Expression {
  const base = subscript(tokens).slice(1);
  return { op: 'symbol', name: `${digits} in base ${NUMBER_WORDS[base] ?? base}` };
}

/** 0.1\overline{6} = 0.1 + 6 / 90 */
function repeating(tokens: Cursor, text: string, decimals: number): Expression {
  const braced = tokens.take('{') !== undefined;
  const digits = tokens.peek();
  if (digits?.kind !== 'number' || !/^\d{1,40}$/.test(digits.text)) throw new NotAnExpression();
  tokens.at++;
  if (braced) tokens.expect('}');
  const start = decimal(text);
  const period = 10n ** BigInt(digits.text.length) - 1n;
  const under = 10n ** BigInt(decimals) * period;
  return {
    op: 'number',
    value: { over: (start.over * under) / start.under + BigInt(digits.text), imag: 0n, under },
  };
}

/** "1 2/3" and 1\frac{2}{3} are sums; the fraction is a proper one of whole numbers. */
function mixed(tokens: Cursor, whole: Expression): Expression {
  const found = fractionBehind(tokens);
  if (found === undefined || whole.op !== 'number') return whole;
  const [over, under, length] = found;
  if (under === 0n || over >= under) return whole;
  tokens.at += length;
  const value = { over: whole.value.over * under + over, imag: 0n, under };
  return { op: 'number', value };
}

/** Numerator, denominator and number of tokens of a fraction that follows a whole number. */
function fractionBehind(tokens: Cursor): [bigint, bigint, number] | undefined {
  const whole = (offset: number): bigint | undefined => {
    const token = tokens.peek(offset);
    return token?.kind === 'number' && /^\d{1,20}$/.test(token.text) ? BigInt(token.text) : undefined;
  };
  if (tokens.peek()?.spaced && tokens.is('/', 1)) {
    const [over, under] = [whole(0), whole(2)];
    return over === undefined || under === undefined ? undefined : [over, under, 3];
  }
  if (!tokens.is('frac')) return undefined;
  if (!tokens.is('{', 1)) {
    const [both, other] = [tokens.peek(1), tokens.peek(2)];
    if (/^\d$/.test(both?.text ?? '') && /^\d$/.test(other?.text ?? '')) {
      return [BigInt(both?.text ?? ''), BigInt(other?.text ?? ''), 3];
    }
    const digits = both?.kind === 'number' && /^\d\d$/.test(both.text) ? both.text : undefined;
    return digits === undefined ? undefined : [BigInt(digits[0] ?? ''), BigInt(digits[1] ?? ''), 2];
  }
  if (!tokens.is('}', 3) || !tokens.is('{', 4) || !tokens.is('}', 6)) return undefined;
  const [over, under] = [whole(2), whole(5)];
  return over === undefined || under === undefined ? undefined : [over, under, 7];
}

/** With its subscript and primes, which are part of the name. */
export function symbol(tokens: Cursor, name: string): Expression {
  const full = name + subscript(tokens) + primes(tokens);
  if (full === 'i') return { op: 'number', value: IMAGINARY };
  return { op: 'symbol', name: full };
}

function primes(tokens: Cursor): string {
  let primes = '';
  while (tokens.take("'") !== undefined) primes += "'";
  return primes;
}

function subscript(tokens: Cursor): string {
  if (tokens.take('_') === undefined) return '';
  if (tokens.take('{') === undefined) {
    const token = tokens.peek();
    tokens.at++;
    return `_${token?.text ?? ''}`;
  }
  let name = '_';
  for (let depth = 1; depth > 0; ) {
    const token = tokens.peek();
    if (token === undefined) throw new NotAnExpression();
    tokens.at++;
    depth += token.text === '{' ? 1 : token.text === '}' ? -1 : 0;
    if (depth > 0) name += token.text;
  }
  return name;
}

/** \vec{a}, \overline{AB}: a name of its own. */
export function decorated(tokens: Cursor, name: string): Expression {
  const braced = tokens.take('{') !== undefined;
  let letters = '';
  while (tokens.peek()?.kind === 'letter' && (braced || letters === '')) {
    letters += tokens.peek()?.text;
    tokens.at++;
  }
  if (braced) tokens.expect('}');
  if (letters === '') throw new NotAnExpression();
  return { op: 'symbol', name: `${name} ${letters}` };
}
