/**
 * One process per run directory: two that write the same streams would destroy them. The lock is a file that
 * names its process; a process that was killed leaves it behind, so it counts only while that process lives.
 */
import { closeSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { TroupeError } from '../config/errors.js';
import { onFile } from './files.js';

const holderSchema = z.object({
  host: z.string(),
  pid: z.int().positive(),
  /** Start time of the process, in the kernel's ticks since boot: process numbers are used again. */
  started: z.string().nullable(),
});
type Holder = z.output<typeof holderSchema>;

/** Takes the lock of a run directory and returns what frees it. Throws a TroupeError if a live process has it. */
export function lockRun(run: string): () => void {
  const path = join(run, 'lock.json');
  const holder = holderOf(path);
  if (holder !== undefined && alive(holder)) {
    throw new TroupeError(`is in use by process ${holder.pid}.`, {
      where: run,
      hint: 'Wait for it or stop it; two processes must not write one run.',
    });
  }
  onFile(path, () => {
    rmSync(path, { force: true });
    // 'wx': of two processes that find a dead lock at the same time, one fails here.
    const descriptor = openSync(path, 'wx');
    writeFileSync(descriptor, JSON.stringify(thisProcess()));
    closeSync(descriptor);
  });
  return () => rmSync(path, { force: true });
}

/** Whether a live process of this host has the run directory. */
export function isInUse(run: string): boolean {
  const holder = holderOf(join(run, 'lock.json'));
  return holder !== undefined && alive(holder);
}

function holderOf(path: string): Holder | undefined {
  try {
    return holderSchema.parse(JSON.parse(readFileSync(path, 'utf8')));
  } catch {
    // No lock, or one that a crash left half written: it names nobody.
    return undefined;
  }
}

function thisProcess(): Holder {
  return { host: hostname(), pid: process.pid, started: startOf(process.pid) };
}

/** A process on another host cannot be asked; a run that moves between hosts must be able to go on. */
function alive(holder: Holder): boolean {
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
