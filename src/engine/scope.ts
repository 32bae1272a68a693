/**
 * Lifetimes of tensors. The garbage collector runs too late for tensors in a synchronous loop, so whoever makes
 * many of them does it in a `scope`, which frees what was made inside and not returned.
 */

interface Disposable {
  dispose(): void;
}

let current: Set<Disposable> | undefined;

/** Called by everything that makes a tensor. */
export function own(tensor: Disposable): void {
  current?.add(tensor);
}

/** Called when a tensor was disposed by hand. */
export function disown(tensor: Disposable): void {
  current?.delete(tensor);
}

/**
 * Runs `body` and frees every tensor that was made in it, except those in what it returns: a tensor, or arrays
 * and plain objects of them. Those belong to the enclosing scope, if there is one. If `body` throws, all are freed.
 *
 * @throws {TypeError} if `body` returns a promise: a scope is over when `body` returns.
 * @example const loss = scope(() => x.sub(y).mul(x.sub(y)).mean());
 */
export function scope<T>(body: () => T): T {
  const outer = current;
  const inner = new Set<Disposable>();
  current = inner;
  try {
    const result = body();
    if (result instanceof Promise) throw new TypeError('a scope must not return a promise');
    keep(result, inner, outer);
    return result;
  } finally {
    current = undefined;
    for (const tensor of inner) tensor.dispose();
    current = outer;
  }
}

/** Moves the tensors in `value` from the inner scope to the outer one. */
function keep(value: unknown, inner: Set<Disposable>, outer: Set<Disposable> | undefined): void {
  if (typeof value !== 'object' || value === null) return;
  if (inner.delete(value as Disposable)) {
    outer?.add(value as Disposable);
  } else if (Array.isArray(value)) {
    for (const element of value) keep(element, inner, outer);
  } else if (Object.getPrototypeOf(value) === Object.prototype) {
    for (const element of Object.values(value)) keep(element, inner, outer);
  }
}
