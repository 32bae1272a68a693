/** The text of tokens that come one after another, without decoding all of them again for each. */

export class GrowingText {
  readonly #decode: (ids: Int32Array) => string;
  readonly #ids: number[] = [];
  #text = '';
  /** The text up to `#from` is behind; that of tokens from `#from` to `#until` is in it too, and shows how the next join. */
  #from = 0;
  #until = 0;

  constructor(decode: (ids: Int32Array) => string) {
    this.#decode = decode;
  }

  get ids(): readonly number[] {
    return this.#ids;
  }

  /** All text so far; what ends within a character waits for its rest. */
  add(ids: Iterable<number>): string {
    this.#ids.push(...ids);
    const known = this.#of(this.#from, this.#until);
    const grown = this.#of(this.#from, this.#ids.length);
    if (grown.length > known.length && !grown.endsWith('\ufffd')) {
      this.#text += grown.slice(known.length);
      this.#from = this.#until;
      this.#until = this.#ids.length;
    }
    return this.#text;
  }

  /** The text of all tokens, decoded at once. */
  whole(): string {
    return this.#of(0, this.#ids.length);
  }

  #of(from: number, until: number): string {
    return this.#decode(Int32Array.from(this.#ids.slice(from, until)));
  }
}
