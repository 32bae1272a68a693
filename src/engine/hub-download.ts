/**
 * Downloads from the Hugging Face hub into its cache, through @huggingface/hub: what a cut connection left is gone on
 * with, and every file is checked against the hub's checksum before it gets its name. The layout is that of Python's
 * huggingface_hub, which finds what is here and the other way round.
 *
 * Of the processes of one host one downloads and the others wait. Hosts that share the cache do not know of each other: each
 * fetches into files of its own and gives them their names in one go, so that whoever comes last puts the same bytes there.
 */
import { createHash } from 'node:crypto';
import {
  createReadStream,
  createWriteStream,
  existsSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { rename, rm, writeFile } from 'node:fs/promises';
import { homedir, hostname } from 'node:os';
import { basename, dirname, join, relative } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ReadableStream } from 'node:stream/web';
import { z } from 'zod';
import { checkSection } from '../config/check.js';
import { reasonOf, TroupeError } from '../config/errors.js';
import { onFile, writeFileWhole } from '../config/files.js';
import { readJson } from '../config/json.js';
import { type TakenBy, withLock } from '../config/lock.js';
import { makeFolder } from '../config/make-folder.js';
import {
  cachedSnapshot,
  chosenDataFiles,
  filesOf,
  type HubName,
  isModelFile,
  isOffline,
  lockFolder,
  missingOfModel,
  missingShards,
  offlineError,
  repositoryFolder,
  shownName,
} from './hub.js';

type Say = (message: string) => void;
const toStandardError: Say = (message) => console.error(message);

/** Times in a row that a file is asked for again without a byte coming. */
const PATIENCE = 3;
const PAUSE = 500;
/** Bytes between two lines of progress. */
const LINE = 256 * 2 ** 20;

/** Folder of a model, downloaded where the cache lacks it. Throws a TroupeError that says what is missing. */
export async function modelFromHub(wanted: HubName, say = toStandardError): Promise<string> {
  const cached = cachedSnapshot(wanted);
  const missing = cached === undefined ? ['all of it'] : missingOfModel(cached);
  if (cached !== undefined && missing.length === 0) return cached;
  if (isOffline()) throw offlineError(wanted, missing.join(', '));
  const { snapshot } = await download(wanted, (files) => files.filter(isModelFile), say);
  const lacks = missingOfModel(snapshot);
  if (lacks.length === 0) return snapshot;
  throw new TroupeError(`has no ${lacks.join(', ')} on the hub.`, {
    where: shownName(wanted),
    hint: 'The engine reads safetensors and tokenizer.json.',
  });
}

/** Data files of a data set that its name means, downloaded where the cache lacks them. */
export async function dataFilesFromHub(wanted: HubName, say = toStandardError): Promise<string[]> {
  const cached = cachedSnapshot(wanted);
  const listed = cached === undefined ? undefined : readListing(cached);
  if (cached !== undefined && listed !== undefined) {
    const files = chosenDataFiles(wanted, listed).map((file) => join(cached, file));
    if (files.every((file) => existsSync(file))) return files;
  }
  if (isOffline()) {
    if (cached === undefined) throw offlineError(wanted, 'it');
    // Python downloads files one by one and leaves no list of all.
    const files = chosenDataFiles(wanted, filesOf(cached));
    const missing = missingShards(files);
    if (missing.length > 0) throw offlineError(wanted, missing.join(', '));
    say(`${shownName(wanted)}: from the cache, which may lack others: ${files.join(', ')}`);
    return files.map((file) => join(cached, file));
  }
  const { snapshot, files } = await download(wanted, (all) => chosenDataFiles(wanted, all), say);
  return files.map((file) => join(snapshot, file)).sort();
}

/** File with the paths of all files of a snapshot, of which the cache may hold only some. */
const listing = (snapshot: string) =>
  join(dirname(dirname(snapshot)), 'listings', `${basename(snapshot)}.json`);

function readListing(snapshot: string): string[] | undefined {
  const file = listing(snapshot);
  if (!existsSync(file)) return undefined;
  return checkSection(z.array(z.string()), readJson(file), { whole: 'the list', locate: () => file });
}

interface RemoteFile {
  path: string;
  size: number;
  /** sha256 of a large file, git's sha1 of a small one. */
  checksum: string;
  large: boolean;
}

