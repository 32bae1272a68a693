/**
 * Models and data sets by their names on the Hugging Face hub: OWNER/NAME, with @REVISION. What lies in the local cache,
 * in the layout that Python's huggingface_hub keeps (models--OWNER--NAME/{blobs,refs,snapshots}), is taken from there;
 * downloading the rest is in hub-download.ts.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { TroupeError } from '../config/errors.js';
import { INDEX, readIndex, SINGLE } from './shards.js';

export interface HubName {
  type: 'model' | 'dataset';
  /** OWNER/NAME */
  name: string;
  /** Branch, tag or commit; "main" where none is said. */
  revision: string;
  /** What of a data set is meant: the beginning of its files' paths; empty: all. */
  path: string;
}

const PART = '[A-Za-z0-9][\\w.-]*';
const MODEL = new RegExp(`^(?:hf:)?(${PART}/${PART})(?:@([\\w./-]+))?$`);
const DATASET = new RegExp(`^hf:(${PART}/${PART})(?:@([\\w.-]+))?(?:/([\\w./ -]+))?$`);

/** undefined: the text cannot be a name of a model on the hub. */
export function modelOnHub(text: string): HubName | undefined {
  const [, name, revision = 'main'] = MODEL.exec(text) ?? [];
  return name === undefined || revision.includes('..')
    ? undefined
    : { type: 'model', name, revision, path: '' };
}

export const isDataSetOnHub = (text: string): boolean => text.startsWith('hf:');

/** Throws a TroupeError for what begins with "hf:" and goes on otherwise. */
export function dataSetOnHub(text: string): HubName {
  const [, name, revision = 'main', path = ''] = DATASET.exec(text) ?? [];
  if (name !== undefined && !`${revision}/${path}`.includes('..'))
    return { type: 'dataset', name, revision, path };
  throw new TroupeError(`"${text}" is no name on the hub.`, {
    hint: 'It takes hf:OWNER/NAME[@REVISION][/PATH], such as hf:openai/gsm8k/main/train.',
  });
}

export function shownName({ name, revision }: Pick<HubName, 'name' | 'revision'>): string {
  return revision === 'main' ? name : `${name}@${revision}`;
}

/** Folder of the cache: HF_HUB_CACHE, or the folder hub in HF_HOME, or ~/.cache/huggingface/hub. */
function hubCache(): string {
  const { HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME, XDG_CACHE_HOME } = process.env;
  const home = HF_HOME || join(XDG_CACHE_HOME || join(homedir(), '.cache'), 'huggingface');
  return HF_HUB_CACHE || HUGGINGFACE_HUB_CACHE || join(home, 'hub');
}

const folderName = ({ type, name }: HubName) => [`${type}s`, ...name.split('/')].join('--');

/** Folder of a model or data set in the cache. */
export const repositoryFolder = (wanted: HubName): string => join(hubCache(), folderName(wanted));

/** Where the lock lies that a process has while it downloads; Python keeps its own beside. */
export const lockFolder = (wanted: HubName): string => join(hubCache(), '.locks', folderName(wanted));

const COMMIT = /^[0-9a-f]{40}$/;

/** Folder of the revision in the cache, whether it is whole or not. */
export function cachedSnapshot(wanted: HubName): string | undefined {
  const folder = repositoryFolder(wanted);
  const ref = join(folder, 'refs', wanted.revision);
  const isCommit = COMMIT.test(wanted.revision);
  const commit = isCommit ? wanted.revision : existsSync(ref) ? readFileSync(ref, 'utf8').trim() : undefined;
  if (commit === undefined || !COMMIT.test(commit)) return undefined;
  const snapshot = join(folder, 'snapshots', commit);
  return existsSync(snapshot) ? snapshot : undefined;
}

