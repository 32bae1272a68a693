/**
 * Reads expressions from tokens by recursive descent. Whatever this grammar does not know is not an expression; it is
 * compared as text elsewhere.
 */
import { decorated, number, symbol } from './atoms.js';
import { Cursor, NotAnExpression } from './cursor.js';
import { decimal, integer } from './exact.js';
import type { Expression } from './expression.js';
import type { Token } from './notation.js';
import { FUNCTIONS } from './vocabulary.js';

/** Operations inside one another. */
const DEEPEST = 60;

/** undefined: these tokens are no expression. */
export function parseExpression(tokens: readonly Token[]): Expression | undefined {
  try {
    return new Parser(new Cursor(tokens)).whole();
  } catch (error) {
    if (error instanceof NotAnExpression) return undefined;
    throw error;
  }
}

class Parser {
  readonly #tokens: Cursor;
  #depth = 0;
  #inFunction = false;
  /** |…| that are open: the next bar closes one. */
  #bars = 0;

  constructor(tokens: Cursor) {
    this.#tokens = tokens;
  }

  whole(): Expression {
    const value = this.#sum();
    if (!this.#tokens.atEnd) throw new NotAnExpression();
    return value;
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
        const sign = this.#tokens.take('+', '-');
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
      const sign = this.#tokens.take('*', '/', 'over');
      if (sign === 'over') return { op: 'divide', of: [value, this.#sum()] };
      if (this.#tokens.take('choose') !== undefined) return { op: 'binomial', of: [value, this.#sum()] };
      if (this.#crossesOut()) {
        this.#tokens.at++;
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
    const token = this.#tokens.peek();
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
    const [before, x, behind] = [this.#tokens.peek(-1), this.#tokens.peek(), this.#tokens.peek(1)];
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
    return this.#tokens.peek(-1)?.text === '!' && this.#tokens.peek()?.kind === 'number';
  }

  #signed(): Expression {
    let negative = false;
    for (;;) {
      const sign = this.#tokens.take('-', '+');
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
    if (!this.#tokens.is('^')) return base;
    return this.#nested(() => {
      this.#tokens.at++;
      const exponent = this.#tokens.is('-') || this.#tokens.is('+') ? this.#signed() : this.#power();
      return { op: 'power', of: [base, exponent] };
    });
  }

  #suffixed(): Expression {
    const value = this.#inDegrees(this.#atom());
    if (this.#tokens.take('!') === undefined) return value;
    if (this.#tokens.is('!')) throw new NotAnExpression();
    return { op: 'factorial', of: [value] };
  }

  /** Inside of a function a degree is π/180. */
  #inDegrees(value: Expression): Expression {
    const length = this.#tokens.is('°')
      ? 1
      : this.#tokens.is('^') && this.#tokens.is('°', 1)
        ? 2
        : this.#bracedDegree()
          ? 4
          : 0;
    if (length === 0 || !this.#inFunction) return value;
    this.#tokens.at += length;
    const turned: Expression = { op: 'multiply', of: [value, { op: 'symbol', name: 'pi' }] };
    return { op: 'divide', of: [turned, { op: 'number', value: integer(180n) }] };
  }

  #bracedDegree(): boolean {
    return (
      this.#tokens.is('^') && this.#tokens.is('{', 1) && this.#tokens.is('°', 2) && this.#tokens.is('}', 3)
    );
  }

  #atom(): Expression {
    const token = this.#tokens.peek();
    if (token === undefined) throw new NotAnExpression();
    this.#tokens.at++;
    if (token.kind === 'number') return number(this.#tokens, token.text);
    if (token.kind === 'letter') return symbol(this.#tokens, token.text);
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
    this.#tokens.expect(bracket);
    return value;
  }

  #command(name: string): Expression {
    if (name === 'frac') return { op: 'divide', of: [this.#argument(), this.#argument()] };
    if (/^[dt]?binom$/.test(name)) return { op: 'binomial', of: [this.#argument(), this.#argument()] };
    if (name === 'sqrt') {
      const order =
        this.#tokens.take('[') === undefined
          ? { op: 'number' as const, value: integer(2n) }
          : this.#closed(']');
      return { op: 'root', of: [this.#argument(), order] };
    }
    if (name === 'lfloor') return { op: 'floor', of: [this.#closed('rfloor')] };
    if (name === 'lceil') return { op: 'ceil', of: [this.#closed('rceil')] };
    if (['vec', 'hat', 'bar', 'overline', 'widehat', 'tilde'].includes(name))
      return decorated(this.#tokens, name);
    if (FUNCTIONS.has(name)) return this.#function(name);
    throw new NotAnExpression();
  }

  /** Of \frac and \sqrt: a group, or one digit or letter, as TeX reads it. */
  #argument(): Expression {
    if (this.#tokens.take('{') !== undefined) return this.#closed('}');
    const token = this.#tokens.peek();
    if (token?.kind !== 'number' || !/^\d{2,}/.test(token.text)) return this.#suffixed();
    // \frac12: the rest of the digits is the next argument or, behind the last one, no single number.
    const last = this.#tokens.peek(-1);
    if (last?.text === 'sqrt') {
      this.#tokens.at++;
      return { op: 'number', value: decimal(token.text) };
    }
    if (!/^\d\d$/.test(token.text) || !/^(?:frac|[dt]?binom)$/.test(last?.text ?? ''))
      throw new NotAnExpression();
    const [first = '', second = ''] = token.text;
    this.#tokens.splice(first, second);
    this.#tokens.at++;
    return { op: 'number', value: decimal(first) };
  }

  /** sin x, \sin^2 x, \log_2 8, \ln(x + 1): the argument without parentheses is a product. */
  #function(name: string): Expression {
    const base = name === 'log' && this.#tokens.take('_') !== undefined ? this.#base() : undefined;
    const exponent = this.#tokens.take('^') === undefined ? undefined : this.#argument();
    const outer = this.#inFunction;
    this.#inFunction = true;
    const inside = this.#tokens.is('(') || this.#tokens.is('{') ? this.#atom() : this.#functionArgument();
    this.#inFunction = outer;
    const value = this.#applied(name, inside, base);
    if (exponent === undefined) return value;
    const inverse = exponent.op === 'negate' && /^(?:sin|cos|tan)$/.test(name);
    if (inverse) return { op: `apply:arc${name}`, of: [inside] };
    return { op: 'power', of: [value, exponent] };
  }

  /** Of a logarithm: \\log_23 is log_2 3, as TeX reads it, but \\log_10 100 has the base 10. */
  #base(): Expression {
    const digits = this.#tokens.peek();
    if (digits?.kind !== 'number' || !/^\d{2,}$/.test(digits.text)) return this.#argument();
    const next = this.#tokens.peek(1);
    const whole =
      next !== undefined && /^(?:number|letter)$|^\($/.test(next.kind === 'sign' ? next.text : next.kind);
    if (!whole) this.#tokens.splice(digits.text[0] ?? '', digits.text.slice(1));
    this.#tokens.at++;
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
      let value = this.#tokens.is('-') ? this.#signed() : this.#power();
      while (
        this.#beginsFactor() &&
        !FUNCTIONS.has(this.#tokens.peek()?.text ?? '') &&
        !this.#tokens.is('(')
      ) {
        value = { op: 'multiply', of: [value, this.#power()] };
      }
      return value;
    });
  }
}
