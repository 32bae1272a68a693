/** Runs the statements of a template, within bounds: a template that loops or multiplies ends in an error. */
import { applyFilter } from './filters.js';
import { escapesOther, isEscaped, isMarkup } from './markup.js';
import { arithmetic, comparison } from './operators.js';
import type { Arguments, Expression, Filtering, Parameter, Statement, Target } from './syntax.js';
import { applyTest } from './tests.js';
import { attribute, item, slice } from './value-methods.js';
import {
  Callable,
  Dict,
  Fields,
  Float,
  iterate,
  List,
  numberOf,
  present,
  same,
  text,
  truth,
  typeName,
  Undefined,
  type Value,
} from './values.js';

/** Statements and expressions that one rendering may come by; a conversation of a hundred messages takes some thousands. */
const MOST_STEPS = 2 ** 19;
/** Characters and list elements that the values of all of them may have together. */
const MOST_CHARACTERS = 2 ** 29;
const MOST_ELEMENTS = 2 ** 18;

/** Names and their values, in the ones around it. */
class Scope {
  readonly #values = new Map<string, Value>();
  readonly #outer: Scope | undefined;

  constructor(outer?: Scope) {
    this.#outer = outer;
  }

  get(name: string): Value {
    // None is a value: what is missing is undefined.
    const value = this.#values.get(name);
    if (value !== undefined) return value;
    return this.#outer === undefined ? new Undefined(`"${name}"`) : this.#outer.get(name);
  }

  set(name: string, value: Value): void {
    this.#values.set(name, value);
  }
}

class LoopEnd extends Error {
  readonly goesOn: boolean;
  constructor(goesOn: boolean) {
    super('break and continue stand in loops only');
    this.goesOn = goesOn;
  }
}

export class Interpreter {
  readonly #global = new Scope();
  #steps = 0;
  #characters = 0;
  #elements = 0;