/** Files that a model lacks before it can be loaded. */
export function missingOfModel(snapshot: string): string[] {
  const lacks = (name: string) => !existsSync(join(snapshot, name));
  const missing = ['config.json', 'tokenizer.json'].filter(lacks);
  if (!lacks(SINGLE)) return missing;
  if (lacks(INDEX)) return [...missing, SINGLE];
  return [...missing, ...new Set(Object.values(readIndex(snapshot)))].filter(
    (name) => missing.includes(name) || lacks(name),
  );
}

/** What of a model is downloaded: what transformers reads, without other formats of the weights. */
export const isModelFile = (path: string): boolean =>
  /^([^/]+\.(json|safetensors|jinja|model)|(vocab|merges)\.txt|additional_chat_templates\/[^/]+\.jinja)$/.test(
    path,
  );

const DATA_FILE = /\.(jsonl?|ndjson|csv|tsv|parquet|arrow|feather)(\.gz|\.zst)?$/i;

/**
 * The data files of a data set that a name means, of all its files: those whose paths begin with the name's path; where
 * that is no split, those of the training split. Throws a TroupeError where there is none, and where they are of several
 * configurations.
 */
export function chosenDataFiles(wanted: HubName, all: readonly string[]): string[] {
  const { path } = wanted;
  const data = all.filter(
    (file) => DATA_FILE.test(file) && !/(^|\/)(dataset_infos?|dataset_dict|state)\.json$/.test(file),
  );
  const beneath = data.filter((file) => file.startsWith(path));
  const where = `hf:${shownName(wanted)}`;
  if (beneath.length === 0) {
    const hint = data.length === 0 ? 'It holds no data file.' : `Its data files are ${listed(data)}.`;
    throw new TroupeError(path === '' ? 'has nothing to read.' : `has no data file "${path}".`, {
      where,
      hint,
    });
  }
  const training = beneath.filter((file) => /(^|[/._-])train([/._-]|$)/.test(file));
  const chosen = training.length > 0 ? training : beneath;
  const folders = [...new Set(chosen.map((file) => file.split('/').slice(0, -1).join('/')))];
  if (folders.length > 1) {
    throw new TroupeError(`has data files in ${listed(folders)}.`, {
      where,
      hint: `Name one: hf:${shownName(wanted)}/${folders[0]}.`,
    });
  }
  return chosen.sort();
}

function listed(names: readonly string[]): string {
  const more = names.length > 6 ? ` and ${names.length - 6} more` : '';
  return `${names.slice(0, 6).join(', ')}${more}`;
}

/** Of files named "…-00000-of-00004…", those that are not there. */
export function missingShards(files: readonly string[]): string[] {
  return files.flatMap((file) => {
    const [, before = '', of = '0', after = ''] = /^(.*-)\d{5}-of-(\d{5})(.*)$/.exec(file) ?? [];
    const shards = Array.from(
      { length: Number(of) },
      (_, i) => `${before}${String(i).padStart(5, '0')}-of-${of}${after}`,
    );
    return shards.filter((shard) => !files.includes(shard));
  });
}

/** Every file of a snapshot, by its path. */
export function filesOf(snapshot: string): string[] {
  return readdirSync(snapshot, { recursive: true, encoding: 'utf8' }).sort();
}

/** Whether the environment forbids the network, as for Python's libraries. */
export function isOffline(): boolean {
  const { HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE, HF_DATASETS_OFFLINE } = process.env;
  return [HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE, HF_DATASETS_OFFLINE].some((value) =>
    /^(1|on|yes|true)$/i.test(value ?? ''),
  );
}

/** What is missing, and where it was looked for. */
export function offlineError(wanted: HubName, missing: string): TroupeError {
  const folder = repositoryFolder(wanted);
  const ref = join(folder, 'refs', wanted.revision);
  const known = existsSync(ref) || COMMIT.test(wanted.revision);
  const what = known ? missing : `the revision ${wanted.revision} (${ref})`;
  return new TroupeError(`HF_HUB_OFFLINE is set, and the cache lacks ${what}; looked in ${folder}.`, {
    where: shownName(wanted),
    hint: 'Unset it to download, or set HF_HOME or HF_HUB_CACHE to a cache that has it.',
  });
}