/** What the hub has under a name. */
interface Remote {
  /** The commit that the revision is. */
  sha: string;
  files: RemoteFile[];
  open(file: RemoteFile): Promise<Blob | null>;
  /** Errors of `action` are said for people. */
  ask<T>(action: () => Promise<T>): Promise<T>;
}

async function remoteOf(wanted: HubName): Promise<Remote> {
  const hub = await import('@huggingface/hub');
  const access = { hubUrl: process.env.HF_ENDPOINT || hub.HUB_URL, ...credentials() };
  const { type, name, revision } = wanted;
  const repo = { type, name };
  const ask = <T>(action: () => Promise<T>) => forPeople(wanted, access.hubUrl, action);
  const about = { ...access, name, revision, additionalFields: ['sha' as const] };
  const { sha } = await ask(
    (): Promise<{ sha: string }> => (type === 'model' ? hub.modelInfo(about) : hub.datasetInfo(about)),
  );
  const files = await ask(async () => {
    const listed: RemoteFile[] = [];
    for await (const entry of hub.listFiles({ ...access, repo, recursive: true, revision: sha })) {
      if (entry.type !== 'file') continue;
      const checksum = entry.lfs?.oid ?? entry.oid ?? '';
      listed.push({ path: entry.path, size: entry.size, checksum, large: entry.lfs !== undefined });
    }
    return listed;
  });
  return { sha, files, open: ({ path }) => hub.downloadFile({ ...access, repo, path, revision: sha }), ask };
}

/** Brings the chosen files into the cache. The ranks of a run may want one model at the same time: one of each host fetches it. */
async function download(wanted: HubName, choose: (files: string[]) => string[], say: Say) {
  const remote = await remoteOf(wanted);
  const chosen = new Set(choose(remote.files.map(({ path }) => path)));
  const files = remote.files.filter(({ path }) => chosen.has(path));
  for (const file of files) checkEntry(file, remote.sha, wanted);
  const lock = join(lockFolder(wanted), HOST);
  onFile(lock, () => makeFolder(lock));
  const wait = (taken: TakenBy) =>
    say(`${shownName(wanted)}: ${taken.process} is downloading it; waiting for it`);
  await withLock(lock, wait, () => fetchAll(wanted, remote, files, say));
  return {
    snapshot: join(repositoryFolder(wanted), 'snapshots', remote.sha),
    files: files.map(({ path }) => path),
  };
}

/** Fetches what the cache lacks of `files`. */
async function fetchAll(
  wanted: HubName,
  remote: Remote,
  files: readonly RemoteFile[],
  say: Say,
): Promise<void> {
  const folder = repositoryFolder(wanted);
  const snapshot = join(folder, 'snapshots', remote.sha);
  const blobs = join(folder, 'blobs');
  onFile(blobs, () => makeFolder(blobs));
  for (const [i, file] of files.entries()) {
    const blob = join(blobs, file.checksum);
    if (existsSync(join(snapshot, file.path)) || existsSync(blob)) continue;
    const line = `${shownName(wanted)}: file ${i + 1} of ${files.length}, ${file.path}`;
    await remote.ask(() => fetchFile(file, blob, () => remote.open(file), { say, line }));
  }
  // Behind the last file: what is named here is whole.
  for (const file of files) {
    const pointer = join(snapshot, file.path);
    if (existsSync(pointer)) continue;
    makeFolder(dirname(pointer));
    // Also in the place of a link to a file that somebody has removed.
    const link = incomplete(pointer);
    await rm(link, { force: true });
    symlinkSync(relative(dirname(pointer), join(blobs, file.checksum)), link);
    renameSync(link, pointer);
  }
  writeFileWhole(listing(snapshot), JSON.stringify(remote.files.map(({ path }) => path)));
  if (wanted.revision !== remote.sha) writeFileWhole(join(folder, 'refs', wanted.revision), remote.sha);
}

const HOST = encodeURIComponent(hostname());
/** Of a file that only this host writes, on its way to `path`; Python's libraries write one without the host's name. */
const incomplete = (path: string) => `${path}.${HOST}.incomplete`;

/** Paths and checksums become paths here: they come from outside. */
function checkEntry({ path, checksum }: RemoteFile, sha: string, wanted: HubName): void {
  const parts = path.split('/');
  const plain = parts.every((part) => part !== '' && part !== '.' && part !== '..') && !/[\\\0]/.test(path);
  if (plain && /^[0-9a-f]{40,64}$/.test(checksum) && /^[0-9a-f]{40}$/.test(sha)) return;
  throw new TroupeError(`the hub names a file ${JSON.stringify(path)} (${JSON.stringify(checksum)}).`, {
    where: shownName(wanted),
  });
}

