/** Writing a folder whole or not at all: into a temporary one beside it, synced, then renamed into place. */

import {
  closeSync,
  existsSync,
  fsyncSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { dirname, extname, join, resolve } from 'node:path';
import { TroupeError } from '../config/errors.js';
import { makeFolder } from '../config/make-folder.js';
import { TEMPLATE_FOLDER } from './chat-template.js';

export function syncPath(path: string): void {
  const descriptor = openSync(path, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/** What a model folder may hold; anything else, and the folder is not ours to replace. */
const MODEL_FILES = new Set(['.json', '.safetensors', '.jinja', '.txt', '.md', '.model']);

function checkReplaceable(folder: string): void {
  if (!existsSync(folder)) return;
  const foreign = statSync(folder).isDirectory()
    ? readdirSync(folder, { withFileTypes: true }).find(
        (entry) =>
          entry.name !== TEMPLATE_FOLDER && !(entry.isFile() && MODEL_FILES.has(extname(entry.name))),
      )?.name
    : 'no folder';
  if (foreign === undefined) return;
  throw new TroupeError(`would be replaced, but is no model folder (${foreign}).`, {
    where: folder,
    hint: 'Name a folder that does not exist yet.',
  });
}

/**
 * `write` fills the temporary folder that it is given. An existing model folder at `path` is replaced, anything
 * else there is refused. On any error, a full disk for one, what was there stays, and the temporary folder goes.
 */
export function writeFolder(path: string, write: (temporary: string) => void): void {
  const folder = resolve(path);
  const temporary = `${folder}.partial-${process.pid}`;
  const replaced = `${folder}.replaced-${process.pid}`;
  checkReplaceable(folder);
  try {
    makeFolder(temporary);
    write(temporary);
    for (const name of readdirSync(temporary)) syncPath(join(temporary, name));
    if (existsSync(folder)) renameSync(folder, replaced);
    renameSync(temporary, folder);
    syncPath(dirname(folder));
    rmSync(replaced, { recursive: true, force: true });
  } catch (cause) {
    rmSync(temporary, { recursive: true, force: true });
    if (existsSync(replaced) && !existsSync(folder)) renameSync(replaced, folder);
    if (cause instanceof TroupeError) throw cause;
    throw new TroupeError(`could not be written: ${(cause as Error).message}.`, { where: folder, cause });
  }
}
