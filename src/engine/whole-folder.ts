/** Writing a folder whole or not at all: into a temporary one beside it, synced, then renamed into place. */
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { TroupeError } from '../config/errors.js';

export function syncPath(path: string): void {
  const descriptor = openSync(path, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/**
 * `write` fills the temporary folder that it is given. An existing `folder` is replaced. On any error, a full
 * disk for one, what was there stays, and the temporary folder goes.
 */
export function writeFolder(folder: string, write: (temporary: string) => void): void {
  const temporary = `${folder}.partial-${process.pid}`;
  const replaced = `${folder}.replaced-${process.pid}`;
  try {
    mkdirSync(temporary, { recursive: true });
    write(temporary);
    for (const name of readdirSync(temporary)) syncPath(join(temporary, name));
    if (existsSync(folder)) renameSync(folder, replaced);
    renameSync(temporary, folder);
    syncPath(dirname(folder));
    rmSync(replaced, { recursive: true, force: true });
  } catch (cause) {
    rmSync(temporary, { recursive: true, force: true });
    if (cause instanceof TroupeError) throw cause;
    throw new TroupeError(`could not be written: ${(cause as Error).message}.`, { where: folder, cause });
  }
}
