/**
 * Writing that survives a crash and fails in words: whole writes, files and folders brought to the disk, file
 * system errors as TroupeErrors. What is written where is decided by stream-writer.ts, checkpoint.ts and
 * run-directory.ts.
 */

import {
  closeSync,
  fsyncSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { reasonOf, TroupeError } from './errors.js';
import { makeFolder } from './make-folder.js';

/** What to do once there is room; of a run that goes on, `goingOn` says better. */
const AGAIN = ', then run the command again.';

/** What each of these errors means, and what to do. */
const MEANINGS: Record<string, [what: string, hint: string]> = {
  ENOSPC: ['the disk is full.', `Make room${AGAIN}`],
  EDQUOT: ['the disk quota is used up.', `Make room${AGAIN}`],
  EFBIG: ['the file would grow beyond the largest size allowed.', `Raise the limit (ulimit -f)${AGAIN}`],
  EACCES: ['may not be written.', 'Change its permissions, or choose another folder.'],
  EPERM: ['may not be written.', 'Change its permissions, or choose another folder.'],
  EROFS: ['lies on a read-only file system.', 'Choose another folder.'],
  ENOTDIR: ['a part of the path is a file, not a folder.', 'Choose another folder.'],
  EISDIR: ['is a folder.', 'Name a file.'],
  ENAMETOOLONG: ['has a name that is longer than the file system takes.', 'Choose a shorter one.'],
  ENOENT: ['no such file or folder.', 'Check the path.'],
  EEXIST: ['exists already.', 'Choose another folder.'],
  EMFILE: ['too many open files.', 'Raise the limit (ulimit -n).'],
  ENFILE: ['too many open files on this machine.', 'Raise the limit (sysctl fs.file-max).'],
};

/** The TroupeError for an error of the file system; any other error comes back as it is. */
export function fileError(error: unknown, path: string): unknown {
  // The addon has the system's words alone.
  const full = error instanceof Error && error.message.includes('No space left on device');
  const code = full ? 'ENOSPC' : (error as NodeJS.ErrnoException | undefined)?.code;
  const meaning = code === undefined ? undefined : MEANINGS[code];
  if (meaning === undefined) return error;
  return new TroupeError(meaning[0], { where: path, hint: meaning[1], cause: error });
}

/** The TroupeError for a file of a person's that could not be read. */
export function readError(cause: unknown, path: string): TroupeError {
  const { code = '' } = cause as NodeJS.ErrnoException;
  if (code === 'EACCES' || code === 'EPERM')
    return new TroupeError('may not be read.', { where: path, hint: 'Change its permissions.', cause });
  const said = fileError(cause, path);
  if (said instanceof TroupeError) return said;
  return new TroupeError(`cannot be read: ${reasonOf(cause)}.`, { where: path, cause });
}

/** The error as a command says it that is not to be run again: `how` it goes on, e.g. "npx troupe train --resume RUN". */
export function goingOn(error: unknown, how: string): unknown {
  if (!(error instanceof TroupeError) || !error.message.endsWith(AGAIN)) return error;
  const message = `${error.message.slice(0, -AGAIN.length)}, then go on: ${how}`;
  return new TroupeError(message, { cause: error });
}

/** Runs `action`; errors of the file system come out as TroupeErrors about `path`. */
export function onFile<T>(path: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    throw fileError(error, path);
  }
}

/** Bytes that one call takes; Node refuses 2 GiB and more. */
const MOST_AT_ONCE = 2 ** 30;

/** Writes all bytes, at the file's current position or `at`. A write may take only a part of what it is given. */
export function writeAll(descriptor: number, data: Uint8Array, at?: number): void {
  for (let written = 0; written < data.length; ) {
    const length = Math.min(data.length - written, MOST_AT_ONCE);
    const position = at === undefined ? null : at + written;
    written += writeSync(descriptor, data, written, length, position);
  }
}

/** The bytes of a file from `at` on, fewer where it ends before. A read may give only a part of what is there. */
export function readAll(descriptor: number, length: number, at: number): Buffer<ArrayBuffer> {
  const bytes = Buffer.alloc(length);
  for (let read = 0; read < length; ) {
    const count = readSync(descriptor, bytes, read, Math.min(length - read, MOST_AT_ONCE), at + read);
    if (count === 0) return bytes.subarray(0, read);
    read += count;
  }
  return bytes;
}

/** Brings a folder's entries (names, not contents) to the disk. */
export function syncFolder(folder: string): void {
  const descriptor = openSync(folder, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/** Brings every file of a folder and the folders below it to the disk. */
export function syncTree(folder: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) syncTree(path);
    else syncFolder(path);
  }
  syncFolder(folder);
}

/** A name beside `path` that no other process writes, neither on this host nor on another that shares the folder. */
export const ownName = (path: string): string =>
  `${path}.${encodeURIComponent(hostname())}-${process.pid}.partial`;

/** A file that is there whole or not at all: written beside its place, brought to the disk, renamed. */
export function writeFileWhole(path: string, contents: string | Uint8Array): void {
  const partial = ownName(path);
  onFile(path, () => {
    makeFolder(dirname(path));
    try {
      const descriptor = openSync(partial, 'w');
      try {
        writeAll(descriptor, Buffer.from(contents));
        fsyncSync(descriptor);
      } finally {
        closeSync(descriptor);
      }
      renameSync(partial, path);
    } catch (error) {
      rmSync(partial, { force: true });
      throw error;
    }
    syncFolder(dirname(path));
  });
}
