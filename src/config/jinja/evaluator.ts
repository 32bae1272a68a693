/** The values of a template's expressions, within bounds: a template that loops or multiplies ends in an error. */
import { applyFilter } from './filters.js';
import { escapesOther, isEscaped, isMarkup } from './markup.js';
import { arithmetic, comparison } from './operators.js';
import type { Arguments, Expression, Filtering } from './syntax.js';
import { applyTest } from './tests.js';
import { attribute, item, slice } from './value-methods.js';
import {
  Callable,
  Dict,
  extentOf,
  Float,
  iterate,
  List,
  numberOf,
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
/** What all that is printed, compared, filtered and handed over may be together, in the unit of `extentOf`. */
const MOST_READ = 2 ** 30;

/** What one rendering has used of them. */
export class Budget {
  #steps = 0;
  #characters = 0;
  #elements = 0;
  #read = 0;

  step(): void {
    if (++this.#steps > MOST_STEPS) throw new Error(`it takes more than ${MOST_STEPS} steps`);
  }

  /** A value that was made; throws an Error where all of them are more than a rendering may have. */
  counted(value: Value): Value {
    if (typeof value === 'string') this.#characters += value.length;
    else if (value instanceof List) this.#elements += value.items.length;
    else if (value instanceof Dict) this.#elements += value.map.size;
    if (this.#characters > MOST_CHARACTERS || this.#elements > MOST_ELEMENTS) {
      throw new Error('it makes texts or lists without end');
    }
    return value;
  }

  /** A value that is walked through as a whole. */
  read(value: Value): Value {
    this.#read += extentOf(value);
    if (this.#read > MOST_READ) throw new Error('it makes texts or lists without end');
    return value;
  }
}

/** Names and their values, in the ones around it. */
export class Scope {
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

export class Evaluator {
  readonly #budget: Budget;

  constructor(budget: Budget) {
    this.#budget = budget;
  }

  value(expression: Expression, scope: Scope): Value {
    this.#budget.step();
    return this.#budget.counted(this.#evaluated(expression, scope));
  }

  /** The same where it is printed, compared, filtered or handed over. */
  whole(expression: Expression, scope: Scope): Value {
    return this.#budget.read(this.value(expression, scope));
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
          expression.items.map((one) => this.value(one, scope)),
          expression.kind,
        );
      case 'dict':
        return new Dict(
          expression.entries.map(
            ([key, value]) => [this.value(key, scope), this.value(value, scope)] as const,
          ),
        );
      case 'attribute':
        return attribute(this.value(expression.of, scope), expression.name);
      case 'item':
        return item(this.value(expression.of, scope), this.value(expression.at, scope));
      case 'slice': {
        const of = this.value(expression.of, scope);
        const [from, to, step] = [expression.from, expression.to, expression.step].map(
          (one) => one && this.value(one, scope),
        );
        return slice(of, from, to, step);
      }
      case 'call': {
        const { positional, named } = this.arguments(expression.args, scope);
        return called(this.value(expression.of, scope), positional, named);
      }
      case 'filter': {
        const of = this.whole(expression.of, scope);
        if (isEscaped(expression)) return text(of);
        const { positional, named } = this.arguments(expression.args, scope);
        return applyFilter(expression.name, of, positional, named);
      }
      case 'test': {
        const of = this.whole(expression.of, scope);
        if (expression.name === 'escaped') return isMarkup(expression.of);
        return applyTest(expression.name, of, this.arguments(expression.args, scope).positional);
      }
      case 'unary':
        return unary(expression.operator, this.value(expression.of, scope));
      case 'binary':
        return this.#binary(expression, scope);
      case 'compare':
        return this.#compared(expression, scope);
      case 'choice': {
        const chosen = truth(this.value(expression.condition, scope))
          ? expression.chosen
          : expression.otherwise;
        return chosen === undefined ? new Undefined('the other case of an if') : this.value(chosen, scope);
      }
    }
  }

  #binary(expression: Extract<Expression, { kind: 'binary' }>, scope: Scope): Value {
    const left = this.whole(expression.left, scope);
    if (expression.operator === 'and') return truth(left) ? this.value(expression.right, scope) : left;
    if (expression.operator === 'or') return truth(left) ? left : this.value(expression.right, scope);
    const right = this.whole(expression.right, scope);
    if (!escapesOther(expression)) return arithmetic(expression.operator, left, right);
    const [one, other] = [[expression.left, left] as const, [expression.right, right] as const].map(
      ([part, value]) => (isMarkup(part) ? value : applyFilter('e', value, [], new Map())),
    );
    return arithmetic('+', one as Value, other as Value);
  }

  #compared(expression: Extract<Expression, { kind: 'compare' }>, scope: Scope): boolean {
    let left = this.whole(expression.first, scope);
    for (const [operator, operand] of expression.rest) {
      const right = this.whole(operand, scope);
      if (!comparison(operator, left, right)) return false;
      left = right;
    }
    return true;
  }

  arguments(args: Arguments, scope: Scope): { positional: Value[]; named: Map<string, Value> } {
    const positional = args.positional.map((one) => this.whole(one, scope));
    for (const one of args.spread) positional.push(...iterate(this.value(one, scope)));
    const named = new Map(args.named.map(([name, one]) => [name, this.whole(one, scope)] as const));
    for (const one of args.namedSpread) {
      const more = this.value(one, scope);
      if (!(more instanceof Dict)) throw new Error(`${typeName(more)} gives no named arguments`);
      for (const [name, value] of more.map) named.set(String(name), value);
    }
    return { positional, named };
  }

  filtered(filters: Filtering, value: Value, scope: Scope): Value {
    return filters.reduce((result, { name, args }) => {
      const { positional, named } = this.arguments(args, scope);
      return applyFilter(name, result, positional, named);
    }, value);
  }
}

/** What a macro, a method or a function of the caller's gives back. */
export function called(of: Value, args: Value[], named: ReadonlyMap<string, Value>): Value {
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
