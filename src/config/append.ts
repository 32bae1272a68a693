/** Puts `more` behind `all`. A spread would hand them over as arguments, of which a call has room for some 100,000. */
export function append<T>(all: T[], more: Iterable<T>): void {
  for (const one of more) all.push(one);
}
