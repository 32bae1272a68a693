/**
 * A run's configuration from its layers: presets and files that a file extends, the file, and `--set`
 * overrides, in this order; maps merge, everything else replaces, and null takes a key back to its default. Remembers
 * where each key was written, for error messages. The schema itself is in schema.ts.
 */
import { existsSync, readdirSync } from 'node:fs';
import { basename, dirname, extname, join, relative, resolve } from 'node:path';
import { isMap } from 'yaml';
import type { z } from 'zod';
import { checkSection, type KeyPath } from './check.js';
import { EMBEDDED_DEFAULTS, isEmbedded } from './embedded.js';
import { TroupeError } from './errors.js';
import { readText } from './json.js';
import { suggestion } from './nearest.js';
import { overrideObject, parseOverride } from './overrides.js';
import { findPath, isPythonFile, packageRoot } from './package.js';
import { type RunConfig, runSchema } from './schema.js';
import { nodeAt, type SchemaNode, schemaNode, takesNull } from './takes.js';
import { yamlOf } from './yaml.js';

type Map = Record<string, unknown>;

/** One file or override, or a part of a file: what it says, and where. */
export interface Layer {
  value: Map;
  locate(path: KeyPath): string | undefined;
}

export interface LoadedConfig<T = RunConfig> {
  config: T;
  /** Where a key was written, e.g. "run.yaml:12" or "--set a.b=1"; undefined for defaults. */
  locate(path: KeyPath): string | undefined;
}

/** `file`: a path, or the name of a preset; without it everything has its default. */
export function loadRunConfig(file: string | undefined, overrides: readonly string[] = []): LoadedConfig {
  return runConfigOf(file === undefined ? [] : layersOfFile(file), overrides);
}

/** The same from layers, the lowest one first. */
export function runConfigOf(layers: readonly Layer[], overrides: readonly string[] = []): LoadedConfig {
  const first = configOf(runSchema, layers, overrides);
  const loaded = isEmbedded(first.config.model.path)
    ? configOf(runSchema, [{ value: EMBEDDED_DEFAULTS, locate: () => undefined }, ...layers], overrides)
    : first;
  // What is no file here may be the name of a known model.
  const found = findPath(loaded.config.model.path);
  if (existsSync(found)) loaded.config.model.path = found;
  return loaded;
}

/** The same for any schema. */
export function loadConfig<S extends z.ZodType>(
  schema: S,
  file: string | undefined,
  overrides: readonly string[],
): LoadedConfig<z.output<S>> {
  return configOf(schema, file === undefined ? [] : layersOfFile(file), overrides);
}

function layersOfFile(file: string): Layer[] {
  return fileLayers(findConfig(file, process.cwd()), []);
}

function configOf<S extends z.ZodType>(
  schema: S,
  below: readonly Layer[],
  overrides: readonly string[],
): LoadedConfig<z.output<S>> {
  const layers = [...below, ...overrides.map(overrideLayer)];
  // The overrides are one layer: `task.files` counts, whether it stands before `task.name` or behind it.
  const node = schemaNode(schema);
  const above = layers.slice(below.length).reduce<Map>((all, layer) => merge(all, layer, false), {});
  const locate = (path: KeyPath) => {
    for (const layer of layers.toReversed()) {
      const where = layer.locate(path);
      if (where !== undefined) return where;
    }
    return undefined;
  };
  const all = [...below, { value: above, locate }];
  const merged = unset(
    all.reduce<Map>((lower, layer) => merge(lower, layer, true), {}),
    node,
  );
  return { config: checkSection(schema, merged, { locate }), locate };
}

/** Names of the presets, sorted. */
export function presetNames(): string[] {
  return readdirSync(presetFolder())
    .filter((name) => extname(name) === '.yaml')
    .map((name) => basename(name, '.yaml'))
    .sort();
}

function presetFolder(): string {
  return join(packageRoot(), 'configs', 'presets');
}

function findConfig(name: string, folder: string, where?: string): string {
  const file = resolve(folder, name);
  if (existsSync(file)) return file;
  if (/^[\w-]+$/.test(name) && presetNames().includes(name)) return join(presetFolder(), `${name}.yaml`);
  const hint = suggestion(name, presetNames());
  throw new TroupeError(
    `no configuration file or preset is named "${name}"; presets: ${presetNames().join(', ')}.`,
    {
      ...(where === undefined ? {} : { where }),
      ...(hint === undefined ? {} : { hint }),
    },
  );
}

/** The layers of a file, those that it extends first. `above`: the files that led here. */
function fileLayers(file: string, above: string[]): Layer[] {
  if (above.includes(file)) {
    throw new TroupeError(`extends itself: ${[...above, file].map(shortPath).join(' → ')}.`, {
      where: shortPath(file),
    });
  }
  return extendedLayers(readLayer(file), file, above);
}

