/**
 * One process at a time in a folder. Each process that wants it puts a file of its own there, then looks for others:
 * whoever comes second sees the first, whatever the order of their steps, so that no two ever hold the folder. A
 * process that was killed leaves its file behind. On its own host that file counts only while the process lives; from
 * another host, which shares the file system, nobody can tell, and it counts until a person removes it.
 */
import { readdirSync, readFileSync, realpathSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { z } from 'zod';
import { onFile } from './files.js';
import { printable } from './thrown.js';

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
 * Folders that this process has: a program may start two runs, and its own file says nothing to it. Exported for tests
 * that kill a run without its process.
 */
export const HELD = new Set<string>();

/** Who has a folder, for a message. */
export interface TakenBy {
  /** "process 12", or "process 12 of the host b". */
  process: string;
  /** What to do if that has ended, where it cannot be told from here. */
  hint?: string;
}

/** Takes the lock of a folder and returns what frees it, or the process that has it, which may be this one. */
export function takeLock(folder: string): (() => void) | TakenBy {
  const me = thisProcess();
  const place = onFile(folder, () => realpathSync(folder));
  if (HELD.has(place)) return takenBy({ ...me, path: folder });
  // Processes of two hosts may have the same number.
  const path = join(folder, `lock-${encodeURIComponent(me.host)}-${me.pid}-${me.started}.json`);
  for (const end = Date.now() + PATIENCE; ; ) {
    write(path, { ...me, holds: false });
    const others = liveHolders(folder);
    if (others.length === 0) break;
    rmSync(path, { force: true });
    const holder = others.find(({ holds }) => holds) ?? (Date.now() > end ? others[0] : undefined);
    if (holder !== undefined) return takenBy(holder);
    sleep(5 + Math.random() * 50);
  }
  write(path, { ...me, holds: true });
  removeDead(folder, path);
  HELD.add(place);
  return () => {
    HELD.delete(place);
    rmSync(path, { force: true });
  };
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

/** Whether another process has the folder: one of this host that lives, or one of another host. */
export function isInUse(folder: string): boolean {
  return liveHolders(folder).some(({ holds }) => holds);
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

/** Those that live, or may. */
function liveHolders(folder: string): (Holder & { path: string })[] {
  return lockFiles(folder).flatMap((name) => {
    const path = join(folder, name);
    const holder = holderOf(path);
    return holder !== undefined && mayLive(holder) ? [{ ...holder, path }] : [];
  });
}

function takenBy({ host, pid, path }: Pick<Holder, 'host' | 'pid'> & { path: string }): TakenBy {
  if (host === hostname()) return { process: `process ${pid}` };
  const hint = `Whether that still runs cannot be told from the host ${hostname()}: if it has ended, remove ${path}.`;
  return { process: `process ${pid} of the host ${printable(host)}`, hint };
}

/** Of processes that are gone; a live one that gives up removes its own. */
function removeDead(folder: string, own: string): void {
  for (const name of lockFiles(folder)) {
    const path = join(folder, name);
    const holder = holderOf(path);
    if (path !== own && (holder === undefined || !mayLive(holder))) rmSync(path, { force: true });
  }
}

function holderOf(path: string): Holder | undefined {
  try {
    return holderSchema.parse(JSON.parse(readFileSync(path, 'utf8')));
  } catch {
    // Gone since it was listed, or not written by takeLock.
    return undefined;
  }
}

function thisProcess(): Omit<Holder, 'holds'> {
  return { host: hostname(), pid: process.pid, started: startOf(process.pid) };
}

/** A process on another host cannot be asked. */
function mayLive(holder: Holder): boolean {
  if (holder.host !== hostname()) return true;
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
