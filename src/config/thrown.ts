/** What users' code throws, and what models and data say, as one line of a message that a person can read and act on. */
import { fileURLToPath } from 'node:url';
import { inspect } from 'node:util';
import { packageRoot } from './package.js';

/** Characters of a user's message that a sentence has room for. */
const LONGEST = 1000;
/** Causes of causes that are told. */
const DEEPEST = 3;

/** A terminal obeys control characters and turns of direction: they are shown as \x1b. Line breaks and tabs stay. */
export function printable(text: string): string {
  return text.replace(/\r\n/g, '\n').replace(/(?![\n\t])[\p{Cc}\p{Bidi_Control}]/gu, (character) => {
    return `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`;
  });
}

/** A user's value in a message: one line, cut where it is long; JSON does not write every value. */
export function shownValue(value: unknown): string {
  // Its own way of being shown may throw.
  const whole = inspect(value, { depth: 1, breakLength: Number.POSITIVE_INFINITY, customInspect: false });
  // Errors in it come with their stacks, and long lists in rows all the same.
  const text = whole.replace(/\n\s+at .*?(?= \{$|,$|$)/gm, '').replace(/\s*\n\s*/g, ' ');
  return text.length > 80 ? `${text.slice(0, 77)}…` : text;
}

/**
 * What was thrown in one line: an error's message, and what it gathers or was caused by, as where `fetch failed`. Throws
 * what a user's getters throw.
 */
export function messageOf(thrown: unknown): string {
  return oneLine(told(thrown, 0));
}

/** A message of users' code as a part of a sentence: one line, cut where it is long, as where it quotes a whole response. */
export function oneLine(message: string): string {
  const text = message.trim().replace(/\s*\n\s*/g, ' ');
  return printable(text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text);
}

function told(thrown: unknown, depth: number): string {
  if (typeof thrown === 'string') return thrown;
  if (!(thrown instanceof Error)) return shownValue(thrown);
  const { message, name, code, cause, errors } = thrown as Error & { code?: unknown; errors?: unknown };
  const own = String(message || code || name);
  const inner = [
    ...(Array.isArray(errors) ? errors.slice(0, DEEPEST) : []),
    ...(cause == null ? [] : [cause]),
  ];
  const more = depth < DEEPEST ? inner.map((one) => told(one, depth + 1)) : [];
  const news = more.filter((text) => !own.includes(text));
  return news.length === 0 ? own : `${own} (${news.join('; ')})`;
}

/**
 * The frames of an error's stack without its message, which may repeat what looks like frames. Undefined: it has none, or
 * none that can be read.
 */
export function framesOf(thrown: unknown): string | undefined {
  try {
    const { stack, message } = thrown as Error;
    return typeof stack === 'string' ? stack.replace(message, '') : undefined;
  } catch {
    return undefined;
  }
}

/** Where this program's own code lies. */
export const ownFolders = () => ['src/', 'build/'].map((folder) => `${packageRoot()}/${folder}`);

/** Whether an absolute path is neither this program's nor a package's. */
export function isUsersFile(path: string): boolean {
  return !ownFolders().some((folder) => path.startsWith(folder)) && !path.includes('/node_modules/');
}

/** A frame, "at run (file:///FILE:3:5)"; of TypeScript it has a path, "at run (/FILE:3:5)". */
const FRAME = /^ {4}at (?:.*?\()?(file:\/\/\/.*?|\/.*?):(\d+):\d+\)?$/gm;

/** The innermost place of a stack that is neither this program's, nor Node's, nor a package's. */
export function blamedPlace(frames: string | undefined): { file: string; line: number } | undefined {
  for (const [, where = '', line] of (frames ?? '').matchAll(FRAME)) {
    const path = where.startsWith('file:') ? fileURLToPath(where.replace(/\?.*$/, '')) : where;
    if (isUsersFile(path)) return { file: path, line: Number(line) };
  }
  return undefined;
}
