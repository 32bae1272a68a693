/**
 * The folder of a run:
 *
 *     config.yaml        the resolved configuration; `config.1.yaml`, … are those it was resumed away from
 *     environment.json   what each process that worked on it ran on
 *     streams/           measurements (streams.ts)
 *     checkpoints/       what it needs to go on (checkpoint.ts)
 *     lock.json          the process that works on it now (lock.ts)
 *
 * A run is never overwritten: a new one needs a new or empty folder, an old one goes on with --resume.
 */

import { existsSync, readdirSync, readFileSync, renameSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { checkSection } from '../config/check.js';
import { TroupeError } from '../config/errors.js';
import { readJson } from '../config/json.js';
import { makeFolder } from '../config/make-folder.js';
import { type Checkpoint, discardLater, latestCheckpoint } from './checkpoint.js';
import { type Environment, environmentsSchema } from './environment.js';
import { onFile, writeFileWhole } from './files.js';
import { lockRun } from './lock.js';

export interface RunDirectory {
  folder: string;
  /** Where a resumed run goes on; undefined for a new one, and for one that was stopped before a checkpoint. */
  checkpoint: Checkpoint | undefined;
  /** Gives the lock back. */
  release(): void;
}

/** A folder name that is not taken: runs/NAME-20260102-030405, in UTC. */
export function newRunFolder(name: string, now: Date = new Date()): string {
  const time = now.toISOString().replace(/[-:]/g, '').replace('T', '-').slice(0, 15);
  for (let number = 1; ; number += 1) {
    const folder = join('runs', number === 1 ? `${name}-${time}` : `${name}-${time}-${number}`);
    if (!existsSync(folder)) return folder;
  }
}

/**
 * Creates the folder of a new run and takes its lock. `config`: the resolved configuration, YAML. Throws a
 * TroupeError if the folder holds anything or cannot be written.
 */
export function createRun(folder: string, config: string, environment: Environment): RunDirectory {
  onFile(folder, () => makeFolder(folder));
  // What a process leaves that was killed before the configuration was written does not count.
  const holds = onFile(folder, () => readdirSync(folder)).filter(
    (name) => !/^lock\.json$|\.partial$/.test(name),
  );
  if (holds.length > 0) {
    throw new TroupeError(isRun(folder) ? 'already holds a run.' : 'is not empty.', {
      where: folder,
      hint: isRun(folder) ? 'Continue it with --resume, or choose another folder.' : 'Choose another folder.',
    });
  }
  const release = lockRun(folder);
  try {
    writeFileWhole(configPath(folder), config);
    addEnvironment(folder, environment);
  } catch (error) {
    release();
    throw error;
  }
  return { folder, checkpoint: undefined, release };
}

/**
 * Opens a run to go on from its newest undamaged checkpoint; later ones are removed, and so is, by
 * `RunStreams.resume(folder, words, checkpoint?.streams)`, what the streams hold behind it. `config` replaces the
 * run's configuration, if it differs. Throws a TroupeError if the folder is no run, or another process has it.
 */
export async function resumeRun(
  folder: string,
  config: string,
  environment: Environment,
  warn: (message: string) => void,
): Promise<RunDirectory> {
  const before = readRunConfig(folder);
  const release = lockRun(folder);
  try {
    if (config !== before) replaceConfig(folder, config);
    addEnvironment(folder, environment);
    const checkpoint = await latestCheckpoint(folder, warn);
    discardLater(folder, checkpoint?.step ?? -1);
    return { folder, checkpoint, release };
  } catch (error) {
    release();
    throw error;
  }
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

function addEnvironment(folder: string, environment: Environment): void {
  const all = [...readEnvironments(folder), environment];
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