/** Fetches until the file is whole, from where it was left; then checks it and gives it its name. */
async function fetchFile(
  file: RemoteFile,
  blob: string,
  open: () => Promise<Blob | null>,
  { say, line }: { say: Say; line: string },
): Promise<void> {
  const partial = incomplete(blob);
  let failures = 0;
  say(`${line} (${megabytes(file.size)})`);
  if (file.size === 0) await writeFile(partial, '');
  while (sizeOf(partial) < file.size) {
    const before = sizeOf(partial);
    try {
      await append(partial, await open(), file.size, (done) => say(`${line}: ${megabytes(done)}`));
    } catch (error) {
      failures = sizeOf(partial) > before ? 0 : failures + 1;
      if (failures >= PATIENCE) {
        const kept = `${megabytes(sizeOf(partial))} of ${megabytes(file.size)} are kept for the next try`;
        throw new TroupeError(`${file.path} broke off: ${reasonOf(error)}; ${kept}.`, { cause: error });
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE * failures));
    }
  }
  if ((await checksumOf(partial, file)) !== file.checksum) {
    await rm(partial);
    throw new TroupeError(`${file.path} does not have its checksum; it was thrown away.`);
  }
  await rename(partial, blob);
}

async function append(
  partial: string,
  remote: Blob | null,
  size: number,
  onLine: (done: number) => void,
): Promise<void> {
  if (remote === null) throw new Error('the hub has no such file');
  const start = sizeOf(partial);
  let done = start;
  const counted = async function* (source: AsyncIterable<Buffer>) {
    for await (const chunk of source) {
      if (Math.floor((done + chunk.length) / LINE) > Math.floor(done / LINE)) onLine(done + chunk.length);
      done += chunk.length;
      yield chunk;
    }
  };
  const body = remote.slice(start, size).stream() as ReadableStream;
  await pipeline(Readable.fromWeb(body), counted, createWriteStream(partial, { flags: 'a' }));
  if (done < size) throw new Error('the connection ended early');
}

const sizeOf = (file: string) => (existsSync(file) ? statSync(file).size : 0);
const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 2 : 0)} MB`;

/** Large files have their sha256, small ones the sha1 that git gives them. */
async function checksumOf(path: string, { large, size }: RemoteFile): Promise<string> {
  const hash = createHash(large ? 'sha256' : 'sha1');
  if (!large) hash.update(`blob ${size}\0`);
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}

/** HF_TOKEN, or what `hf auth login` left. */
function credentials(): { accessToken?: string } {
  const { HF_TOKEN, HUGGING_FACE_HUB_TOKEN, HF_TOKEN_PATH, HF_HOME } = process.env;
  const file = HF_TOKEN_PATH || join(HF_HOME || join(homedir(), '.cache', 'huggingface'), 'token');
  const stored = existsSync(file) ? readFileSync(file, 'utf8').trim() : '';
  const accessToken = HF_TOKEN || HUGGING_FACE_HUB_TOKEN || stored;
  return accessToken === '' ? {} : { accessToken };
}

async function forPeople<T>(wanted: HubName, url: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (cause) {
    const where = shownName(wanted);
    if (cause instanceof TroupeError) throw cause.where === undefined ? at(where, cause) : cause;
    const status = (cause as { statusCode?: number }).statusCode;
    const hints: Record<number, string> = {
      401: 'There is no such name, or it is private or gated: set HF_TOKEN.',
      403: 'It is gated: accept its terms on the hub, and set HF_TOKEN.',
      404: `There is no such name or revision at ${url}.`,
    };
    const reason = status === undefined ? reachReason(cause) : `status ${status}`;
    const hint = hints[status ?? 0] ?? `Looked in ${repositoryFolder(wanted)} before.`;
    throw new TroupeError(`could not be fetched from ${url} (${reason}).`, { where, hint, cause });
  }
}

const at = (where: string, { message, cause }: TroupeError) => new TroupeError(message, { where, cause });

/** fetch says "fetch failed" and keeps the reason. */
function reachReason(error: unknown): string {
  const { cause } = error as { cause?: { code?: string } };
  return cause?.code ?? reasonOf(error);
}
