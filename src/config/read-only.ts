/** What users' code sees of the program's records. Whoever overwrites one would change what is trained on, graded or written. */
import { types } from 'node:util';

type Copies = Map<unknown, unknown>;

/**
 * A frozen copy, however deep. Typed arrays cannot be frozen: they are copied. What is neither a plain object nor a list
 * (a user's own instances and functions) stays what it is. `copies`: made before of the same objects; takes the new ones.
 */
export function readOnly<T>(value: T, copies: Copies = new Map()): T {
  const begun: [from: object, to: object][] = [];
  const copyOf = (from: unknown): unknown => {
    if (typeof from !== 'object' || from === null) return from;
    if (copies.has(from)) return copies.get(from);
    const to = emptyLike(from);
    copies.set(from, to);
    if (to !== from && !types.isTypedArray(to)) begun.push([from, to]);
    return to;
  };
  const copy = copyOf(value);
  // Grows as it is gone through: nesting has no limit.
  for (const [from, to] of begun) {
    for (const [key, inner] of Object.entries(from)) {
      // Not assigned: "__proto__" is a key like any other.
      Object.defineProperty(to, key, { value: copyOf(inner), enumerable: true });
    }
    Object.freeze(to);
  }
  return copy as T;
}

function emptyLike(value: object): object {
  if (Array.isArray(value)) return new Array(value.length);
  // The numbers in view, not all of a buffer that others share.
  if (types.isTypedArray(value)) return Uint8Array.prototype.slice.call(value);
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null ? Object.create(prototype) : value;
}
