/** Runs the statements of a template. */
import { Budget, called, Evaluator, Scope } from './evaluator.js';
import type { Parameter, Statement, Target } from './syntax.js';
import {
  Callable,
  Dict,
  Fields,
  iterate,
  List,
  present,
  same,
  text,
  truth,
  Undefined,
  type Value,
} from './values.js';

class LoopEnd extends Error {
  readonly goesOn: boolean;
  constructor(goesOn: boolean) {
    super('break and continue stand in loops only');
    this.goesOn = goesOn;
  }
}

export class Interpreter {
  readonly #global = new Scope();
  readonly #budget = new Budget();
  readonly #evaluator = new Evaluator(this.#budget);

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

  #body(body: readonly Statement[], scope: Scope): string {
    let written = '';
    for (const statement of body) {
      const part = this.#statement(statement, scope);
      if (part === '') continue;
      written += part;
      this.#budget.counted(part);
    }
    return written;
  }

  #statement(statement: Statement, scope: Scope): string {
    this.#budget.step();
    switch (statement.kind) {
      case 'data':
        return statement.text;
      case 'print':
        return text(this.#evaluator.whole(statement.value, scope));
      case 'if':
        for (const [condition, body] of statement.branches) {
          if (condition === undefined || truth(this.#evaluator.value(condition, scope)))
            return this.#body(body, scope);
        }
        return '';
      case 'for':
        return this.#for(statement, scope);
      case 'set':
        this.#assign(
          statement.targets,
          statement.unpack,
          this.#evaluator.value(statement.value, scope),
          scope,
        );
        return '';
      case 'setBlock':
        this.#put(
          statement.target,
          this.#evaluator.filtered(statement.filter, this.#body(statement.body, new Scope(scope)), scope),
          scope,
        );
        return '';
      case 'macro':
        scope.set(statement.name, this.#macro(statement.parameters, statement.body, scope));
        return '';
      case 'callBlock':
        return this.#callBlock(statement, scope);
      case 'filterBlock':
        return text(
          this.#evaluator.filtered(statement.filter, this.#body(statement.body, new Scope(scope)), scope),
        );
      case 'with': {
        const inner = new Scope(scope);
        for (const [name, value] of statement.names) inner.set(name, this.#evaluator.value(value, scope));
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
    const given = [...iterate(this.#evaluator.value(statement.of, scope))];
    const items = given.filter((one) => {
      if (statement.where === undefined) return true;
      const inner = new Scope(scope);
      this.#assign(statement.targets, statement.unpack, one, inner);
      return truth(this.#evaluator.value(statement.where, inner));
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
        this.#budget.step();
        const branch = statement.branches.find(
          ([condition]) => condition === undefined || truth(this.#evaluator.value(condition, scope)),
        );
        if (branch !== undefined) this.#write(branch[1], scope, out);
      } else {
        const part = this.#statement(statement, scope);
        out.written += part;
        this.#budget.counted(part);
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

  #macro(parameters: readonly Parameter[], body: readonly Statement[], scope: Scope): Callable {
    // A macro takes more than its parameters where its body names what they come as.
    const uses = JSON.stringify(body);
    return new Callable((args, named) => {
      const inner = new Scope(scope);
      const rest = new Map(named);
      for (const [i, [name, fallback]] of parameters.entries()) {
        const given = i < args.length ? args[i] : rest.get(name);
        if (i < args.length && rest.has(name)) throw new Error(`"${name}" is given twice`);
        rest.delete(name);
        const missing = () =>
          fallback === undefined ? new Undefined(`"${name}"`) : this.#evaluator.value(fallback, inner);
        inner.set(name, given === undefined ? missing() : given);
      }
      const caller = rest.get('caller');
      if (caller !== undefined) inner.set('caller', caller);
      rest.delete('caller');
      inner.set('varargs', new List(args.slice(parameters.length), 'tuple'));
      inner.set('kwargs', new Dict(rest));
      if (args.length > parameters.length && !uses.includes('"varargs"'))
        throw new Error(`a macro of ${parameters.length} parameters got ${args.length}`);
      if (rest.size > 0 && !uses.includes('"kwargs"'))
        throw new Error(`a macro has no parameter ${[...rest.keys()].join(', ')}`);
      return this.#body(body, inner);
    });
  }

  #callBlock({ call, parameters, body }: Extract<Statement, { kind: 'callBlock' }>, scope: Scope): string {
    if (call.kind !== 'call') throw new Error('a call block calls a macro');
    const { positional, named } = this.#evaluator.arguments(call.args, scope);
    const caller = this.#macro(parameters, body, scope);
    return text(
      called(this.#evaluator.value(call.of, scope), positional, new Map([...named, ['caller', caller]])),
    );
  }
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
