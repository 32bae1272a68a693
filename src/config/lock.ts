/**
 * One process at a time in a folder. Each process that wants it puts a file of its own there, then looks for others:
 * whoever comes second sees the first, whatever the order of their steps, so that no two ever hold the folder. A
 * process that was killed leaves its file behind. On its own host that file counts only while the process lives. Another
 * host, which shares the file system, cannot ask for the process: it counts for as long as the file is written anew, which
 * whoever has the folder does all the time.
 */
import {
  closeSync,
  existsSync,
  fstatSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { z } from 'zod';
import { TroupeError } from './errors.js';
import { onFile } from './files.js';
import { printable } from './thrown.js';

/** Milliseconds after which whoever has a folder gives another sign of life. */
const SIGN = 5000;
/** Milliseconds without a sign after which a process of another host counts for nothing. */
export const SILENCE = 120_000;

const holderSchema = z.object({
  host: z.string(),
  pid: z.int().positive(),
  /** Start time of the process, in the kernel's ticks since boot: process numbers are used again. */
  started: z.string().nullable(),
  /** false: it has still to look whether another process has the folder. */
  holds: z.boolean(),
});
type Holder = z.output<typeof holderSchema>;

/** Files of the lock in a folder. */
export const LOCK_FILE = /^lock-.*\.json$/;

/** Milliseconds for which two processes that want a folder at the same time try again. */
const PATIENCE = 2000;
/** Milliseconds between two looks of one that waits. */
const PAUSE = 200;

/**
 * Folders that this process has, and what gives its signs of life: a program may start two runs, and its own file says
 * nothing to it. Exported for tests that kill a run without its process.
 */
export const HELD = new Map<string, NodeJS.Timeout>();

/** Who has a folder. */
export interface TakenBy {
  /** For a message: "process 12", or "process 12 of the host b". */
  process: string;
  /** Of another host: when it gave its last sign of life, by the file system's clock, in milliseconds. */
  sign?: number;
}

/** A file of the lock and when it was written, in milliseconds by the file system's clock. */
interface Found extends Holder {
  written: number;
}

/** Takes the lock of a folder and returns what frees it, or the process that has it, which may be this one. */
export function takeLock(folder: string): (() => void) | TakenBy {
  const me = thisProcess();
  const place = onFile(folder, () => realpathSync(folder));
  if (HELD.has(place)) return takenBy({ ...me, holds: true, written: 0 });
  // Processes of two hosts may have the same number.
  const path = join(folder, `lock-${encodeURIComponent(me.host)}-${me.pid}-${me.started}.json`);
  for (const end = Date.now() + PATIENCE; ; ) {
    write(path, { ...me, holds: false });
    // By the same clock as the others' files.
    const others = liveHolders(folder, found(path)?.written ?? Date.now());
    if (others.length === 0) break;
    rmSync(path, { force: true });
    const holder = others.find(({ holds }) => holds) ?? (Date.now() > end ? others[0] : undefined);
    if (holder !== undefined) return takenBy(holder);
    sleep(5 + Math.random() * 50);
  }
  write(path, { ...me, holds: true });
  removeDead(folder, path);
  const signs = setInterval(() => {
    if (giveSign(path, { ...me, holds: true })) return;
    clearInterval(signs);
    HELD.delete(place);
    // Of a run it ends the run, as whatever nobody catches does: nothing is saved.
    throw new TroupeError('is gone, and with it the right to write there: another process may do so.', {
      where: path,
      hint: 'A process of another host takes over where none has been heard of for two minutes.',
    });
  }, SIGN).unref();
  HELD.set(place, signs);
  return () => {
    clearInterval(signs);
    HELD.delete(place);
    rmSync(path, { force: true });
  };
}

/**
 * Writes the file anew, in its place: another that reads it meanwhile finds the same, and one that was removed does not come
 * back. False: it is gone, by a person or by a process of another host that waited for a sign in vain. Whatever else is wrong
 * with the file system may pass.
 */
function giveSign(path: string, holder: Holder): boolean {
  try {
    writeFileSync(path, JSON.stringify(holder), { flag: 'r+' });
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ENOENT';
  }
}

/** Whether this process has the folder. */
export function holdsLock(folder: string): boolean {
  return existsSync(folder) && HELD.has(realpathSync(folder));
}

/** Runs `action` with the lock of a folder; `onWait` is told once of a process that has it, which is waited for. */
export async function withLock<T>(
  folder: string,
  onWait: (taken: TakenBy) => void,
  action: () => Promise<T>,
): Promise<T> {
  let free = takeLock(folder);
  if (typeof free === 'object') onWait(free);
  while (typeof free === 'object') {
    await setTimeout(PAUSE);
    free = takeLock(folder);
  }
  try {
    return await action();
  } finally {
    free();
  }
}

/** Whether another process has the folder: one of this host that lives, or one of another host that gives signs of it. */
export function isInUse(folder: string): boolean {
  try {
    return liveHolders(folder, Date.now()).some(({ holds }) => holds);
  } catch {
    return true; // by whoever has the file that cannot be read
  }
}

/** The file is there with its whole content, or not at all: where it cannot be written, an earlier one of this process is removed. */
function write(path: string, holder: Holder): void {
  const partial = `${path}.partial`;
  onFile(path, () => {
    try {
      writeFileSync(partial, JSON.stringify(holder));
      renameSync(partial, path);
    } catch (error) {
      for (const left of [partial, path]) rmSync(left, { force: true });
      throw error;
    }
  });
}

function lockFiles(folder: string): string[] {
  try {
    return readdirSync(folder).filter((name) => LOCK_FILE.test(name));
  } catch {
    return [];
  }
}

/** `now`: by the file system's clock. */
function liveHolders(folder: string, now: number): Found[] {
  return lockFiles(folder).flatMap((name) => {
    const holder = found(join(folder, name));
    return holder !== undefined && isAlive(holder, now) ? [holder] : [];
  });
}

function takenBy({ host, pid, written }: Found): TakenBy {
  if (host === hostname()) return { process: `process ${pid}` };
  return { process: `process ${pid} of the host ${printable(host)}`, sign: written };
}

/** Of processes that are gone; a live one that gives up removes its own. */
function removeDead(folder: string, own: string): void {
  const now = found(own)?.written ?? Date.now();
  for (const name of lockFiles(folder)) {
    const path = join(folder, name);
    const holder = found(path);
    if (path !== own && (holder === undefined || !isAlive(holder, now))) rmSync(path, { force: true });
  }
}

/**
 * Opened anew each time: what a file system of several hosts keeps of a file is asked for again then. Throws a TroupeError where
 * the file is there and cannot be read, which is no sign that nobody has the folder.
 */
function found(path: string): Found | undefined {
  let file: number | undefined;
  try {
    file = openSync(path, 'r');
    const holder = holderSchema.parse(JSON.parse(readFileSync(file, 'utf8')));
    return { ...holder, written: fstatSync(file).mtimeMs };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // Gone since it was listed, or not written by takeLock.
    if (code === 'ENOENT' || code === 'EISDIR' || code === undefined) return undefined;
    return onFile(path, () => {
      throw error;
    });
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

function thisProcess(): Omit<Holder, 'holds'> {
  return { host: hostname(), pid: process.pid, started: startOf(process.pid) };
}

/** A process of another host cannot be asked. */
function isAlive(holder: Found, now: number): boolean {
  if (holder.host !== hostname()) return now - holder.written < SILENCE;
  if (holder.pid === process.pid) return false;
  try {
    process.kill(holder.pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
  return holder.started === startOf(holder.pid);
}

/** Field 22 of /proc/PID/stat; null where there is no /proc. */
function startOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? null;
  } catch {
    return null;
  }
}

function sleep(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}