/** A layer that stands in a file, behind those that it extends. */
export function extendedLayers({ value, locate }: Layer, file: string, above: string[] = []): Layer[] {
  const { extends: bases, ...rest } = value;
  const names: unknown[] = [bases ?? []].flat();
  const layers = names.flatMap((name) => {
    const where = locate(['extends']);
    if (typeof name !== 'string') {
      throw new TroupeError(
        `extends is ${JSON.stringify(name)}; it takes the name of a preset or a file, or a list.`,
        {
          ...(where === undefined ? {} : { where }),
        },
      );
    }
    return fileLayers(findConfig(name, dirname(file), where), [...above, file]);
  });
  return [...layers, { value: rest, locate }];
}

/** What a YAML file says. Throws a TroupeError if it cannot be read or holds no map. */
export function readLayer(file: string): Layer {
  const name = shortPath(file);
  const { value, contents, lineOf } = yamlOf(readText(file), name);
  if (contents !== null && !isMap(contents)) {
    throw new TroupeError('is not a map of keys and values.', { where: name });
  }
  const locate = (path: KeyPath) => {
    let node: unknown = contents;
    let offset: number | undefined;
    for (const key of path) {
      if (!isMap(node)) return offset === undefined ? undefined : `${name}:${lineOf(offset)}`;
      const pair = node.items.find((item) => String(item.key) === String(key));
      if (pair === undefined) return undefined;
      offset = (pair.key as { range?: [number, number, number] }).range?.[0];
      node = pair.value;
    }
    return offset === undefined ? name : `${name}:${lineOf(offset)}`;
  };
  return { value: absolutePaths(value ?? {}, dirname(file)) as Map, locate };
}

/** Settings that are texts for a model or its template, whatever they begin with. */
const TEXTS = new Set(['stop', 'tools', 'fields']);

/** Paths that begin with ./ or ../ are relative to the file they stand in. */
function absolutePaths(value: unknown, folder: string): unknown {
  if (typeof value === 'string') return /^\.\.?\//.test(value) ? resolve(folder, value) : value;
  if (Array.isArray(value)) return value.map((item) => absolutePaths(item, folder));
  if (!isPlain(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, TEXTS.has(key) ? item : absolutePaths(item, folder)]),
  );
}

function overrideLayer(text: string): Layer {
  const override = parseOverride(text);
  const within = (path: KeyPath) =>
    path.every((key, i) => i >= override.path.length || key === override.path[i]);
  const value = absolutePaths(overrideObject(override), process.cwd()) as Map;
  return { value, locate: (path) => (path.length > 0 && within(path) ? `--set ${text}` : undefined) };
}

/** Sections that are about one named thing: whoever names another one says nothing about that one's settings. */
const NAMED: { path: KeyPath; named: string; keeps: string[] }[] = [
  { path: ['task'], named: 'arithmetic', keeps: [] },
  // A style of prompts has files for every workflow.
  { path: ['workflow'], named: 'voting', keeps: ['prompts'] },
  { path: ['learning', 'estimator'], named: 'grpo', keeps: [] },
  { path: ['learning', 'loss'], named: 'grpo', keeps: [] },
];

/** `below` with what the layer says on top: maps merge, unless they name another task, workflow, estimator or loss. */
function merge(below: Map, layer: Layer, replaces: boolean, path: KeyPath = []): Map {
  const section = NAMED.find((one) => one.path.join('.') === path.join('.'));
  const merged = section !== undefined && replaces ? { ...kept(below, layer.value, section) } : { ...below };
  for (const [key, value] of Object.entries(layer.value)) {
    if (key === '__proto__') {
      const where = layer.locate([...path, key]);
      throw new TroupeError('"__proto__" is no key.', { ...(where !== undefined && { where }) });
    }
    const old = merged[key];
    const within = { value: value as Map, locate: layer.locate };
    merged[key] = isPlain(value) ? merge(isPlain(old) ? old : {}, within, replaces, [...path, key]) : value;
  }
  return merged;
}

/** What stays of a section under one that may name something else. */
function kept(below: Map, above: Map, { named, keeps }: (typeof NAMED)[number]): Map {
  const nameOf = ({ module, python, name }: Map) => module ?? (isPythonFile(python) ? python : name);
  const wanted = nameOf(above);
  if (wanted === undefined || wanted === null || wanted === (nameOf(below) ?? named)) return below;
  return Object.fromEntries(Object.entries(below).filter(([key]) => keeps.includes(key)));
}

/** Without the keys that are null where null is no value: they have their defaults. */
export function unset(values: Map, schema: SchemaNode): Map {
  const entries = Object.entries(values).flatMap(([key, value]): [string, unknown][] => {
    const node = nodeAt(schema, [key]);
    if (value === null) return node === undefined || takesNull(node) ? [[key, value]] : [];
    return [[key, isPlain(value) && node !== undefined ? unset(value, node) : value]];
  });
  return Object.fromEntries(entries);
}

function isPlain(value: unknown): value is Map {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function shortPath(file: string): string {
  const short = relative(process.cwd(), file);
  return short.startsWith('..') ? file : short;
}
