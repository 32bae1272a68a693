/** JSON that somebody else wrote: what it cannot be, said in a sentence. */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { reasonOf, TroupeError } from './errors.js';
import { readError } from './files.js';

/** Levels that no file of a person's has; schemas and printing go down by recursion. */
const DEEPEST = 200;

/** Whether lists and objects lie in each other deeper than anybody needs, or hold themselves. */
export function nestsTooDeeply(value: unknown, levels = DEEPEST): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return levels === 0 || Object.values(value).some((item) => nestsTooDeeply(item, levels - 1));
}

/** `where` names the text in errors. Throws a TroupeError if it is no JSON or nests too deeply. */
export function jsonOf(text: string, where: string): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new TroupeError(`is no JSON: ${reasonOf(cause)}.`, { where, cause });
  }
  if (nestsTooDeeply(value)) throw new TroupeError(`nests more than ${DEEPEST} levels.`, { where });
  return value;
}

/** The same of a file. `hint`: what to do if there is none. */
export function readJson(file: string, hint?: string): unknown {
  if (!existsSync(file)) {
    throw new TroupeError('no such file.', { where: file, ...(hint === undefined ? {} : { hint }) });
  }
  return jsonOf(readText(file), file);
}

const utf8 = new TextDecoder('utf-8', { fatal: true });

/** A file's text, without a byte-order mark. Throws a TroupeError if it cannot be read, or is not UTF-8. */
export function readText(file: string): string {
  try {
    const stat = statSync(file);
    // /dev/zero has no end; a pipe from another program has.
    if (stat.isCharacterDevice() || stat.isBlockDevice()) throw new Error('it is a device');
    return utf8.decode(readFileSync(file));
  } catch (cause) {
    if (!(cause instanceof TypeError)) throw readError(cause, file);
    throw new TroupeError('cannot be read: it is not UTF-8 text; save it as UTF-8.', { where: file, cause });
  }
}
