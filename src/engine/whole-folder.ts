/** Writing a folder whole or not at all: into a temporary one beside it, synced, then renamed into place. */
import { existsSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { dirname, extname, resolve } from 'node:path';
import { TroupeError } from '../config/errors.js';
import { fileError, ownName, syncFolder, syncTree } from '../config/files.js';
import { makeFolder } from '../config/make-folder.js';
import { TEMPLATE_FOLDER } from './chat-template.js';

/**
 * What a model folder may hold; anything else, and the folder is not ours to replace. Texts only by their names: a
 * person's notes end in .txt and .md too.
 */
const MODEL_FILES = new Set(['.json', '.safetensors', '.jinja', '.model']);
const MODEL_TEXTS = new Set(['README.md', 'merges.txt', 'vocab.txt']);
const CONFIGS = ['config.json', 'adapter_config.json'];

/** The name of what makes the folder none that holds a model and nothing else; undefined: it may go. */
function foreignTo(folder: string): string | undefined {
  if (!statSync(folder).isDirectory()) return 'no folder';
  const entries = readdirSync(folder, { withFileTypes: true });
  const known = (name: string) => MODEL_FILES.has(extname(name)) || MODEL_TEXTS.has(name);
  const strange = entries.find(
    (entry) => entry.name !== TEMPLATE_FOLDER && !(entry.isFile() && known(entry.name)),
  );
  if (strange !== undefined) return strange.name;
  const configured = entries.some(({ name }) => CONFIGS.includes(name));
  return entries.length === 0 || configured ? undefined : `no ${CONFIGS.join(' or ')}`;
}

function checkReplaceable(folder: string): void {
  if (!existsSync(folder)) return;
  const foreign = foreignTo(folder);
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
  const temporary = ownName(folder);
  const replaced = ownName(`${folder}.replaced`);
  checkReplaceable(folder);
  try {
    makeFolder(temporary);
    write(temporary);
    syncTree(temporary);
    if (existsSync(folder)) renameSync(folder, replaced);
    renameSync(temporary, folder);
    syncFolder(dirname(folder));
    rmSync(replaced, { recursive: true, force: true });
  } catch (cause) {
    rmSync(temporary, { recursive: true, force: true });
    if (existsSync(replaced) && !existsSync(folder)) renameSync(replaced, folder);
    const said = fileError(cause, folder);
    if (said instanceof TroupeError) throw said;
    throw new TroupeError(`could not be written: ${(cause as Error).message}.`, { where: folder, cause });
  }
}
