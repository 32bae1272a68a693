/** A place among the tokens of an answer, from which an expression is read. */
import type { Token } from './notation.js';

/** What is there is no expression: it is compared as text elsewhere. */
export class NotAnExpression extends Error {}

export class Cursor {
  readonly #tokens: Token[];
  /** Index of the next token. */
  at = 0;

  constructor(tokens: readonly Token[]) {
    this.#tokens = [...tokens];
  }

  get atEnd(): boolean {
    return this.at >= this.#tokens.length;
  }

  peek(offset = 0): Token | undefined {
    return this.#tokens[this.at + offset];
  }

  is(text: string, offset = 0): boolean {
    const token = this.peek(offset);
    return token?.text === text && token.kind !== 'word';
  }

  take(...texts: string[]): string | undefined {
    const found = texts.find((text) => this.is(text));
    if (found !== undefined) this.at++;
    return found;
  }

  expect(text: string): void {
    if (this.take(text) === undefined) throw new NotAnExpression();
  }

  /** The number at this place as two. */
  splice(first: string, second: string): void {
    const tokens = this.#tokens;
    const spaced = tokens[this.at]?.spaced ?? false;
    tokens.splice(
      this.at,
      1,
      { kind: 'number', text: first, spaced },
      { kind: 'number', text: second, spaced: false },
    );
  }
}
