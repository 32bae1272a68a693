/** Marks put into a text, so that places of it are found again in what is made of it. */

/** A character that no text needs and no normalizer changes, more often in a row than any text has it. */
const MARK = '\uFDD0';

export function markFor(texts: Iterable<string>): string {
  let longest = 0;
  for (const text of texts) {
    for (const [run] of text.matchAll(/\uFDD0+/g)) longest = Math.max(longest, run.length);
  }
  return MARK.repeat(longest + 1);
}

/** `text` with the mark before each of `places`. */
export function marked(text: string, places: Iterable<number>, mark: string): string {
  let result = '';
  let last = 0;
  for (const place of [...places].sort((a, b) => a - b)) {
    result += text.slice(last, place) + mark;
    last = place;
  }
  return result + text.slice(last);
}

/** The text without marks, and the places where they stood. */
export function unmarked(text: string, mark: string): { text: string; places: Set<number> } {
  const places = new Set<number>();
  let plain = '';
  let last = 0;
  // The last of a run: a text's own characters may stand before the mark.
  for (const { index } of text.matchAll(new RegExp(`${mark}(?!${mark.slice(-1)})`, 'gu'))) {
    plain += text.slice(last, index);
    places.add(plain.length);
    last = index + mark.length;
  }
  return { text: plain + text.slice(last), places };
}
