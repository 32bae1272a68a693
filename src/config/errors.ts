/** The errors that Troupe throws for people: what was wrong, where, and what to do. */

/** What an error says beside its message. */
export interface ErrorDetails {
  /** File, line, key or option that the error is about. */
  where?: string;
  /** What to do about it. */
  hint?: string;
  cause?: unknown;
}

/** What another program says went wrong, to stand inside a sentence: its first line, without its full stop. */
export function reasonOf(cause: unknown): string {
  const message = cause instanceof Error ? cause.message : String(cause);
  // It may quote a foreign file: what would move a terminal's cursor or hide text is no part of a sentence.
  const plain = (message.split('\n')[0] ?? '').replace(/[\p{Cc}\p{Bidi_Control}]+/gu, ' ');
  return plain.slice(0, 300).replace(/[\s.:]+$/, '');
}

/** An error that a user can act on. The command line prints it without a stack. */
export class TroupeError extends Error {
  override readonly name: string = 'TroupeError';
  readonly where: string | undefined;
  readonly hint: string | undefined;

  constructor(message: string, details: ErrorDetails = {}) {
    const where = details.where === undefined ? '' : `${details.where}: `;
    // A message may end in what another program said, without a full stop; the hint is a sentence of its own.
    const stop = /[.!?…]$/.test(message) ? '' : '.';
    const hint = details.hint === undefined ? '' : `${stop} ${details.hint}`;
    super(`${where}${message}${hint}`, { cause: details.cause });
    this.where = details.where;
    this.hint = details.hint;
  }
}
