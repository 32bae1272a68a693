/** Suggestions for misspelled names, by edit distance. */
import { TroupeError } from './errors.js';

/** Edits (insert, delete, replace, swap of neighbours) that turn `a` into `b`. */
function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      let best = Math.min(replace, (previous[j] ?? 0) + 1, (current[j - 1] ?? 0) + 1);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        best = Math.min(best, (before[j - 2] ?? 0) + 1);
      }
      current.push(best);
    }
    before = previous;
    previous = current;
  }
  return previous[b.length] ?? 0;
}

/** The name that was probably meant, or undefined if none is near. Case and separators hardly count. */
function nearest(got: string, names: readonly string[]): string | undefined {
  const plain = (name: string) => name.toLowerCase().replace(/[-_\s]/g, '');
  let best: string | undefined;
  let bestDistance = Number.POSITIVE_INFINITY;
  for (const name of names) {
    const distance = editDistance(plain(got), plain(name));
    if (distance < bestDistance) {
      best = name;
      bestDistance = distance;
    }
  }
  return bestDistance <= Math.max(1, Math.floor(got.length / 3)) ? best : undefined;
}

/** ' Did you mean "x"?' or nothing. */
export function suggestion(got: string, names: readonly string[]): string | undefined {
  const name = nearest(got, names);
  return name === undefined ? undefined : `Did you mean "${name}"?`;
}

/** Characters of a wrong name that an error repeats. */
const LONGEST = 80;

/** The error for a name that is not in a registry: says what it got, what there is, and what was meant. */
export function unknownName(
  what: string,
  got: string,
  names: readonly string[],
  where?: string,
): TroupeError {
  const short = got.length > LONGEST ? `${got.slice(0, LONGEST)}…` : got;
  const hint = suggestion(short, names);
  return new TroupeError(`no ${what} is named "${short}"; there are ${names.join(', ')}.`, {
    ...(where === undefined ? {} : { where }),
    ...(hint === undefined ? {} : { hint }),
  });
}

/** Bytes of a name at most: file systems take 255, and an ending may follow. */
const LONGEST_NAME = 200;

/** Whether a name that a user gives can be one of a file: it would lead elsewhere, or to nothing, otherwise. */
export function isFileName(name: string): boolean {
  if (name === '' || Buffer.byteLength(name) > LONGEST_NAME) return false;
  return !/[/\\\0]/.test(name) && !/^\.{1,2}$/.test(name) && name !== '__proto__';
}
