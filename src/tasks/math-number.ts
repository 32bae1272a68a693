/**
 * The value of a number as mathematicians and language models write it: 1,234.5, 3/4, 1\frac{2}{3}, 2\sqrt{3},
 * \frac{25\pi}{2}, 12^{1/7}, 5!, 17\%. Rational results are exact. Input is hostile: its length, its nesting and
 * the size of exact powers are limited, and what has no finite value has none here either. Everything with
 * letters in it (variables, e, i) is no number.
 */

/** Exact where it can be, else a floating point number. */
export type Value = { exact: true; over: bigint; under: bigint } | { exact: false; value: number };

const LONGEST = 300;
const DEEPEST = 40;
/** Bits of an exact power or product; beyond, floating point. */
const LARGEST_BITS = 4096;
const LARGEST_FACTORIAL = 170n;

/** undefined: not a number. `percent` 17% counts as 17, unless `percentAsFraction`. */
export function parseNumber(text: string, percentAsFraction = false): Value | undefined {
  if (text.length > LONGEST) return undefined;
  try {
    const value = new Parser(text, percentAsFraction).whole();
    return value.exact || Number.isFinite(value.value) ? value : undefined;
  } catch (error) {
    if (error instanceof NotANumber) return undefined;
    throw error;
  }
}

/**
 * Equal integers are equal; other numbers are equal up to a relative 1e-6, so that a decimal of seven digits
 * stands for a fraction or a root.
 */
export function sameNumber(a: Value, b: Value): boolean {
  if (a.exact && b.exact) {
    if (a.over * b.under === b.over * a.under) return true;
    if (a.under === 1n && b.under === 1n) return false;
  }
  const [x, y] = [toFloat(a), toFloat(b)];
  return Math.abs(x - y) <= 1e-6 * Math.max(Math.abs(x), Math.abs(y));
}

function toFloat(value: Value): number {
  return value.exact ? Number(value.over) / Number(value.under) : value.value;
}

class NotANumber extends Error {}

/** Recursive descent over the characters; each method reads one grammar rule and leaves `#at` behind it. */
class Parser {
  readonly #text: string;
  readonly #percentAsFraction: boolean;
  #at = 0;
  #depth = 0;

  constructor(text: string, percentAsFraction: boolean) {
    this.#text = text;
    this.#percentAsFraction = percentAsFraction;
  }

