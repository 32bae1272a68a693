/** YAML that somebody else wrote: its value and where its keys stand, or what is wrong with it in a sentence. */
import { type Document, LineCounter, parseDocument } from 'yaml';
import { reasonOf, TroupeError } from './errors.js';
import { nestsTooDeeply } from './json.js';

export interface Yaml {
  value: unknown;
  contents: Document['contents'];
  /** Line of a place in the text, from 1. */
  lineOf(offset: number): number;
}

/** `where` names the text in errors. Throws a TroupeError, also for aliases that hold themselves or multiply. */
export function yamlOf(text: string, where: string): Yaml {
  const lines = new LineCounter();
  const document = attempt(() => parseDocument(text, { lineCounter: lines, prettyErrors: false }), where);
  const [error] = document.errors;
  if (error !== undefined) {
    const line = lines.linePos(error.pos[0]).line;
    throw new TroupeError(`not YAML: ${yamlReason(error)}.`, { where: `${where}:${line}`, cause: error });
  }
  const value: unknown = attempt(() => document.toJS(), where);
  if (nestsTooDeeply(value)) throw new TroupeError('nests too deeply, or holds itself.', { where });
  return { value, contents: document.contents, lineOf: (offset) => lines.linePos(offset).line };
}

function attempt<T>(read: () => T, where: string): T {
  try {
    return read();
  } catch (cause) {
    throw new TroupeError(`not YAML: ${yamlReason(cause)}.`, { where, cause });
  }
}

/** A parser that goes down by recursion says of too many brackets that its stack is full. */
function yamlReason(error: unknown): string {
  const reason = reasonOf(error);
  return error instanceof RangeError || /call stack/.test(reason) ? 'it nests too deeply' : reason;
}
