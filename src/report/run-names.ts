/** What tells the runs of one picture apart: the settings in which their configurations differ. */
import type { RunConfig } from '../config/schema.js';

/** Keys that say where a run goes and how it is kept, not what it learns. */
const ASIDE = /^(seed|run|checkpoints|sinks)(\.|$)/;

/** Every setting but the seed and where the run is kept, by its dotted key. */
export function settingsOf(config: RunConfig): Map<string, string> {
  const settings = new Map<string, string>();
  const add = (key: string, value: unknown): void => {
    if (ASIDE.test(key)) return;
    const inside = typeof value === 'object' && value !== null && !Array.isArray(value);
    if (!inside) settings.set(key, JSON.stringify(value) ?? '');
    else for (const [name, item] of Object.entries(value)) add(key === '' ? name : `${key}.${name}`, item);
  };
  add('', config);
  return settings;
}

/** Settings that a name has at most, where they are enough to tell all apart. */
const MOST = 3;

/**
 * One name for each configuration: "isolated", "shared, learningRate 5e-4". What is the same in all of them is left
 * out; the last part of a key is enough where no other key that differs ends so.
 */
export function distinctNames(configs: readonly RunConfig[]): string[] {
  const all = configs.map(settingsOf);
  const keys = [...new Set(all.flatMap((settings) => [...settings.keys()]))].filter((key) => {
    return new Set(all.map((settings) => settings.get(key))).size > 1;
  });
  const short = (key: string) => {
    const last = key.split('.').at(-1) ?? key;
    return keys.filter((other) => other.split('.').at(-1) === last).length > 1 ? key : last;
  };
  // How the parameters are shared is what most studies are about: it needs no word before it, and stands first.
  keys.sort((a, b) => Number(b === SHARING) - Number(a === SHARING));
  const parts = all.map((settings) =>
    keys.map((key) => {
      const value = (settings.get(key) ?? 'none').replaceAll('"', '');
      return key === SHARING ? value : `${short(key)} ${value}`;
    }),
  );
  const names = parts.map((list) => list.slice(0, MOST).join(', '));
  return new Set(names).size === names.length ? names : parts.map((list) => list.join(', '));
}

const SHARING = 'policies.sharing';