  whole(): Value {
    const value = this.#sum();
    this.#space();
    if (this.#at < this.#text.length) throw new NotANumber();
    return value;
  }

  #sum(): Value {
    if (++this.#depth > DEEPEST) throw new NotANumber();
    let value = this.#product();
    for (;;) {
      if (this.#take(/[+]/y)) value = add(value, this.#product());
      else if (this.#take(/[-−–]/y)) value = add(value, negate(this.#product()));
      else break;
    }
    this.#depth--;
    return value;
  }

  #product(): Value {
    let value = this.#signed();
    for (;;) {
      if (this.#take(/\*|×|·|\\times(?![a-z])|\\cdot(?![a-z])/y)) value = multiply(value, this.#signed());
      else if (this.#take(/\/|÷|\\div(?![a-z])/y)) value = divide(value, this.#signed());
      // Implicit multiplication: anything that begins a factor but digits, which would be two numbers in a row.
      else if (this.#sees(/[({√π]|\\(?:[dt]?frac|sqrt|pi)(?![a-z])/y)) value = multiply(value, this.#power());
      else return value;
    }
  }

  #signed(): Value {
    let negative = false;
    for (;;) {
      if (this.#take(/[-−–]/y)) negative = !negative;
      else if (!this.#take(/\+/y)) break;
    }
    const value = this.#power();
    return negative ? negate(value) : value;
  }

  #power(): Value {
    const base = this.#suffixed();
    if (!this.#take(/\^|\*\*/y)) return base;
    if (++this.#depth > DEEPEST) throw new NotANumber();
    const raised = power(base, this.#signed());
    this.#depth--;
    return raised;
  }

  #suffixed(): Value {
    let value = this.#atom();
    for (;;) {
      if (this.#take(/!/y)) value = factorial(value);
      else if (this.#take(/\\?%/y)) value = this.#percentAsFraction ? divide(value, integer(100n)) : value;
      else return value;
    }
  }

  #atom(): Value {
    const digits = this.#take(
      /\d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d+)?|\d+(?:\.\d*)?(?:[eE][+-]?\d{1,2}(?!\d))?|\.\d+/y,
    );
    if (digits !== undefined) return this.#mixed(decimal(digits));
    if (this.#take(/\(/y)) return this.#closed(/\)/y);
    if (this.#take(/\{/y)) return this.#closed(/\}/y);
    if (this.#take(/\\pi(?![a-z])|π/y)) return { exact: false, value: Math.PI };
    if (this.#take(/\\[dt]?frac(?![a-z])/y)) return divide(this.#argument(), this.#argument());
    if (this.#take(/√/y)) return root(this.#suffixed(), integer(2n));
    if (this.#take(/\\sqrt(?![a-z])/y)) {
      const degree = this.#take(/\[/y) ? this.#closed(/\]/y) : integer(2n);
      return root(this.#argument(), degree);
    }
    throw new NotANumber();
  }

  /** 1\frac{2}{3} and 1 2/3 are sums. */
  #mixed(whole: Value): Value {
    if (!whole.exact || whole.under !== 1n) return whole;
    const fraction = this.#takeHere(/ +(\d+) *\/ *(\d+)(?![\d.])/y);
    if (fraction === undefined) return this.#sees(/\\[dt]?frac/y) ? add(whole, this.#atom()) : whole;
    const [over = '0', under = '0'] = fraction.split('/');
    return add(whole, divide(integer(BigInt(over.trim())), integer(BigInt(under.trim()))));
  }

  /** Of \frac and \sqrt: a group, or one digit or \pi, as TeX reads it. */
  #argument(): Value {
    if (this.#take(/\{/y)) return this.#closed(/\}/y);
    const digit = this.#take(/\d/y);
    return digit === undefined ? this.#atom() : integer(BigInt(digit));
  }

  #closed(bracket: RegExp): Value {
    const value = this.#sum();
    if (!this.#take(bracket)) throw new NotANumber();
    return value;
  }

  #space(): void {
    while (this.#text[this.#at] === ' ') this.#at++;
  }

  #sees(pattern: RegExp): boolean {
    this.#space();
    pattern.lastIndex = this.#at;
    return pattern.test(this.#text);
  }

  #take(pattern: RegExp): string | undefined {
    this.#space();
    return this.#takeHere(pattern);
  }

  #takeHere(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0];
    if (found !== undefined) this.#at += found.length;
    return found;
  }
}

function integer(value: bigint): Value {
  return { exact: true, over: value, under: 1n };
}

function decimal(digits: string): Value {
  const [mantissa = '', exponent = '0'] = digits.replaceAll(',', '').split(/[eE]/);
  const [whole = '', fraction = ''] = mantissa.split('.');
  const value = ratio(BigInt(`${whole}${fraction}` || '0'), 10n ** BigInt(fraction.length));
  const shift = Number(exponent);
  const scale = integer(10n ** BigInt(Math.abs(shift)));
  return shift < 0 ? divide(value, scale) : multiply(value, scale);
}

function ratio(over: bigint, under: bigint): Value {
  if (under === 0n) throw new NotANumber();
  let [a, b] = [over < 0n ? -over : over, under < 0n ? -under : under];
  while (b !== 0n) [a, b] = [b, a % b];
  const divisor = under < 0n ? -a : a;
  return { exact: true, over: over / divisor, under: under / divisor };
}

function bits(value: bigint): number {
  return value.toString(16).length * 4;
}

/** The exact result, unless it would be long. */
function bounded(over: bigint, under: bigint): Value {
  const value = ratio(over, under);
  if (!value.exact || bits(value.over) + bits(value.under) <= LARGEST_BITS) return value;
  return { exact: false, value: toFloat(value) };
}

function add(a: Value, b: Value): Value {
  if (a.exact && b.exact) return bounded(a.over * b.under + b.over * a.under, a.under * b.under);
  return { exact: false, value: toFloat(a) + toFloat(b) };
}

function negate(a: Value): Value {
  return a.exact ? { ...a, over: -a.over } : { exact: false, value: -a.value };
}

function multiply(a: Value, b: Value): Value {
  if (a.exact && b.exact) return bounded(a.over * b.over, a.under * b.under);
  return { exact: false, value: toFloat(a) * toFloat(b) };
}

function divide(a: Value, b: Value): Value {
  if (a.exact && b.exact) return bounded(a.over * b.under, a.under * b.over);
  return { exact: false, value: toFloat(a) / toFloat(b) };
}

function power(base: Value, exponent: Value): Value {
  if (base.exact && exponent.exact && exponent.under === 1n) {
    const times = exponent.over < 0n ? -exponent.over : exponent.over;
    if (times <= LARGEST_BITS && (bits(base.over) + bits(base.under)) * Number(times) <= LARGEST_BITS) {
      const [over, under] = [base.over ** times, base.under ** times];
      return exponent.over < 0n ? ratio(under, over) : ratio(over, under);
    }
  }
  return { exact: false, value: toFloat(base) ** toFloat(exponent) };
}

function root(of: Value, degree: Value): Value {
  const value = toFloat(of);
  const order = toFloat(degree);
  // Odd roots of negative numbers are real here, as in the data sets.
  const positive = Math.abs(value) ** (1 / order);
  const result = value >= 0 ? positive : order % 2 === 1 ? -positive : Number.NaN;
  const rounded = Math.round(result);
  const isWhole =
    of.exact && of.under === 1n && Number.isSafeInteger(rounded) && Number.isInteger(order) && order > 0;
  if (isWhole && order < 64 && BigInt(rounded) ** BigInt(order) === of.over) return integer(BigInt(rounded));
  return { exact: false, value: result };
}

function factorial(of: Value): Value {
  if (!of.exact || of.under !== 1n || of.over < 0n || of.over > LARGEST_FACTORIAL) throw new NotANumber();
  let value = 1n;
  for (let i = 2n; i <= of.over; i++) value *= i;
  return integer(value);
}
