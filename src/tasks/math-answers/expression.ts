/**
 * Expressions: numbers, variables and operations on them, read from tokens by recursive descent. Whatever this grammar
 * does not know is not an expression; it is compared as text elsewhere.
 */
import { decimal, type Exact, IMAGINARY, integer, ONE } from './exact.js';
import type { Token } from './notation.js';
import { FUNCTIONS, NUMBER_WORDS } from './vocabulary.js';

export type Expression =
  | {
      op: 'number';
      value: Exact /** Digits behind the point, if it is written as a decimal. */;
      decimals?: number;
    }
  | { op: 'symbol'; name: string }
  | { op: Operation; of: Expression[] };

/** `power` base, exponent; `root` of, order; `log` of, base; `apply:sin` and the like. */
export type Operation =
  | 'add'
  | 'multiply'
  | 'divide'
  | 'negate'
  | 'power'
  | 'root'
  | 'factorial'
  | 'binomial'
  | 'absolute'
  | 'floor'
  | 'ceil'
  | 'log'
  | `apply:${string}`;

/** Operations inside one another. */
const DEEPEST = 60;

class NotAnExpression extends Error {}

/** undefined: these tokens are no expression. */
export function parseExpression(tokens: readonly Token[]): Expression | undefined {
  try {
    return new Parser([...tokens]).whole();
  } catch (error) {
    if (error instanceof NotAnExpression) return undefined;
    throw error;
  }
}

class Parser {
  readonly #tokens: Token[];
  #at = 0;
  #depth = 0;
  #inFunction = false;
  /** |…| that are open: the next bar closes one. */
  #bars = 0;

  constructor(tokens: Token[]) {
    this.#tokens = tokens;
  }

  whole(): Expression {
    const value = this.#sum();
    if (this.#at < this.#tokens.length) throw new NotAnExpression();
    return value;
  }

  #peek(offset = 0): Token | undefined {
    return this.#tokens[this.#at + offset];
  }

