/** What tells one model's folder from another's that has the same name: digests of the files that the engine reads there. */
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { onFile, readError } from '../config/files.js';
import { ADAPTER_FILES, isAdapter } from './adapters.js';
import { TEMPLATE_FILE, TEMPLATE_FOLDER } from './chat-template.js';
import { INDEX, readIndex, SINGLE } from './shards.js';
import { READ_BY_TOKENIZER } from './tokenizer.js';

/** Beside the weights and the folder of more templates. */
const SETTINGS = ['config.json', 'generation_config.json', ...READ_BY_TOKENIZER, TEMPLATE_FILE];

/**
 * SHA-256, hexadecimal, of each file of a model's or an adapter's folder that the engine reads, by its name there: weights,
 * configuration, tokenizer, chat templates. What else lies there may come and go. Reads them whole, at about a gigabyte
 * a second, and once as long as they stay as they are. Throws a TroupeError about a file that cannot be read.
 */
export async function modelDigests(folder: string): Promise<Record<string, string>> {
  const digests: Record<string, string> = {};
  for (const name of filesRead(folder).sort()) digests[name] = await fileDigest(join(folder, name));
  return digests;
}

function filesRead(folder: string): string[] {
  const isThere = (name: string) => existsSync(join(folder, name));
  if (isAdapter(folder)) return ADAPTER_FILES.filter(isThere);
  const more = join(folder, TEMPLATE_FOLDER);
  const templates = existsSync(more) ? onFile(more, () => readdirSync(more)) : [];
  return [
    ...SETTINGS.filter(isThere),
    ...templates.filter((name) => name.endsWith('.jinja')).map((name) => join(TEMPLATE_FOLDER, name)),
    ...weightFiles(folder),
  ];
}

/** As weight-files.ts finds them: an index beside the single file is not read. */
function weightFiles(folder: string): string[] {
  if (existsSync(join(folder, SINGLE))) return [SINGLE];
  return existsSync(join(folder, INDEX)) ? [INDEX, ...new Set(Object.values(readIndex(folder)))] : [];
}

/**
 * Whether a model is another one without the file, though what is there now is as it was. A shard is not asked for: it is
 * no more only with another index, or beside a single file.
 */
export const isMissed = (name: string): boolean =>
  SETTINGS.includes(name) ||
  name === SINGLE ||
  (name.startsWith(`${TEMPLATE_FOLDER}/`) && name.endsWith('.jinja'));

/** By path, with what tells that the file is still as it was read. */
const known = new Map<string, { state: string; digest: string }>();

/** SHA-256 of a file, hexadecimal. Throws a TroupeError where it cannot be read. */
export async function fileDigest(file: string): Promise<string> {
  try {
    const state = stateOf(file);
    const before = known.get(file);
    if (before?.state === state) return before.digest;
    const hash = createHash('sha256');
    await pipeline(createReadStream(file, { highWaterMark: 2 ** 20 }), hash);
    const digest = hash.digest('hex');
    known.set(file, { state, digest });
    return digest;
  } catch (cause) {
    throw readError(cause, file);
  }
}

/** What changes with the file. Its ctime does too where a copy (cp -p, rsync -t) gave it the same size and mtime. */
function stateOf(file: string): string {
  const { dev, ino, size, mtimeNs, ctimeNs } = statSync(file, { bigint: true });
  return [dev, ino, size, mtimeNs, ctimeNs].join();
}
