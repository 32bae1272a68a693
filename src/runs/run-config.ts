/** The configuration of a run directory, as whoever goes on with it or reads its policies needs it: the one that it ran with. */
import { join } from 'node:path';
import { type Change, changesOf, isMove, mayChange } from '../config/changes.js';
import { reasonOf, TroupeError } from '../config/errors.js';
import { type Layer, type LoadedConfig, readLayer, runConfigOf } from '../config/load.js';
import type { RunConfig } from '../config/schema.js';
import { describeEnvironment, type Environment, programOf } from './environment.js';
import { readEnvironments, readRunConfig } from './run-directory.js';

/** Keys of runs of earlier versions that nothing reads any more: such a run is read all the same. */
const RETIRED = [['alarms', 'capture', 'effectiveRoles']];

const fileOf = (folder: string) => join(folder, 'config.yaml');

/**
 * config.yaml with overrides on top. Throws a TroupeError where the folder is no run, or where the file was edited: which
 * steps and which policies it is of, nobody would know. What only names another place of the same file is no edit.
 */
export function loadRun(folder: string, set: readonly string[] = []): LoadedConfig {
  checkUnedited(folder, editsOf(folder));
  return runConfigOf([layerOf(folder)], set);
}

/** What config.yaml says otherwise than the run wrote it. */
export function editsOf(folder: string): Change[] {
  // Says what is wrong with a folder that is no run.
  readRunConfig(folder);
  const written = writtenBy(folder);
  const { config } = runConfigOf([layerOf(folder)]);
  return changesOf(written, config);
}

/**
 * Throws a TroupeError where this version of Troupe does not know a key of the one that wrote it, or where an early run's
 * config.yaml is not valid.
 */
function writtenBy(folder: string): RunConfig {
  const last = readEnvironments(folder).at(-1);
  const value = last?.configuration;
  // Early runs have it in config.yaml alone.
  const layer =
    value === undefined ? layerOf(folder) : { value: withoutRetired(value), locate: () => fileOf(folder) };
  try {
    return runConfigOf([layer]).config;
  } catch (cause) {
    if (!(cause instanceof TroupeError) || last === undefined) throw cause;
    // Which keys there are is of no use here.
    const [reason = ''] = reasonOf(cause).split('; ');
    // What only config.yaml says may be a user's mistake, too.
    if (value === undefined && (!reason.includes('unknown key "') || isOfThisVersion(last))) throw cause;
    throw new TroupeError(`${reason}. The run is of ${programOf(last)}.`, {
      hint: 'Read it with that version, or its streams with pyarrow; this one cannot go on with it.',
      cause,
    });
  }
}

function isOfThisVersion(environment: Environment): boolean {
  const engine = { libtorch: environment.libtorch, devices: [] };
  return programOf(environment) === programOf(describeEnvironment(engine));
}

function layerOf(folder: string): Layer {
  const { value, locate } = readLayer(fileOf(folder));
  return { value: withoutRetired(value), locate };
}

function withoutRetired(config: Record<string, unknown>): Record<string, unknown> {
  const left = structuredClone(config);
  for (const path of RETIRED) {
    const section = path
      .slice(0, -1)
      .reduce<unknown>((at, key) => (at as Record<string, unknown>)?.[key], left);
    if (typeof section === 'object' && section !== null) Reflect.deleteProperty(section, path.at(-1) ?? '');
  }
  return left;
}

function checkUnedited(folder: string, all: readonly Change[]): void {
  const edits = all.filter((change) => !isMove(change));
  if (edits.length === 0) return;
  const shown = (value: unknown) => JSON.stringify(value);
  const listed = edits.map(({ key, from, to }) => `${key} (${shown(from)} → ${shown(to)})`);
  const settings = edits
    .filter((change) => mayChange(change))
    .map(({ key, to }) => `--set ${key}=${shown(to)}`);
  const hint =
    settings.length === 0
      ? 'Put back what was there; for another value start a new run.'
      : `Put back what was there, and go on with ${settings.join(' ')}.`;
  throw new TroupeError(`was changed since the run wrote it: ${listed.join(', ')}.`, {
    where: fileOf(folder),
    hint,
  });
}
