/** What tells the runs of one picture apart: the settings in which they differ, then and now, and their files. */
import { basename } from 'node:path';
import { isMove } from '../config/changes.js';
import type { RunConfig } from '../config/schema.js';
import type { FileDigest } from '../runs/file-record.js';
import type { RecordedChange } from '../runs/run-directory.js';

/** What a run was made with. */
export interface RunMakings {
  config: RunConfig;
  /** What of it changed on the way. */
  changes?: readonly RecordedChange[];
  /** The files of a user's own that it works with. */
  files?: readonly FileDigest[];
  /** One digest of the files of the model that it trains; undefined: unknown. */
  model?: string | undefined;
}

/**
 * Keys that say where a run goes and how it is kept, not what it learns. `program` is the change of a run that another version
 * of Troupe went on with: as runs that two versions made from beginning to end share a name, so does such a run.
 */
const ASIDE = /^(seed|run|checkpoints|sinks|program)(\.|$)/;

/**
 * Every setting but the seed and where the run is kept, by its dotted key; the digest of each file under its name, and of the
 * model's files together; and what a setting was before it changed on the way, under the key and the step.
 */
export function settingsOf({ config, changes = [], files = [], model }: RunMakings): Map<string, string> {
  const settings = new Map<string, string>();
  const add = (key: string, value: unknown): void => {
    if (ASIDE.test(key)) return;
    const inside = typeof value === 'object' && value !== null && !Array.isArray(value);
    if (!inside) settings.set(key, JSON.stringify(value) ?? '');
    else for (const [name, item] of Object.entries(value)) add(key === '' ? name : `${key}.${name}`, item);
  };
  add('', config);
  for (const { file, sha256 } of files) settings.set(`${FILE}${basename(file)}`, sha256.slice(0, 12));
  if (model !== undefined) settings.set('model files', model.slice(0, 12));
  for (const change of changes) {
    const { step, key, from } = change;
    // A longer run is another one only where its rate depends on its length.
    const longer = key === 'steps' && config.learning.schedule.kind === 'constant';
    if (!ASIDE.test(key) && !longer && !isMove(change))
      settings.set(`${key}${UNTIL}${step}`, JSON.stringify(from) ?? '');
  }
  return settings;
}

const FILE = 'file ';
const UNTIL = ' until step ';

/** Settings that a name has at most, where they are enough to tell all apart. */
const MOST = 3;

/**
 * One name for each configuration: "isolated", "shared, learningRate 5e-4". What is the same in all of them is left
 * out; the last part of a key is enough where no other key that differs ends so.
 */
export function distinctNames(runs: readonly RunMakings[]): string[] {
  const all = runs.map(settingsOf);
  const keys = [...new Set(all.flatMap((settings) => [...settings.keys()]))].filter((key) => {
    return new Set(all.map((settings) => settings.get(key))).size > 1;
  });
  const short = (key: string) =>
    keys.filter((other) => lastPart(other) === lastPart(key)).length > 1 ? key : lastPart(key);
  // How the parameters are shared is what most studies are about: it needs no word before it, and stands first.
  keys.sort((a, b) => Number(b === SHARING) - Number(a === SHARING));
  const parts = all.map((settings) =>
    keys.map((key) => {
      const value = (settings.get(key) ?? 'none').replaceAll('"', '');
      if (key === SHARING) return value;
      const [setting = '', until] = short(key).split(UNTIL);
      if (until === undefined) return `${setting} ${value}`;
      return settings.has(key) ? `${setting} ${value}${UNTIL}${until}` : `${setting} unchanged`;
    }),
  );
  const names = parts.map((list) => list.slice(0, MOST).join(', '));
  return new Set(names).size === names.length ? names : parts.map((list) => list.join(', '));
}

const lastPart = (key: string) => (key.startsWith(FILE) ? key : (key.split('.').at(-1) ?? key));

const SHARING = 'policies.sharing';