  constructor(names: Iterable<readonly [string, Value]>) {
    for (const [name, value] of names) this.#global.set(name, value);
    this.#global.set(
      'namespace',
      new Callable((args, named) => new Fields('namespace', namespaceEntries(args, named))),
    );
    this.#global.set('dict', new Callable((args, named) => new Dict([...args.flatMap(entriesOf), ...named])));
  }

  run(body: readonly Statement[]): string {
    return this.#body(body, new Scope(this.#global));
  }

  #step(): void {
    if (++this.#steps > MOST_STEPS) throw new Error(`it takes more than ${MOST_STEPS} steps`);
  }

  #counted(value: Value): Value {
    if (typeof value === 'string') this.#characters += value.length;
    else if (value instanceof List) this.#elements += value.items.length;
    else if (value instanceof Dict) this.#elements += value.map.size;
    if (this.#characters > MOST_CHARACTERS || this.#elements > MOST_ELEMENTS) {
      throw new Error('it makes texts or lists without end');
    }
    return value;
  }

  #body(body: readonly Statement[], scope: Scope): string {
    let written = '';
    for (const statement of body) {
      const part = this.#statement(statement, scope);
      if (part === '') continue;
      written += part;
      this.#counted(part);
    }
    return written;
  }

  #statement(statement: Statement, scope: Scope): string {
    this.#step();
    switch (statement.kind) {
      case 'data':
        return statement.text;
      case 'print':
        return text(this.#value(statement.value, scope));
      case 'if':
        for (const [condition, body] of statement.branches) {
          if (condition === undefined || truth(this.#value(condition, scope))) return this.#body(body, scope);
        }
        return '';
      case 'for':
        return this.#for(statement, scope);
      case 'set':
        this.#assign(statement.targets, statement.unpack, this.#value(statement.value, scope), scope);
        return '';
      case 'setBlock':
        this.#put(
          statement.target,
          this.#filtered(statement.filter, this.#body(statement.body, new Scope(scope)), scope),
          scope,
        );
        return '';
      case 'macro':
        scope.set(statement.name, this.#macro(statement.parameters, statement.body, scope));
        return '';
      case 'callBlock':
        return this.#callBlock(statement, scope);
      case 'filterBlock':
        return text(this.#filtered(statement.filter, this.#body(statement.body, new Scope(scope)), scope));
      case 'with': {
        const inner = new Scope(scope);
        for (const [name, value] of statement.names) inner.set(name, this.#value(value, scope));
        return this.#body(statement.body, inner);
      }
      case 'group':
        return this.#body(statement.body, new Scope(scope));
      case 'break':
      case 'continue':
        throw new LoopEnd(statement.kind === 'continue');
    }
  }

  #for(statement: Extract<Statement, { kind: 'for' }>, scope: Scope): string {
    const given = [...iterate(this.#value(statement.of, scope))];
    const items = given.filter((one) => {
      if (statement.where === undefined) return true;
      const inner = new Scope(scope);
      this.#assign(statement.targets, statement.unpack, one, inner);
      return truth(this.#value(statement.where, inner));
    });
    if (items.length === 0) return this.#body(statement.otherwise, new Scope(scope));
    let written = '';
    const changed: Value[] = [];
    for (const [i, one] of items.entries()) {
      const inner = new Scope(scope);
      inner.set('loop', loopAt(items, i, changed));
      this.#assign(statement.targets, statement.unpack, one, inner);
      const before = { written: '' };
      const end = this.#pass(statement.body, inner, before);
      written += before.written;
      if (end === 'break') break;
    }
    return written;
  }

  /** One pass of a loop: what it wrote up to a break or continue counts. */
  #pass(body: readonly Statement[], scope: Scope, out: { written: string }): 'break' | 'end' {
    try {
      this.#write(body, scope, out);
    } catch (end) {
      if (!(end instanceof LoopEnd)) throw end;
      if (!end.goesOn) return 'break';
    }
    return 'end';
  }

  /** As #body, but that what was written before a break inside an `if` is not lost. */
  #write(body: readonly Statement[], scope: Scope, out: { written: string }): void {
    for (const statement of body) {
      if (statement.kind === 'if') {
        this.#step();
        const branch = statement.branches.find(
          ([condition]) => condition === undefined || truth(this.#value(condition, scope)),
        );
        if (branch !== undefined) this.#write(branch[1], scope, out);
      } else {
        const part = this.#statement(statement, scope);
        out.written += part;
        this.#counted(part);
      }
    }
  }

  #assign(targets: readonly Target[], unpack: boolean, value: Value, scope: Scope): void {
    if (!unpack) {
      this.#put(targets[0] as Target, value, scope);
      return;
    }
    const items = [...iterate(value)];
    if (items.length !== targets.length)
      throw new Error(`${items.length} values go to ${targets.length} names`);
    for (const [i, target] of targets.entries()) this.#put(target, items[i] as Value, scope);
  }

  #put(target: Target, value: Value, scope: Scope): void {
    if (target.kind === 'name') {
      scope.set(target.name, value);
      return;
    }
    const of = scope.get(target.of);
    if (!(of instanceof Fields && of.kind === 'namespace')) throw new Error(`${target.of} is no namespace`);
    if (target.name.startsWith('_')) throw new Error(`the attribute ${target.name} is not for templates`);
    of.map.set(target.name, value);
  }

  #filtered(filters: Filtering, value: Value, scope: Scope): Value {
    return filters.reduce((result, { name, args }) => {
      const { positional, named } = this.#arguments(args, scope);
      return applyFilter(name, result, positional, named);
    }, value);
  }

  #macro(parameters: readonly Parameter[], body: readonly Statement[], scope: Scope): Callable {
    return new Callable((args, named) => {
      const inner = new Scope(scope);
      const rest = new Map(named);
      for (const [i, [name, fallback]] of parameters.entries()) {
        const given = i < args.length ? args[i] : rest.get(name);
        if (i < args.length && rest.has(name)) throw new Error(`"${name}" is given twice`);
        rest.delete(name);
        const missing = () =>
          fallback === undefined ? new Undefined(`"${name}"`) : this.#value(fallback, inner);
        inner.set(name, given === undefined ? missing() : given);
      }
      const caller = rest.get('caller');
      if (caller !== undefined) inner.set('caller', caller);
      rest.delete('caller');
      inner.set('varargs', new List(args.slice(parameters.length), 'tuple'));
      inner.set('kwargs', new Dict(rest));
      const uses = JSON.stringify(body);
      if (args.length > parameters.length && !uses.includes('"varargs"'))
        throw new Error(`a macro of ${parameters.length} parameters got ${args.length}`);
      if (rest.size > 0 && !uses.includes('"kwargs"'))
        throw new Error(`a macro has no parameter ${[...rest.keys()].join(', ')}`);
      return this.#body(body, inner);
    });
  }

  #callBlock({ call, parameters, body }: Extract<Statement, { kind: 'callBlock' }>, scope: Scope): string {
    if (call.kind !== 'call') throw new Error('a call block calls a macro');
    const { positional, named } = this.#arguments(call.args, scope);
    const caller = this.#macro(parameters, body, scope);
    return text(called(this.#value(call.of, scope), positional, new Map([...named, ['caller', caller]])));
  }

  #value(expression: Expression, scope: Scope): Value {
    this.#step();
    return this.#counted(this.#evaluated(expression, scope));
  }

  #evaluated(expression: Expression, scope: Scope): Value {
    switch (expression.kind) {
      case 'constant':
        return expression.value;
      case 'name':
        return scope.get(expression.name);
      case 'list':
      case 'tuple':
        return new List(
          expression.items.map((one) => this.#value(one, scope)),
          expression.kind,
        );
      case 'dict':
        return new Dict(
          expression.entries.map(
            ([key, value]) => [this.#value(key, scope), this.#value(value, scope)] as const,
          ),
        );
      case 'attribute':
        return attribute(this.#value(expression.of, scope), expression.name);
      case 'item':
        return item(this.#value(expression.of, scope), this.#value(expression.at, scope));
      case 'slice': {
        const of = this.#value(expression.of, scope);
        const [from, to, step] = [expression.from, expression.to, expression.step].map(
          (one) => one && this.#value(one, scope),
        );
        return slice(of, from, to, step);
      }
      case 'call': {
        const { positional, named } = this.#arguments(expression.args, scope);
        return called(this.#value(expression.of, scope), positional, named);
      }
      case 'filter': {
        const of = this.#value(expression.of, scope);
        if (isEscaped(expression)) return text(of);
        const { positional, named } = this.#arguments(expression.args, scope);
        return applyFilter(expression.name, of, positional, named);
      }
      case 'test': {
        const of = this.#value(expression.of, scope);
        if (expression.name === 'escaped') return isMarkup(expression.of);
        return applyTest(expression.name, of, this.#arguments(expression.args, scope).positional);
      }
      case 'unary':
        return unary(expression.operator, this.#value(expression.of, scope));
      case 'binary': {
        const left = this.#value(expression.left, scope);
        if (expression.operator === 'and') return truth(left) ? this.#value(expression.right, scope) : left;
        if (expression.operator === 'or') return truth(left) ? left : this.#value(expression.right, scope);
        const right = this.#value(expression.right, scope);
        if (!escapesOther(expression)) return arithmetic(expression.operator, left, right);
        const [one, other] = [[expression.left, left] as const, [expression.right, right] as const].map(
          ([part, value]) => (isMarkup(part) ? value : applyFilter('e', value, [], new Map())),
        );
        return arithmetic('+', one as Value, other as Value);
      }
      case 'compare': {
        let left = this.#value(expression.first, scope);
        for (const [operator, operand] of expression.rest) {
          const right = this.#value(operand, scope);
          if (!comparison(operator, left, right)) return false;
          left = right;
        }
        return true;
      }
      case 'choice': {
        const chosen = truth(this.#value(expression.condition, scope))
          ? expression.chosen
          : expression.otherwise;
        return chosen === undefined ? new Undefined('the other case of an if') : this.#value(chosen, scope);
      }
    }
  }

  #arguments(args: Arguments, scope: Scope): { positional: Value[]; named: Map<string, Value> } {
    const positional = args.positional.map((one) => this.#value(one, scope));
    for (const one of args.spread) positional.push(...iterate(this.#value(one, scope)));
    const named = new Map(args.named.map(([name, one]) => [name, this.#value(one, scope)] as const));
    for (const one of args.namedSpread) {
      const more = this.#value(one, scope);
      if (!(more instanceof Dict)) throw new Error(`${typeName(more)} gives no named arguments`);
      for (const [name, value] of more.map) named.set(String(name), value);
    }
    return { positional, named };
  }
}

function called(of: Value, args: Value[], named: ReadonlyMap<string, Value>): Value {
  if (of instanceof Callable) return of.call(args, named);
  if (of instanceof Undefined) return of.fail();
  throw new Error(`${typeName(of)} cannot be called`);
}

function unary(operator: '-' | '+' | 'not', value: Value): Value {
  if (operator === 'not') return !truth(value);
  const number = numberOf(value);
  if (number === undefined) throw new Error(`"${operator}" stands before ${typeName(value)}`);
  const result = operator === '-' ? -number : number;
  return value instanceof Float ? new Float(result) : result + 0;
}

function entriesOf(value: Value): [Value, Value][] {
  if (value instanceof Dict) return [...value.map];
  return iterate(value).map((pair) => {
    const [key, item, ...rest] = iterate(pair);
    if (key === undefined || item === undefined || rest.length > 0)
      throw new Error('a dict is made of pairs');
    return [key, item];
  });
}

function namespaceEntries(args: Value[], named: ReadonlyMap<string, Value>): [string, Value][] {
  const entries = [
    ...args.flatMap(entriesOf).map(([key, value]): [string, Value] => [text(key), value]),
    ...named,
  ];
  const hidden = entries.find(([name]) => name.startsWith('_'));
  if (hidden !== undefined) throw new Error(`the attribute ${hidden[0]} is not for templates`);
  return entries;
}

function loopAt(items: readonly Value[], i: number, changed: Value[]): Fields {
  const count = items.length;
  const neighbour = (at: number) => present(items[at], new Undefined('there is no such item of the loop'));
  return new Fields('loop', [
    ['index', i + 1],
    ['index0', i],
    ['revindex', count - i],
    ['revindex0', count - i - 1],
    ['first', i === 0],
    ['last', i === count - 1],
    ['length', count],
    ['depth', 1],
    ['depth0', 0],
    ['previtem', neighbour(i - 1)],
    ['nextitem', neighbour(i + 1)],
    ['cycle', new Callable((args) => present(args[i % args.length], new Undefined('a cycle of nothing')))],
    [
      'changed',
      new Callable((args) => {
        const value = new List(args, 'tuple');
        const before = changed.at(-1);
        changed.push(value);
        return before === undefined || !same(before, value);
      }),
    ],
  ]);
}
