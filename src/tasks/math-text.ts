/**
 * Text forms of mathematical answers: the normal form in which answers of the MATH data set are compared
 * (after Hendrycks et al. 2021, https://github.com/hendrycks/math, math_equivalence.py), names, units, and the
 * parts of tuples, intervals, sets and lists.
 */

/** TeX that changes the look of an answer, not its meaning. */
function withoutLook(text: string): string {
  return text
    .replace(/\\(?:left|right|displaystyle|bigl?|bigr|Bigl?|Bigr)(?![a-zA-Z])/g, '')
    .replace(/\\[!,;:> ]|~/g, (space) => (space === '\\!' ? '' : ' '))
    .replace(/\\[dt]frac(?![a-zA-Z])/g, '\\frac')
    .replace(/\^ *(?:\{ *\\circ *\}|\\circ)(?![a-zA-Z])|°/g, '')
    .replace(/\\?\$/g, '')
    .replace(/\\(?:mathrm|mathbf|textbf|textit|textrm|mbox|text)(?![a-zA-Z])/g, '\\text');
}

function unwrapped(text: string): string {
  return text.replace(/\\text *\{([^{}]*)\}/g, ' $1 ');
}

/** Answers that mean the same mostly have the same normal text. */
export function normalText(answer: string): string {
  return unwrapped(
    withoutName(withoutLook(answer).replace(/ *\\text *\{[^{}]*\}(?:\^\{?\d\}?)?$/, unitsOnly)),
  )
    .replace(/\\?%/g, '')
    .replace(/\\le(?![a-zA-Z])/g, '\\leq')
    .replace(/\\ge(?![a-zA-Z])/g, '\\geq')
    .replace(/\\ne(?![a-zA-Z])/g, '\\neq')
    .replace(/\\(?:cdot|times)(?![a-zA-Z])|[·×]/g, '*')
    .replace(/−/g, '-')
    .replace(/\s+/g, '')
    .replace(/\\frac(\w)(\w)/g, '\\frac{$1}{$2}')
    .replace(/\\frac(\w)\{/g, '\\frac{$1}{')
    .replace(/(\\frac\{[^{}]*\})(\w)/g, '$1{$2}')
    .replace(/\\sqrt(\d)/g, '\\sqrt{$1}')
    .replace(/^(-?\d+)\/(\d+)$/, '\\frac{$1}{$2}')
    .replace(/(^|[^\d.])\./g, (_, before: string) => `${before}0.`)
    .replace(/^\((\w)\)$/, '$1')
    .replace(/\.0*$/, '')
    .toLowerCase();
}

/** A \text{} at the end goes if something stands before it: "20\text{ miles}", but not "\text{Friday}". */
function unitsOnly(found: string, at: number): string {
  return at === 0 ? found : '';
}

/** Without "x =", "f(x) =" or "x \in" before the answer. */
export function withoutName(answer: string): string {
  return answer.replace(
    /^\s*[a-zA-Z](?:_\{?\w{1,8}\}?)? *(?:\([a-zA-Z]\))? *(?:=|\\in(?![a-zA-Z]))(?!=)/,
    '',
  );
}

/** Without currency signs and units: \text{…}, and words of two letters or more behind a space. */
export function withoutUnits(answer: string): string {
  const plain = unwrapped(withoutLook(answer).replace(/[€£¥]/g, '')).trim().replace(/\.$/, '');
  const words = plain.split(' ');
  while (words.length > 1 && /^(?:[a-zA-Z]{2,}(?:\^\{?\d\}?)?[.,]?|)$/.test(words.at(-1) ?? '')) words.pop();
  return words.join(' ').replace(/\.$/, '');
}

export interface ListParts {
  /** "(", "[", "\{" and what closes them; "" for a list without brackets, "\cup" for a union. */
  open: string;
  close: string;
  parts: string[];
}

/** The parts of a tuple, interval, set, list or union; undefined if the answer has only one part. */
export function listParts(answer: string): ListParts | undefined {
  const text = unwrapped(withoutName(withoutLook(answer)))
    .replace(/,? +(?:and|or) +/g, ',')
    .trim();
  const union = splitOutside(text, '\\cup');
  if (union.length > 1) return { open: '\\cup', close: '', parts: union };
  const [, open = '', inside = '', close = ''] = /^(\\\{|\(|\[)(.*?)(\\\}|\)|\])$/s.exec(text) ?? [];
  if (open !== '' && closesLast(text, open.length)) {
    const parts = splitOutside(inside, ',');
    if (parts.length > 1 || open === '\\{') return { open, close, parts };
  }
  const parts = splitOutside(text, ',');
  return parts.length > 1 ? { open: '', close: '', parts } : undefined;
}

/** Whether the bracket at the start is closed at the very end and not before. */
function closesLast(text: string, from: number): boolean {
  let depth = 1;
  for (let i = from; i < text.length; i++) {
    depth += nesting(text, i);
    if (depth === 0) return i === text.length - 1;
  }
  return false;
}

function nesting(text: string, at: number): number {
  const letter = text[at] ?? '';
  return '([{'.includes(letter) ? 1 : ')]}'.includes(letter) ? -1 : 0;
}

/** Splits where no bracket is open. */
function splitOutside(text: string, separator: string): string[] {
  const parts: string[] = [];
  let depth = 0;
  let start = 0;
  for (let i = 0; i < text.length; i++) {
    depth += nesting(text, i);
    if (depth === 0 && text.startsWith(separator, i)) {
      parts.push(text.slice(start, i));
      start = i + separator.length;
    }
  }
  parts.push(text.slice(start));
  return parts.map((part) => part.trim());
}