  #is(text: string, offset = 0): boolean {
    const token = this.#peek(offset);
    return token?.text === text && token.kind !== 'word';
  }

  #take(...texts: string[]): string | undefined {
    const found = texts.find((text) => this.#is(text));
    if (found !== undefined) this.#at++;
    return found;
  }

  #expect(text: string): void {
    if (this.#take(text) === undefined) throw new NotAnExpression();
  }

  #nested<T>(read: () => T): T {
    if (++this.#depth > DEEPEST) throw new NotAnExpression();
    const value = read();
    this.#depth--;
    return value;
  }

  #sum(): Expression {
    return this.#nested(() => {
      const terms = [this.#product()];
      for (;;) {
        const sign = this.#take('+', '-');
        if (sign === undefined)
          return terms.length === 1 ? (terms[0] as Expression) : { op: 'add', of: terms };
        const term = this.#product();
        terms.push(sign === '-' ? { op: 'negate', of: [term] } : term);
      }
    });
  }

  #product(): Expression {
    let value = this.#signed();
    for (;;) {
      // {1 \over 2}: everything before against everything behind, in one group.
      const sign = this.#take('*', '/', 'over');
      if (sign === 'over') return { op: 'divide', of: [value, this.#sum()] };
      if (this.#take('choose') !== undefined) return { op: 'binomial', of: [value, this.#sum()] };
      if (this.#crossesOut()) {
        this.#at++;
        value = { op: 'multiply', of: [value, this.#signed()] };
        continue;
      }
      if (sign !== undefined) {
        const factor = this.#signed();
        value = { op: sign === '*' ? 'multiply' : 'divide', of: [value, factor] };
      } else if (this.#beginsFactor() || this.#followsFactorial())
        value = { op: 'multiply', of: [value, this.#power()] };
      else return value;
    }
  }

  /** Implicit multiplication: anything that begins a factor but a number, which would be two numbers in a row. */
  #beginsFactor(): boolean {
    const token = this.#peek();
    if (token === undefined) return false;
    if (token.kind === 'letter') return true;
    if (token.kind === 'command')
      return (
        /^(?:frac|sqrt|[dt]?binom|lfloor|lceil|vec|hat|bar|overline)$/.test(token.text) ||
        FUNCTIONS.has(token.text)
      );
    if (token.kind !== 'sign') return false;
    return /^[({[]$/.test(token.text) || (token.text === '|' && this.#bars === 0);
  }

  /** The x of "1.5 x 10^3". */
  #crossesOut(): boolean {
    const [before, x, behind] = [this.#tokens[this.#at - 1], this.#peek(), this.#peek(1)];
    return (
      x?.kind === 'letter' &&
      x.text === 'x' &&
      x.spaced &&
      before?.kind === 'number' &&
      behind?.kind === 'number' &&
      behind.spaced
    );
  }

  /** 3!7! */
  #followsFactorial(): boolean {
    return this.#tokens[this.#at - 1]?.text === '!' && this.#peek()?.kind === 'number';
  }

  #signed(): Expression {
    let negative = false;
    for (;;) {
      const sign = this.#take('-', '+');
      if (sign === undefined) break;
      if (sign === '-') negative = !negative;
    }
    const value = this.#power();
    return negative ? { op: 'negate', of: [value] } : value;
  }

  #power(): Expression {
    const base = this.#suffixed();
    return this.#raised(base);
  }

  #raised(base: Expression): Expression {
    if (!this.#is('^')) return base;
    return this.#nested(() => {
      this.#at++;
      const exponent = this.#is('-') || this.#is('+') ? this.#signed() : this.#power();
      return { op: 'power', of: [base, exponent] };
    });
  }

  #suffixed(): Expression {
    const value = this.#inDegrees(this.#atom());
    if (this.#take('!') === undefined) return value;
    if (this.#is('!')) throw new NotAnExpression();
    return { op: 'factorial', of: [value] };
  }

  /** Inside of a function a degree is π/180. */
  #inDegrees(value: Expression): Expression {
    const length = this.#is('°') ? 1 : this.#is('^') && this.#is('°', 1) ? 2 : this.#bracedDegree() ? 4 : 0;
    if (length === 0 || !this.#inFunction) return value;
    this.#at += length;
    const turned: Expression = { op: 'multiply', of: [value, { op: 'symbol', name: 'pi' }] };
    return { op: 'divide', of: [turned, { op: 'number', value: integer(180n) }] };
  }

  #bracedDegree(): boolean {
    return this.#is('^') && this.#is('{', 1) && this.#is('°', 2) && this.#is('}', 3);
  }

  #atom(): Expression {
    const token = this.#peek();
    if (token === undefined) throw new NotAnExpression();
    this.#at++;
    if (token.kind === 'number') return this.#number(token.text);
    if (token.kind === 'letter') return this.#symbol(token.text);
    if (token.kind === 'command') return this.#command(token.text);
    if (token.kind !== 'sign') throw new NotAnExpression();
    if (token.text === '(') return this.#closed(')');
    if (token.text === '[') return this.#closed(']');
    if (token.text === '{') return this.#closed('}');
    if (token.text === '|') {
      this.#bars++;
      const inside = this.#closed('|');
      this.#bars--;
      return { op: 'absolute', of: [inside] };
    }
    throw new NotAnExpression();
  }

  #closed(bracket: string): Expression {
    const value = this.#sum();
    this.#expect(bracket);
    return value;
  }

  /** A number, one with repeating decimals, or a mixed number. */
  #number(text: string): Expression {
    const fraction = text.split('.')[1];
    if (fraction !== undefined && ['overline', 'bar', 'dot'].includes(this.#peek()?.text ?? '')) {
      this.#at++;
      return this.#repeating(text, fraction.length);
    }
    if (this.#is('_')) return this.#inBase(text);
    const decimals = /[eE]/.test(text) ? undefined : fraction?.length;
    const value: Expression = {
      op: 'number',
      value: decimal(text),
      ...(decimals === undefined ? {} : { decimals }),
    };
    return fraction === undefined && /^\d+$/.test(text) ? this.#mixed(value) : value;
  }

  /** 2010_5, 2010_{\text{five}}: a number in another base is itself alone. */
  #inBase(digits: string): Expression {
    const base = this.#subscript().slice(1);
    return { op: 'symbol', name: `${digits} in base ${NUMBER_WORDS[base] ?? base}` };
  }

  /** 0.1\overline{6} = 0.1 + 6 / 90 */
  #repeating(text: string, decimals: number): Expression {
    const braced = this.#take('{') !== undefined;
    const digits = this.#peek();
    if (digits?.kind !== 'number' || !/^\d{1,40}$/.test(digits.text)) throw new NotAnExpression();
    this.#at++;
    if (braced) this.#expect('}');
    const start = decimal(text);
    const period = 10n ** BigInt(digits.text.length) - 1n;
    const under = 10n ** BigInt(decimals) * period;
    return {
      op: 'number',
      value: { over: (start.over * under) / start.under + BigInt(digits.text), imag: 0n, under },
    };
  }

  /** "1 2/3" and 1\frac{2}{3} are sums; the fraction is a proper one of whole numbers. */
  #mixed(whole: Expression): Expression {
    const found = this.#fractionBehind();
    if (found === undefined || whole.op !== 'number') return whole;
    const [over, under, length] = found;
    if (under === 0n || over >= under) return whole;
    this.#at += length;
    const value = { over: whole.value.over * under + over, imag: 0n, under };
    return { op: 'number', value };
  }

  /** Numerator, denominator and number of tokens of a fraction that follows a whole number. */
  #fractionBehind(): [bigint, bigint, number] | undefined {
    const whole = (offset: number): bigint | undefined => {
      const token = this.#peek(offset);
      return token?.kind === 'number' && /^\d{1,20}$/.test(token.text) ? BigInt(token.text) : undefined;
    };
    if (this.#peek()?.spaced && this.#is('/', 1)) {
      const [over, under] = [whole(0), whole(2)];
      return over === undefined || under === undefined ? undefined : [over, under, 3];
    }
    if (!this.#is('frac')) return undefined;
    if (!this.#is('{', 1)) {
      const [both, other] = [this.#peek(1), this.#peek(2)];
      if (/^\d$/.test(both?.text ?? '') && /^\d$/.test(other?.text ?? '')) {
        return [BigInt(both?.text ?? ''), BigInt(other?.text ?? ''), 3];
      }
      const digits = both?.kind === 'number' && /^\d\d$/.test(both.text) ? both.text : undefined;
      return digits === undefined ? undefined : [BigInt(digits[0] ?? ''), BigInt(digits[1] ?? ''), 2];
    }
    if (!this.#is('}', 3) || !this.#is('{', 4) || !this.#is('}', 6)) return undefined;
    const [over, under] = [whole(2), whole(5)];
    return over === undefined || under === undefined ? undefined : [over, under, 7];
  }

  /** With its subscript and primes, which are part of the name. */
  #symbol(name: string): Expression {
    const full = name + this.#subscript() + this.#primes();
    if (full === 'i') return { op: 'number', value: IMAGINARY };
    return { op: 'symbol', name: full };
  }

  #primes(): string {
    let primes = '';
    while (this.#take("'") !== undefined) primes += "'";
    return primes;
  }

  #subscript(): string {
    if (this.#take('_') === undefined) return '';
    if (this.#take('{') === undefined) {
      const token = this.#peek();
      this.#at++;
      return `_${token?.text ?? ''}`;
    }
    let name = '_';
    for (let depth = 1; depth > 0; ) {
      const token = this.#peek();
      if (token === undefined) throw new NotAnExpression();
      this.#at++;
      depth += token.text === '{' ? 1 : token.text === '}' ? -1 : 0;
      if (depth > 0) name += token.text;
    }
    return name;
  }

  #command(name: string): Expression {
    if (name === 'frac') return { op: 'divide', of: [this.#argument(), this.#argument()] };
    if (/^[dt]?binom$/.test(name)) return { op: 'binomial', of: [this.#argument(), this.#argument()] };
    if (name === 'sqrt') {
      const order =
        this.#take('[') === undefined ? { op: 'number' as const, value: integer(2n) } : this.#closed(']');
      return { op: 'root', of: [this.#argument(), order] };
    }
    if (name === 'lfloor') return { op: 'floor', of: [this.#closed('rfloor')] };
    if (name === 'lceil') return { op: 'ceil', of: [this.#closed('rceil')] };
    if (['vec', 'hat', 'bar', 'overline', 'widehat', 'tilde'].includes(name)) return this.#decorated(name);
    if (FUNCTIONS.has(name)) return this.#function(name);
    throw new NotAnExpression();
  }

  /** \vec{a}, \overline{AB}: a name of its own. */
  #decorated(name: string): Expression {
    const braced = this.#take('{') !== undefined;
    let letters = '';
    while (this.#peek()?.kind === 'letter' && (braced || letters === '')) {
      letters += this.#peek()?.text;
      this.#at++;
    }
    if (braced) this.#expect('}');
    if (letters === '') throw new NotAnExpression();
    return { op: 'symbol', name: `${name} ${letters}` };
  }

  /** Of \frac and \sqrt: a group, or one digit or letter, as TeX reads it. */
  #argument(): Expression {
    if (this.#take('{') !== undefined) return this.#closed('}');
    const token = this.#peek();
    if (token?.kind !== 'number' || !/^\d{2,}/.test(token.text)) return this.#suffixed();
    // \frac12: the rest of the digits is the next argument or, behind the last one, no single number.
    const last = this.#tokens[this.#at - 1];
    if (last?.text === 'sqrt') {
      this.#at++;
      return { op: 'number', value: decimal(token.text) };
    }
    if (!/^\d\d$/.test(token.text) || !/^(?:frac|[dt]?binom)$/.test(last?.text ?? ''))
      throw new NotAnExpression();
    const [first = '', second = ''] = token.text;
    this.#splice(first, second);
    this.#at++;
    return { op: 'number', value: decimal(first) };
  }

  /** The number at this place as two. */
  #splice(first: string, second: string): void {
    const tokens = this.#tokens;
    const spaced = tokens[this.#at]?.spaced ?? false;
    tokens.splice(
      this.#at,
      1,
      { kind: 'number', text: first, spaced },
      { kind: 'number', text: second, spaced: false },
    );
  }

  /** sin x, \sin^2 x, \log_2 8, \ln(x + 1): the argument without parentheses is a product. */
  #function(name: string): Expression {
    const base = name === 'log' && this.#take('_') !== undefined ? this.#base() : undefined;
    const exponent = this.#take('^') === undefined ? undefined : this.#argument();
    const outer = this.#inFunction;
    this.#inFunction = true;
    const inside = this.#is('(') || this.#is('{') ? this.#atom() : this.#functionArgument();
    this.#inFunction = outer;
    const value = this.#applied(name, inside, base);
    if (exponent === undefined) return value;
    const inverse = exponent.op === 'negate' && /^(?:sin|cos|tan)$/.test(name);
    if (inverse) return { op: `apply:arc${name}`, of: [inside] };
    return { op: 'power', of: [value, exponent] };
  }

  /** Of a logarithm: \\log_23 is log_2 3, as TeX reads it, but \\log_10 100 has the base 10. */
  #base(): Expression {
    const digits = this.#peek();
    if (digits?.kind !== 'number' || !/^\d{2,}$/.test(digits.text)) return this.#argument();
    const next = this.#peek(1);
    const whole =
      next !== undefined && /^(?:number|letter)$|^\($/.test(next.kind === 'sign' ? next.text : next.kind);
    if (!whole) this.#splice(digits.text[0] ?? '', digits.text.slice(1));
    this.#at++;
    return { op: 'number', value: decimal(whole ? digits.text : (digits.text[0] ?? '')) };
  }

  #applied(name: string, inside: Expression, base: Expression | undefined): Expression {
    if (base !== undefined) return { op: 'log', of: [inside, base] };
    if (name === 'log' || name === 'lg')
      return { op: 'log', of: [inside, { op: 'number', value: integer(10n) }] };
    if (name === 'exp') return { op: 'power', of: [{ op: 'symbol', name: 'e' }, inside] };
    return { op: `apply:${name}`, of: [inside] };
  }

  #functionArgument(): Expression {
    return this.#nested(() => {
      let value = this.#is('-') ? this.#signed() : this.#power();
      while (this.#beginsFactor() && !FUNCTIONS.has(this.#peek()?.text ?? '') && !this.#is('(')) {
        value = { op: 'multiply', of: [value, this.#power()] };
      }
      return value;
    });
  }
}

/** The names in it, without those of constants. */
export function symbolsOf(expression: Expression, into = new Set<string>()): Set<string> {
  if (expression.op === 'symbol') into.add(expression.name);
  else if (expression.op !== 'number') for (const part of expression.of) symbolsOf(part, into);
  return into;
}

export function product(expression: Expression, over: bigint, under: bigint): Expression {
  return { op: 'multiply', of: [expression, { op: 'number', value: { ...ONE, over, under } }] };
}
