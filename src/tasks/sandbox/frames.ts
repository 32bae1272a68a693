/**
 * What comes out of a sandbox, read: the only place where its bytes become values. A program may write anything
 * into its channel, so everything here is checked for its type, and nothing throws.
 */

/** JSON as it crosses the channel. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type Frame = { [key: string]: Json };

/** An exception of the program, its classes by name, the nearest first. */
export interface RaisedError {
  type: string;
  message: string;
  bases: string[];
  args?: Json;
  /** What else its object holds, by name. */
  fields?: Json;
}

/** An answer of the harness. */
export type Reply =
  | { kind: 'ready' }
  | { kind: 'loaded' }
  /** A result, and what became of the arguments: [index, value] each. */
  | { kind: 'value'; value: Json; changed?: Json[] }
  | { kind: 'error'; error: RaisedError }
  /** A program that ran: its output and exit status. */
  | { kind: 'output'; stdout: string; status: number }
  /** The program asks the judge to do something with an object of the test's. */
  | { kind: 'callback'; callback: Frame }
  /** The judge asks the program. */
  | { kind: 'ask'; ask: Frame }
  /** The judge's answer to a callback. */
  | { kind: 'returned'; returned: Frame }
  | { kind: 'verdict'; verdict: string };

/** Levels of JSON in a frame; Python and JavaScript nest safely so far. */
export const MOST_LEVELS = 600;

/** The reply in a line; undefined if it is none. Never throws. */
export function parseReply(line: string): Reply | undefined {
  try {
    const frame = asFrame(JSON.parse(line));
    return frame === undefined || !isWithin(frame, MOST_LEVELS) ? undefined : asReply(frame);
  } catch {
    return undefined;
  }
}

function asReply(frame: Frame): Reply | undefined {
  const has = (key: string) => Object.hasOwn(frame, key);
  if (has('verdict')) {
    return typeof frame.verdict === 'string' ? { kind: 'verdict', verdict: frame.verdict } : undefined;
  }
  if (has('error')) return asError(frame.error);
  if (has('value')) {
    const { value = null, changed } = frame;
    if (changed === undefined) return { kind: 'value', value };
    return Array.isArray(changed) ? { kind: 'value', value, changed } : undefined;
  }
  if (has('stdout')) {
    const { stdout, status } = frame;
    return typeof stdout === 'string' && typeof status === 'number'
      ? { kind: 'output', stdout, status }
      : undefined;
  }
  for (const key of ['callback', 'ask', 'returned'] as const) {
    const content = asFrame(frame[key]);
    if (content !== undefined) return { kind: key, [key]: content } as Reply;
  }
  if (frame.ready === true) return { kind: 'ready' };
  return frame.loaded === true ? { kind: 'loaded' } : undefined;
}

function asError(value: Json | undefined): Reply | undefined {
  const { type, message, bases, args, fields } = asFrame(value) ?? {};
  if (typeof type !== 'string' || typeof message !== 'string' || !Array.isArray(bases)) return undefined;
  if (!bases.every((base) => typeof base === 'string')) return undefined;
  const more = { ...(args === undefined ? {} : { args }), ...(fields === undefined ? {} : { fields }) };
  return { kind: 'error', error: { type, message, bases, ...more } };
}

function asFrame(value: unknown): Frame | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Frame) : undefined;
}

function isWithin(value: Json, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return true;
  if (levels === 0) return false;
  return Object.values(value).every((item) => isWithin(item, levels - 1));
}
