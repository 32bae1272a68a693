/** Arguments of filters, tests and methods by their Python names. */
import { Float, type Named, typeName, type Value } from './values.js';

/** Widths, counts and positions that a template may ask for. */
export const LARGEST = 2 ** 20;

export class Bound {
  readonly #values = new Map<string, Value>();

  /** Throws for more arguments than there are names, and for others. */
  constructor(names: readonly string[], args: readonly Value[], named: Named) {
    if (args.length > names.length) throw new Error(`it takes ${names.length} arguments, not ${args.length}`);
    for (const [i, value] of args.entries()) this.#values.set(names[i] as string, value);
    for (const [name, value] of named) {
      if (!names.includes(name) || this.#values.has(name)) throw new Error(`it takes no argument "${name}"`);
      this.#values.set(name, value);
    }
  }

  value(name: string): Value | undefined {
    return this.#values.get(name);
  }

  needed(name: string): Value {
    const value = this.#values.get(name);
    if (value === undefined) throw new Error(`its argument "${name}" is missing`);
    return value;
  }

  text(name: string, fallback?: string): string {
    const value = this.#values.get(name) ?? fallback;
    if (typeof value === 'string') return value;
    throw new Error(`its argument "${name}" is ${typeName(value ?? null)}, not a str`);
  }

  whole(name: string, fallback: number): number {
    const value = this.#values.get(name) ?? fallback;
    if (typeof value === 'boolean') return Number(value);
    if (typeof value === 'number' && Math.abs(value) <= LARGEST) return value;
    throw new Error(`its argument "${name}" is ${typeName(value)}, not an int of at most ${LARGEST}`);
  }

  number(name: string, fallback: number): number {
    const value = this.#values.get(name) ?? fallback;
    return value instanceof Float ? value.value : this.whole(name, fallback);
  }
}
