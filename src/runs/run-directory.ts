/**
 * The folder of a run:
 *
 *     config.yaml        the resolved configuration; `config.1.yaml`, … are those it was resumed away from
 *     environment.json   what each process that worked on it ran on, and with which configuration
 *     split.json         which rows of the data files are held out (split-record.ts)
 *     model.json         digests of the model's files (model-record.ts)
 *     files.json         digests of the files of a user's own that it works with (file-record.ts)
 *     changes.json       what of the configuration, of those files and of Troupe changed on the way, and after which step
 *     streams/           measurements (run-streams.ts)
 *     tensorboard/, metrics.jsonl, metrics.csv    metrics for dashboards, where asked for (sinks/)
 *     checkpoints/       what it needs to go on (checkpoint.ts)
 *     replaced/1/, …     streams and checkpoints that a resumed run left behind it, moved here
 *     lock-….json        the process that works on it now (lock.ts)
 *
 * A run is never overwritten: a new one needs a new or empty folder, an old one goes on with --resume.
 */

import { existsSync, readdirSync, readFileSync, renameSync, rmdirSync, rmSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { parse } from 'yaml';
import { z } from 'zod';
import type { Change } from '../config/changes.js';
import { checkSection } from '../config/check.js';
import { TroupeError } from '../config/errors.js';
import { onFile, writeFileWhole } from '../config/files.js';
import { readJson } from '../config/json.js';
import { holdsLock, LOCK_FILE } from '../config/lock.js';
import { makeFolder } from '../config/make-folder.js';
import { countBatches, streamPath, TABLE_NAMES } from '../streams/stream-files.js';
import { type Checkpoint, latestCheckpoint, moveLater, obstacle } from './checkpoint.js';
import { type Environment, environmentsSchema, programOf } from './environment.js';
import { lockAgain, lockRun } from './lock.js';

export interface RunDirectory {
  folder: string;
  /** Where a resumed run goes on; undefined for a new one, and for one that begins again. */
  checkpoint: Checkpoint | undefined;
  /** Folder for what a resumed run leaves behind it; made when it is needed. */
  aside: string;
  /** Gives the lock back. */
  release(): void;
  /** Of a new run that could not start: removes it, and the folders that were made for it. */
  discard(): void;
}

/** A folder name that is not taken: runs/NAME-20260102-030405, in UTC. */
export function newRunFolder(name: string, now: Date = new Date()): string {
  const time = now.toISOString().replace(/[-:]/g, '').replace('T', '-').slice(0, 15);
  for (let number = 1; ; number += 1) {
    const folder = join('runs', number === 1 ? `${name}-${time}` : `${name}-${time}-${number}`);
    if (!existsSync(folder)) return folder;
  }
}

/** What a run is refused with whose folder has one. */
export const HOLDS_A_RUN = 'already holds a run.';

/**
 * Creates the folder of a new run and takes its lock. `config`: the resolved configuration, YAML. Throws a
 * TroupeError if the folder holds anything or cannot be written.
 */
export function createRun(folder: string, config: string, environment: Environment): RunDirectory {
  const missing = missingFolders(folder);
  onFile(folder, () => makeFolder(folder));
  // What a process leaves that was killed before the configuration was written does not count.
  const holds = onFile(folder, () => readdirSync(folder)).filter(
    (name) => !LOCK_FILE.test(name) && !name.endsWith('.partial'),
  );
  if (holds.length > 0) {
    throw new TroupeError(isRun(folder) ? HOLDS_A_RUN : 'is not empty.', {
      where: folder,
      hint: isRun(folder) ? 'Continue it with --resume, or choose another folder.' : 'Choose another folder.',
    });
  }
  const release = lockNew(folder, missing);
  const discard = () => {
    // Else it is another process's by now.
    if (!holdsLock(folder)) return;
    release();
    for (const name of [
      'config.yaml',
      'environment.json',
      'split.json',
      'model.json',
      'files.json',
      'streams',
    ]) {
      rmSync(join(folder, name), { recursive: true, force: true });
    }
    removeEmpty(missing);
  };
  try {
    writeFileWhole(configPath(folder), config);
    addEnvironment(folder, environment, config);
  } catch (error) {
    discard();
    throw error;
  }
  return { folder, checkpoint: undefined, aside: freeAside(folder), release, discard };
}

/** Takes the lock of a new run's folder, or leaves none behind of those that were `missing`. */
function lockNew(folder: string, missing: readonly string[]): () => void {
  try {
    return lockRun(folder);
  } catch (error) {
    removeEmpty(missing);
    throw error;
  }
}

/** The folder and those above it that are not there, the innermost first. */
function missingFolders(folder: string): string[] {
  const path = resolve(folder);
  return existsSync(path) ? [] : [path, ...missingFolders(dirname(path))];
}

function removeEmpty(folders: readonly string[]): void {
  for (const folder of folders) {
    try {
      rmdirSync(folder);
    } catch {
      // Somebody else has put something there.
      return;
    }
  }
}

export interface ResumeOptions {
  /** Replaces the run's configuration, if it differs; YAML. */
  config: string;
  environment: Environment;
  /** What differs, for the record. */
  changes?: readonly Change[];
  /** Begins again at step 0; what is there is moved aside. */
  restart?: boolean;
  /** Throws where the run may not go on from its checkpoint; nothing is written or moved by then. */
  check?(): Promise<void>;
  /** Hears of checkpoints that are not used, and of another host's process that is waited for. */
  warn(message: string): void;
  /** Ends the waiting. */
  signal?: AbortSignal | undefined;
}

/**
 * Opens a run to go on from its newest checkpoint that is undamaged and whose rows the streams hold. Later ones are moved aside, and so is, by
 * `RunStreams.resume(folder, words, checkpoint?.streams, aside)`, what the streams hold behind it. Throws a TroupeError
 * if the folder is no run, if another process has it, or if it has rows or checkpoints, but none to go on from.
 */
export async function resumeRun(folder: string, options: ResumeOptions): Promise<RunDirectory> {
  const { config, environment, changes = [], restart = false, check, warn, signal } = options;
  const before = readRunConfig(folder);
  const release = await lockAgain(folder, warn, signal);
  try {
    const unused: string[] = [];
    const tell = (text: string) => void unused.push(text);
    const checkpoint = restart ? undefined : await latestCheckpoint(folder, tell, obstacle);
    if (checkpoint === undefined && !restart) checkNothingLost(folder, unused);
    for (const text of unused) warn(text);
    if (checkpoint !== undefined) await check?.();
    const updated = checkpoint === undefined ? [] : programChanges(folder, environment);
    for (const { from, to } of updated) {
      warn(
        `the run last ran with ${from}; it goes on with ${to}, which may read and grade otherwise (changes.json)`,
      );
    }
    const aside = freeAside(folder);
    moveLater(folder, checkpoint, aside);
    addChanges(folder, checkpoint?.step ?? 0, [...changes, ...updated]);
    if (config !== before) replaceConfig(folder, config);
    addEnvironment(folder, environment, config);
    return { folder, checkpoint, aside, release, discard: release };
  } catch (error) {
    release();
    throw error;
  }
}

/** The key `program` where the run's last process was of another version or commit of Troupe, or another libtorch. */
function programChanges(
  folder: string,
  environment: Environment,
): { key: string; from: string; to: string }[] {
  const last = readEnvironments(folder).at(-1);
  if (last === undefined) return [];
  const [from, to] = [programOf(last), programOf(environment)];
  return from === to ? [] : [{ key: 'program', from, to }];
}

/** Throws where there is something that a run from step 0 would replace. `unused`: what is wrong with checkpoints. */
function checkNothingLost(folder: string, unused: readonly string[]): void {
  const batches = (table: 'steps' | 'evaluations') => countBatches(streamPath(folder, table));
  const rows = TABLE_NAMES.some((table) => countBatches(streamPath(folder, table)) > 0);
  if (!rows && unused.length === 0) return;
  const found = unused.length === 0 ? 'There is none.' : unused.join(' ');
  throw new TroupeError(
    `holds ${batches('steps')} steps and ${batches('evaluations')} evaluations, but no checkpoint to go on from. ${found}`,
    {
      where: folder,
      hint: 'With --restart it begins again, and what it holds is moved to its folder replaced/.',
    },
  );
}

/** RUN/replaced/N that is not there. */
function freeAside(folder: string): string {
  for (let number = 1; ; number += 1) {
    const path = join(folder, 'replaced', String(number));
    if (!existsSync(path)) return path;
  }
}

/** What of the configuration, which "file NAME", or whether the "program" changed when a run went on after `step` steps. */
export interface RecordedChange extends Change {
  step: number;
}

const changesSchema = z.array(
  z.object({ step: z.int().min(0), key: z.string(), from: z.unknown(), to: z.unknown() }),
);

/** In the order in which they were made. Throws a TroupeError if the file is damaged. */
export function readChanges(folder: string): RecordedChange[] {
  const path = join(folder, 'changes.json');
  if (!existsSync(path)) return [];
  return checkSection(changesSchema, readJson(path), {
    whole: 'the file',
    locate: () => path,
  }) as RecordedChange[];
}

/** Writes down what changed when the run went on after `step` steps. */
export function addChanges(folder: string, step: number, changes: readonly Change[]): void {
  if (changes.length === 0) return;
  const all = [...readChanges(folder), ...changes.map((change) => ({ step, ...change }))];
  writeFileWhole(join(folder, 'changes.json'), `${JSON.stringify(all, undefined, 2)}\n`);
}

/** Whether a run was begun in the folder. */
export function isRun(folder: string): boolean {
  return existsSync(configPath(folder));
}

/** The resolved configuration of a run, YAML. Throws a TroupeError if the folder is no run. */
export function readRunConfig(folder: string): string {
  if (!existsSync(folder) || !statSync(folder).isDirectory() || !isRun(folder)) {
    throw new TroupeError('is no run directory: it has no config.yaml.', {
      where: folder,
      hint: 'Name the folder that `troupe train` printed, such as runs/voting-20260102-030405.',
    });
  }
  return onFile(configPath(folder), () => readFileSync(configPath(folder), 'utf8'));
}

/** What each process that worked on the run ran on, the first one first. */
export function readEnvironments(folder: string): Environment[] {
  const path = environmentPath(folder);
  if (!existsSync(path)) return [];
  return checkSection(environmentsSchema, readJson(path), { whole: 'the file', locate: () => path });
}

function addEnvironment(folder: string, environment: Environment, config: string): void {
  const configuration = parse(config) as Record<string, unknown> | null;
  const all = [...readEnvironments(folder), { ...environment, configuration: configuration ?? {} }];
  writeFileWhole(environmentPath(folder), `${JSON.stringify(all, undefined, 2)}\n`);
}

function replaceConfig(folder: string, config: string): void {
  let number = 1;
  while (existsSync(join(folder, `config.${number}.yaml`))) number += 1;
  // The old one keeps its name until the new one is whole.
  const next = join(folder, 'config.next.yaml');
  writeFileWhole(next, config);
  onFile(folder, () => {
    writeFileWhole(join(folder, `config.${number}.yaml`), readRunConfig(folder));
    renameSync(next, configPath(folder));
  });
}

function configPath(folder: string): string {
  return join(folder, 'config.yaml');
}

function environmentPath(folder: string): string {
  return join(folder, 'environment.json');
}
