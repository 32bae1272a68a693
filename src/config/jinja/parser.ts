/** Tokens of a template as statements and expressions: the grammar of jinja2/parser.py. */
import { FILTERS } from './filters.js';
import { type Token, tokenize } from './lexer.js';
import type { Arguments, Expression, Filtering, Parameter, Statement, Target } from './syntax.js';
import { TESTS } from './tests.js';
import { Float, whole } from './values.js';

export const parse = (source: string): Statement[] => new Parser(tokenize(source)).program();

const COMPARISONS = new Set(['==', '!=', '<', '>', '<=', '>=']);
/** What Jinja has beside what chat templates use. */
const ABSENT = new Set(['joiner', 'cycler', 'lipsum', 'self', 'super']);
const NO_ARGUMENTS: Arguments = { positional: [], named: [], spread: [], namedSpread: [] };

class Parser {
  readonly #tokens: readonly Token[];
  #at = 0;

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens;
  }

  program(): Statement[] {
    return this.#body([]);
  }

  get #token(): Token | undefined {
    return this.#tokens[this.#at];
  }

  #is(kind: Token['kind'], value?: string, ahead = 0): boolean {
    const token = this.#tokens[this.#at + ahead];
    return token?.kind === kind && (value === undefined || token.value === value);
  }

  #skip(kind: Token['kind'], value?: string): boolean {
    if (!this.#is(kind, value)) return false;
    this.#at++;
    return true;
  }

  #expect(kind: Token['kind'], value?: string): string {
    const token = this.#token;
    if (this.#skip(kind, value)) return (token as Token).value;
    throw new Error(`"${token?.value ?? 'the end'}" stands where ${value ?? kind} is expected`);
  }

  /** Up to a block that begins with one of `ends`, which is left. */
  #body(ends: readonly string[]): Statement[] {
    const body: Statement[] = [];
    while (this.#token !== undefined) {
      if (this.#is('data')) body.push({ kind: 'data', text: this.#expect('data') });
      else if (this.#skip('begin', 'variable')) {
        body.push({ kind: 'print', value: this.#tuple() });
        this.#expect('end', 'variable');
      } else {
        if (ends.some((end) => this.#is('name', end, 1))) return body;
        this.#expect('begin', 'block');
        body.push(this.#statement(this.#expect('name')));
      }
    }
    if (ends.length > 0) throw new Error(`${ends.join(' or ')} is missing`);
    return body;
  }

  /** The body of a block, with its end. */
  #block(end: string): Statement[] {
    this.#expect('end', 'block');
    const body = this.#body([end]);
    this.#close(end);
    return body;
  }

  #close(end: string): void {
    this.#expect('begin', 'block');
    this.#expect('name', end);
    // {% endmacro name %}
    if (end === 'endmacro') this.#skip('name');
    this.#expect('end', 'block');
  }

  #statement(name: string): Statement {
    switch (name) {
      case 'if':
        return this.#if();
      case 'for':
        return this.#for();
      case 'set':
        return this.#set();
      case 'macro': {
        const macro = this.#expect('name');
        return { kind: 'macro', name: macro, parameters: this.#parameters(), body: this.#block('endmacro') };
      }
      case 'call': {
        const parameters = this.#is('operator', '(') ? this.#parameters() : [];
        return { kind: 'callBlock', parameters, call: this.#expression(), body: this.#block('endcall') };
      }
      case 'filter':
        return { kind: 'filterBlock', filter: this.#filtering(), body: this.#block('endfilter') };
      case 'with':
        return this.#with();
      case 'generation':
        return { kind: 'group', body: this.#block('endgeneration') };
      case 'break':
      case 'continue':
        this.#expect('end', 'block');
        return { kind: name };
      default:
        throw new Error(`there is no block "${name}" here`);
    }
  }

  #if(): Statement {
    const branches: [Expression | undefined, Statement[]][] = [];
    for (;;) {
      const condition = this.#expression();
      this.#expect('end', 'block');
      branches.push([condition, this.#body(['elif', 'else', 'endif'])]);
      this.#expect('begin', 'block');
      const next = this.#expect('name');
      if (next === 'elif') continue;
      if (next === 'else') {
        branches.push([undefined, this.#block('endif')]);
        return { kind: 'if', branches };
      }
      this.#expect('end', 'block');
      return { kind: 'if', branches };
    }
  }

  #for(): Statement {
    const { targets, unpack } = this.#targets();
    this.#expect('name', 'in');
    const of = this.#tuple(false);
    const where = this.#skip('name', 'if') ? this.#expression() : undefined;
    if (this.#is('name', 'recursive')) throw new Error('a recursive loop is not read here');
    this.#expect('end', 'block');
    const body = this.#body(['else', 'endfor']);
    let otherwise: Statement[] = [];
    if (this.#is('name', 'else', 1)) {
      this.#at += 2;
      otherwise = this.#block('endfor');
    } else this.#close('endfor');
    return { kind: 'for', targets, unpack, of, where, body, otherwise };
  }

  #set(): Statement {
    const { targets, unpack } = this.#targets();
    if (this.#skip('operator', '=')) {
      const value = this.#tuple();
      this.#expect('end', 'block');
      return { kind: 'set', targets, unpack, value };
    }
    const filter = this.#skip('operator', '|') ? this.#filtering() : [];
    return { kind: 'setBlock', target: targets[0] as Target, filter, body: this.#block('endset') };
  }

  #with(): Statement {
    const names: [string, Expression][] = [];
    while (!this.#is('end')) {
      if (names.length > 0) this.#expect('operator', ',');
      const name = this.#expect('name');
      this.#expect('operator', '=');
      names.push([name, this.#expression()]);
    }
    return { kind: 'with', names, body: this.#block('endwith') };
  }

  #targets(): { targets: Target[]; unpack: boolean } {
    const targets: Target[] = [];
    let unpack = this.#skip('operator', '(');
    const bracket = unpack;
    do {
      if (this.#is('operator', ')')) break;
      const name = this.#expect('name');
      targets.push(
        this.#skip('operator', '.')
          ? { kind: 'field', of: name, name: this.#expect('name') }
          : { kind: 'name', name },
      );
      unpack ||= this.#is('operator', ',');
    } while (this.#skip('operator', ',') && this.#is('name') && !this.#is('name', 'in'));
    if (bracket) this.#expect('operator', ')');
    return { targets, unpack };
  }

  #parameters(): Parameter[] {
    const parameters: Parameter[] = [];
    this.#expect('operator', '(');
    while (!this.#skip('operator', ')')) {
      if (parameters.length > 0) this.#expect('operator', ',');
      const name = this.#expect('name');
      parameters.push([name, this.#skip('operator', '=') ? this.#expression() : undefined]);
    }
    return parameters;
  }

  #filtering(): Filtering {
    const filters: Filtering = [];
    do filters.push(this.#filterName());
    while (this.#skip('operator', '|'));
    return filters;
  }

  #filterName(): { name: string; args: Arguments } {
    const name = this.#expect('name');
    if (!Object.hasOwn(FILTERS, name)) throw new Error(`there is no filter "${name}" here`);
    return { name, args: this.#is('operator', '(') ? this.#arguments() : NO_ARGUMENTS };
  }

  /** Expressions with commas between them are a tuple. */
  #tuple(choice = true): Expression {
    const one = () => (choice ? this.#expression() : this.#or());
    const first = one();
    if (!this.#is('operator', ',')) return first;
    const items = [first];
    while (this.#skip('operator', ',')) {
      if (this.#is('end') || this.#is('operator', ')')) break;
      items.push(one());
    }
    return { kind: 'tuple', items };
  }

  #expression(): Expression {
    let found = this.#or();
    while (this.#skip('name', 'if')) {
      const condition = this.#or();
      const otherwise = this.#skip('name', 'else') ? this.#expression() : undefined;
      found = { kind: 'choice', condition, chosen: found, otherwise };
    }
    return found;
  }

  #chain(operators: readonly string[], kind: 'name' | 'operator', operand: () => Expression): Expression {
    let left = operand();
    for (;;) {
      const operator = operators.find((one) => this.#is(kind, one));
      if (operator === undefined) return left;
      this.#at++;
      left = { kind: 'binary', operator, left, right: operand() };
    }
  }

  #or = (): Expression => this.#chain(['or'], 'name', this.#and);
  #and = (): Expression => this.#chain(['and'], 'name', this.#not);

  #not = (): Expression => {
    if (!this.#skip('name', 'not')) return this.#compare();
    return { kind: 'unary', operator: 'not', of: this.#not() };
  };

  #compare(): Expression {
    const first = this.#sum();
    const rest: [string, Expression][] = [];
    for (;;) {
      const token = this.#token;
      if (token?.kind === 'operator' && COMPARISONS.has(token.value)) {
        this.#at++;
        rest.push([token.value, this.#sum()]);
      } else if (this.#skip('name', 'in')) rest.push(['in', this.#sum()]);
      else if (this.#is('name', 'not') && this.#is('name', 'in', 1)) {
        this.#at += 2;
        rest.push(['not in', this.#sum()]);
      } else return rest.length === 0 ? first : { kind: 'compare', first, rest };
    }
  }

  #sum = (): Expression => this.#chain(['+', '-'], 'operator', this.#concat);
  #concat = (): Expression => this.#chain(['~'], 'operator', this.#product);
  #product = (): Expression => this.#chain(['*', '/', '//', '%'], 'operator', this.#power);
  #power = (): Expression => this.#chain(['**'], 'operator', () => this.#unary(true));

  #unary(filtered: boolean): Expression {
    const sign = (['-', '+'] as const).find((one) => this.#skip('operator', one));
    let found: Expression =
      sign === undefined
        ? this.#postfix(this.#primary())
        : this.#postfix({ kind: 'unary', operator: sign, of: this.#unary(false) });
    if (!filtered) return found;
    for (;;) {
      if (this.#skip('operator', '|')) found = { kind: 'filter', of: found, ...this.#filterName() };
      else if (this.#skip('name', 'is')) found = this.#test(found);
      else if (this.#is('operator', '(')) found = { kind: 'call', of: found, args: this.#arguments() };
      else return found;
    }
  }

  #test(of: Expression): Expression {
    const negated = this.#skip('name', 'not');
    const name = this.#expect('name');
    if (!Object.hasOwn(TESTS, name)) throw new Error(`there is no test "${name}" here`);
    let args = NO_ARGUMENTS;
    const word =
      this.#is('name') && !['else', 'or', 'and', 'is', 'if', 'in', 'not'].includes(this.#token?.value ?? '');
    const literal = this.#is('text') || this.#is('int') || this.#is('float');
    if (this.#is('operator', '(')) args = this.#arguments();
    else if (word || literal || this.#is('operator', '[') || this.#is('operator', '{')) {
      args = { ...NO_ARGUMENTS, positional: [this.#postfix(this.#primary())] };
    }
    const test: Expression = { kind: 'test', of, name, args };
    return negated ? { kind: 'unary', operator: 'not', of: test } : test;
  }

  #primary(): Expression {
    const token = this.#token;
    if (token === undefined) throw new Error('an expression is missing');
    this.#at++;
    switch (token.kind) {
      case 'name':
        return nameOf(token.value);
      case 'text': {
        let { value } = token;
        while (this.#is('text')) value += this.#expect('text');
        return { kind: 'constant', value };
      }
      case 'int':
        return { kind: 'constant', value: whole(Number(token.value.replaceAll('_', ''))) };
      case 'float':
        return { kind: 'constant', value: new Float(Number(token.value.replaceAll('_', ''))) };
      case 'operator':
        if (token.value === '(') return this.#parenthesis();
        if (token.value === '[') return { kind: 'list', items: this.#items(']', () => this.#expression()) };
        if (token.value === '{') return { kind: 'dict', entries: this.#items('}', () => this.#entry()) };
    }
    throw new Error(`"${token.value}" is unexpected`);
  }

  #parenthesis(): Expression {
    if (this.#skip('operator', ')')) return { kind: 'tuple', items: [] };
    const found = this.#tuple();
    this.#expect('operator', ')');
    return found;
  }

  #items<T>(end: string, item: () => T): T[] {
    const items: T[] = [];
    while (!this.#skip('operator', end)) {
      if (items.length > 0) this.#expect('operator', ',');
      if (this.#skip('operator', end)) break;
      items.push(item());
    }
    return items;
  }

  #entry(): [Expression, Expression] {
    const key = this.#expression();
    this.#expect('operator', ':');
    return [key, this.#expression()];
  }

  #postfix(given: Expression): Expression {
    let of = given;
    for (;;) {
      if (this.#skip('operator', '.')) {
        if (this.#is('int')) of = { kind: 'item', of, at: this.#primary() };
        else of = { kind: 'attribute', of, name: this.#expect('name') };
      } else if (this.#skip('operator', '[')) of = this.#subscript(of);
      else if (this.#is('operator', '(')) of = { kind: 'call', of, args: this.#arguments() };
      else return of;
    }
  }

  #subscript(of: Expression): Expression {
    const part = () =>
      this.#is('operator', ':') || this.#is('operator', ']') ? undefined : this.#expression();
    const from = part();
    if (!this.#skip('operator', ':')) {
      this.#expect('operator', ']');
      if (from === undefined) throw new Error('an index is missing');
      return { kind: 'item', of, at: from };
    }
    const to = part();
    const step = this.#skip('operator', ':') ? part() : undefined;
    this.#expect('operator', ']');
    return { kind: 'slice', of, ...(from && { from }), ...(to && { to }), ...(step && { step }) };
  }

  #arguments(): Arguments {
    const args: Arguments = { positional: [], named: [], spread: [], namedSpread: [] };
    this.#expect('operator', '(');
    this.#items(')', () => {
      if (this.#skip('operator', '**')) args.namedSpread.push(this.#expression());
      else if (this.#skip('operator', '*')) args.spread.push(this.#expression());
      else if (this.#is('name') && this.#is('operator', '=', 1)) {
        const name = this.#expect('name');
        this.#at++;
        args.named.push([name, this.#expression()]);
      } else args.positional.push(this.#expression());
    });
    return args;
  }
}

function nameOf(name: string): Expression {
  const lower = name.charAt(0).toLowerCase() + name.slice(1);
  if (lower === 'true' || lower === 'false') return { kind: 'constant', value: lower === 'true' };
  if (ABSENT.has(name)) throw new Error(`there is no "${name}" here`);
  return lower === 'none' ? { kind: 'constant', value: null } : { kind: 'name', name };
}
