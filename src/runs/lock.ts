/**
 * One process per run directory: two that write the same streams would destroy them. Each process that wants the run
 * puts a file of its own there, then looks for others: whoever comes second sees the first, whatever the order of their
 * steps, so that no two ever hold the run. A process that was killed leaves its file behind; it counts only while that
 * process lives.
 */
import { readdirSync, readFileSync, realpathSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { TroupeError } from '../config/errors.js';
import { onFile } from '../config/files.js';

const holderSchema = z.object({
  host: z.string(),
  pid: z.int().positive(),
  /** Start time of the process, in the kernel's ticks since boot: process numbers are used again. */
  started: z.string().nullable(),
  /** false: it has still to look whether another process has the run. */
  holds: z.boolean(),
});
type Holder = z.output<typeof holderSchema>;

/** Files of the lock in a run directory. */
export const LOCK_FILE = /^lock-.*\.json$/;

/** Milliseconds for which two processes that want a run at the same time try again. */
const PATIENCE = 2000;

/**
 * Run directories that this process has: a program may start two runs, and its own file says nothing to it. Exported for
 * tests that kill a run without its process.
 */
export const HELD = new Set<string>();

/**
 * Takes the lock of a run directory and returns what frees it. Throws a TroupeError if a live process has it, this one
 * included.
 */
export function lockRun(run: string): () => void {
  const me = thisProcess();
  const place = onFile(run, () => realpathSync(run));
  if (HELD.has(place)) throw inUse(run, me.pid);
  const path = join(run, `lock-${me.pid}-${me.started}.json`);
  for (const end = Date.now() + PATIENCE; ; ) {
    write(path, { ...me, holds: false });
    const others = liveHolders(run);
    if (others.length === 0) break;
    rmSync(path, { force: true });
    const holder = others.find(({ holds }) => holds) ?? (Date.now() > end ? others[0] : undefined);
    if (holder !== undefined) throw inUse(run, holder.pid);
    sleep(5 + Math.random() * 50);
  }
  write(path, { ...me, holds: true });
  removeDead(run, path);
  HELD.add(place);
  return () => {
    HELD.delete(place);
    rmSync(path, { force: true });
  };
}

/** Whether a live process of this host has the run directory. */
export function isInUse(run: string): boolean {
  return liveHolders(run).some(({ holds }) => holds);
}

function inUse(run: string, pid: number): TroupeError {
  return new TroupeError(`is in use by process ${pid}.`, {
    where: run,
    hint: 'Wait for it or stop it; two processes must not write one run.',
  });
}

/** The file is there with its whole content, or not at all. */
function write(path: string, holder: Holder): void {
  onFile(path, () => {
    writeFileSync(`${path}.partial`, JSON.stringify(holder));
    renameSync(`${path}.partial`, path);
  });
}

function lockFiles(run: string): string[] {
  try {
    return readdirSync(run).filter((name) => LOCK_FILE.test(name));
  } catch {
    return [];
  }
}

function liveHolders(run: string): Holder[] {
  return lockFiles(run).flatMap((name) => {
    const holder = holderOf(join(run, name));
    return holder !== undefined && isAlive(holder) ? [holder] : [];
  });
}

/** Of processes that are gone; a live one that gives up removes its own. */
function removeDead(run: string, own: string): void {
  for (const name of lockFiles(run)) {
    const path = join(run, name);
    const holder = holderOf(path);
    if (path !== own && (holder === undefined || !isAlive(holder))) rmSync(path, { force: true });
  }
}

function holderOf(path: string): Holder | undefined {
  try {
    return holderSchema.parse(JSON.parse(readFileSync(path, 'utf8')));
  } catch {
    // Gone since it was listed, or not written by lockRun.
    return undefined;
  }
}

function thisProcess(): Omit<Holder, 'holds'> {
  return { host: hostname(), pid: process.pid, started: startOf(process.pid) };
}

/** A process on another host cannot be asked; a run that moves between hosts must be able to go on. */
function isAlive(holder: Holder): boolean {
  if (holder.host !== hostname() || holder.pid === process.pid) return false;
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
