/** A template's text in tokens, with trim_blocks and lstrip_blocks as transformers sets Jinja up. */

export type TokenKind = 'data' | 'begin' | 'end' | 'name' | 'text' | 'int' | 'float' | 'operator';

export interface Token {
  kind: TokenKind;
  /** Of `begin` and `end`: block or variable. */
  value: string;
}

const OPERATORS = /\/\/|\*\*|[=!<>]=|[-+/*%~[\](){}<>=.:|,;]/y;
const NAME = /[\p{L}_][\p{L}\p{N}_]*/uy;
const FLOAT = /(?<![.\d])\d[\d_]*(?:\.\d[\d_]*(?:e[+-]?\d+)?|e[+-]?\d+)/iy;
const INT = /0[xob][\da-f_]+|\d[\d_]*/iy;
const TEXT = /'(?:[^'\\]|\\[\s\S])*'|"(?:[^"\\]|\\[\s\S])*"/y;
const SPACE = /\s+/y;
const CLOSERS: Record<string, string> = { ')': '(', ']': '[', '}': '{' };

export function tokenize(source: string): Token[] {
  return new Lexer(source).tokens();
}

class Lexer {
  readonly #source: string;
  readonly #tokens: Token[] = [];
  #at = 0;
  /** What is written so far ends a line. */
  #lineStarts = true;

  constructor(source: string) {
    // A last line break is the editor's.
    this.#source = source.replace(/\r\n?/g, '\n').replace(/\n$/, '');
  }

  tokens(): Token[] {
    while (this.#at < this.#source.length) this.#next();
    return this.#tokens;
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const [found] = pattern.exec(this.#source) ?? [];
    if (found !== undefined) this.#at += found.length;
    return found;
  }

  #next(): void {
    const rest = /\{[%{#][-+]?/g;
    rest.lastIndex = this.#at;
    const found = rest.exec(this.#source);
    const open = found?.[0] ?? '';
    const start = found?.index ?? this.#source.length;
    this.#data(this.#source.slice(this.#at, start), open);
    this.#at = start + open.length;
    if (open.startsWith('{#')) this.#comment();
    else if (open.startsWith('{%') && this.#match(/\s*raw\s*(?:-%\}\s*|%\})/y) !== undefined) this.#raw();
    else if (open !== '') this.#tag(open.startsWith('{%') ? 'block' : 'variable');
  }

  /** Text before a tag, without the white space that the tag takes. */
  #data(data: string, open: string): void {
    let text = data;
    if (open.endsWith('-')) text = data.trimEnd();
    else if (!open.endsWith('+') && (open.startsWith('{%') || open.startsWith('{#'))) {
      const line = data.lastIndexOf('\n') + 1;
      const blank = /^\s+$/.test(data.slice(line));
      if (blank && (line > 0 || this.#lineStarts)) text = data.slice(0, line);
    }
    if (text !== '') this.#tokens.push({ kind: 'data', value: text });
    if (data !== '') this.#lineStarts = data.endsWith('\n');
  }

  #comment(): void {
    const found = this.#match(/[\s\S]*?(?:\+#\}|-#\}\s*|#\}\n?)/y);
    if (found === undefined) throw new Error('a comment has no end');
    this.#lineStarts = found.endsWith('\n');
  }

  #raw(): void {
    this.#lineStarts = this.#source[this.#at - 1] === '\n';
    const end = /\{%([-+]?)\s*endraw\s*(?:\+%\}|-%\}\s*|%\}\n?)/g;
    end.lastIndex = this.#at;
    const found = end.exec(this.#source);
    if (found === null) throw new Error('a raw block has no end');
    this.#data(this.#source.slice(this.#at, found.index), `{%${found[1]}`);
    this.#at = found.index + found[0].length;
    this.#lineStarts = found[0].endsWith('\n');
  }

  #tag(kind: 'block' | 'variable'): void {
    const close = kind === 'block' ? /\+%\}|-%\}\s*|%\}\n?/y : /-\}\}\s*|\}\}/y;
    const open: string[] = [];
    this.#tokens.push({ kind: 'begin', value: kind });
    while (this.#at < this.#source.length) {
      const end = open.length === 0 ? this.#match(close) : undefined;
      if (end !== undefined) {
        this.#tokens.push({ kind: 'end', value: kind });
        this.#lineStarts = end.endsWith('\n');
        return;
      }
      if (this.#match(SPACE) === undefined) this.#inside(open);
    }
    throw new Error(`a ${kind} has no end`);
  }

  #inside(open: string[]): void {
    const take = (kind: TokenKind, pattern: RegExp): string | undefined => {
      const value = this.#match(pattern);
      if (value !== undefined) this.#tokens.push({ kind, value });
      return value;
    };
    if (take('float', FLOAT) ?? take('int', INT) ?? take('name', NAME)) return;
    const quoted = this.#match(TEXT);
    if (quoted !== undefined) {
      this.#tokens.push({ kind: 'text', value: unescaped(quoted.slice(1, -1)) });
      return;
    }
    const operator = take('operator', OPERATORS);
    if (operator === undefined) throw new Error(`${JSON.stringify(this.#source[this.#at])} is unexpected`);
    if ('([{'.includes(operator)) open.push(operator);
    const opener = CLOSERS[operator];
    if (opener !== undefined && open.pop() !== opener) throw new Error(`"${operator}" is unexpected`);
  }
}

const SIMPLE: Record<string, string> = {
  n: '\n',
  t: '\t',
  r: '\r',
  b: '\b',
  f: '\f',
  v: '\v',
  a: '\x07',
  '\\': '\\',
  "'": "'",
  '"': '"',
  '\n': '',
};

function unescaped(text: string): string {
  return text.replace(
    /\\(?:x([\da-f]{2})|u([\da-f]{4})|U([\da-f]{8})|([0-7]{1,3})|([\s\S]))/gi,
    (whole, two, four, eight, octal, simple) => {
      if (octal !== undefined) return String.fromCodePoint(Number.parseInt(octal, 8));
      const hex = two ?? four ?? eight;
      if (hex !== undefined) return String.fromCodePoint(Number.parseInt(hex, 16));
      return SIMPLE[simple] ?? whole;
    },
  );
}
