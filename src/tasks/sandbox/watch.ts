/**
 * Looks at a sandbox from outside while it works: the memory of all its processes together, and its files. The
 * limits that processes set on themselves bind each alone, and no limit binds inodes.
 */
import { readdirSync, readFileSync, statfsSync } from 'node:fs';
import type { Limits } from './limits.js';

/** Milliseconds between two looks. */
export const WATCH_INTERVAL = 50;

/**
 * The limit that a sandbox has passed, if any. `first`: number out here of its first process. A sandbox that is
 * gone, or that this system does not show, has passed none.
 */
export function passedLimit(first: number, limits: Limits): 'memory' | 'files' | undefined {
  const root = `/proc/${first}/root`;
  try {
    // The sandbox's own /proc lists all of its processes, and no others.
    const processes = readdirSync(`${root}/proc`).filter((name) => /^\d+$/.test(name));
    const most = limits.memoryMiB * 1024;
    const memory = (of: (folder: string) => number) =>
      processes.reduce((sum, name) => sum + of(`${root}/proc/${name}`), 0);
    // What processes share counts once in the second figure, which costs more.
    if (memory(residentKiB) > most && memory(proportionalKiB) > most) return 'memory';
    const used = ['/tmp', '/dev/shm'].reduce((sum, folder) => sum + inodes(root + folder), 0);
    return used > limits.files ? 'files' : undefined;
  } catch {
    return undefined;
  }
}

function residentKiB(folder: string): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(read(`${folder}/status`))?.[1] ?? 0);
}

function proportionalKiB(folder: string): number {
  return Number(/^Pss:\s+(\d+)/m.exec(read(`${folder}/smaps_rollup`))?.[1] ?? residentKiB(folder));
}

/** The text of a file of a process; empty once the process has ended. */
function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function inodes(folder: string): number {
  const { files, ffree } = statfsSync(folder);
  return files - ffree;
}
