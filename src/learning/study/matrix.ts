/**
 * The cells of a study: every combination of the values of its axes, each the configuration of one run. A run's
 * random numbers and the order of its problems follow from its seed alone, so cells of one seed are paired.
 */
import { basename, extname, join } from 'node:path';
import { z } from 'zod';
import { checkSection, type KeyPath } from '../../config/check.js';
import { TroupeError } from '../../config/errors.js';
import { extendedLayers, type Layer, readLayer, runConfigOf } from '../../config/load.js';
import { unknownName } from '../../config/nearest.js';
import type { RunConfig } from '../../config/schema.js';
import { limitUserCode } from '../../config/user-code.js';
import { checkWorkflow } from '../../workflows/registry.js';

/** Axes whose values are written as a list, and the key that they set. */
const LISTED: Record<string, KeyPath> = {
  workflow: ['workflow', 'name'],
  sharing: ['policies', 'sharing'],
  model: ['model', 'path'],
  task: ['task', 'name'],
  seed: ['seed'],
};

const scalar = z.union([z.string(), z.number(), z.boolean()]);
const fragment = z.record(z.string(), z.unknown());

const studySchema = z.strictObject({
  folder: z
    .string()
    .default('')
    .describe('Where the cells run; empty: runs/ and the name of the file. --folder wins.'),
  config: fragment
    .default({})
    .describe('What all cells have in common: the keys of a run, `extends` too (docs/configuration.md).'),
  axes: z
    .record(z.string().regex(/^\w+$/), z.union([z.array(scalar).min(1), z.record(z.string(), fragment)]))
    .describe(
      'Values by axis. workflow, sharing, model, task and seed may have a list of values; any axis may have a map ' +
        'from a value to the keys of a run that it sets.',
    ),
  singleAgent: z
    .boolean()
    .default(true)
    .describe('Whether a list of workflows gets `single` as a control, if it is not in it.'),
});

export interface Cell {
  /** Values of its axes, joined: the name of its folder. */
  id: string;
  /** Value of each axis; null where it makes no difference, as sharing for a workflow of one role. */
  axes: Record<string, string | null>;
  config: RunConfig;
}

export interface Study {
  folder: string;
  axes: string[];
  /** All cells of the first seed come before those of the next. */
  cells: Cell[];
}

interface Value {
  label: string;
  layers: Layer[];
}

/** `overrides`: as --set, for every cell. Throws a TroupeError for whatever is wrong with the file or a cell. */
export async function loadStudy(file: string, overrides: readonly string[] = []): Promise<Study> {
  const layer = readLayer(file);
  const study = checkSection(studySchema, layer.value, { whole: 'the study', locate: layer.locate });
  const common = extendedLayers(part(layer, ['config'], study.config), file);
  const axes = Object.entries(study.axes).map(([axis, values]) => {
    return { axis, values: valuesOf(axis, values, layer, file, study.singleAgent) };
  });
  const cells = new Map<string, Cell>();
  for (const combination of combinations(slowestFirst(axes))) {
    const cell = await cellOf(combination, common, overrides);
    const same = cells.get(cell.id);
    if (same === undefined) cells.set(cell.id, cell);
    else if (JSON.stringify(same.axes) !== JSON.stringify(cell.axes)) {
      throw new TroupeError(`two cells would have the name ${cell.id}.`, {
        where: file,
        hint: 'Give the values of the axes names that differ in letters and digits.',
      });
    }
  }
  const folder = study.folder || join('runs', basename(file, extname(file)));
  return { folder, axes: axes.map(({ axis }) => axis), cells: [...cells.values()] };
}

/** What stands at `path` of a layer, as a layer. */
function part(layer: Layer, path: KeyPath, value: Record<string, unknown>): Layer {
  return { value, locate: (key) => layer.locate([...path, ...key]) };
}

function valuesOf(
  axis: string,
  values: z.output<typeof studySchema>['axes'][string],
  layer: Layer,
  file: string,
  singleAgent: boolean,
): Value[] {
  if (!Array.isArray(values)) {
    return Object.entries(values).map(([label, keys]) => {
      return { label, layers: extendedLayers(part(layer, ['axes', axis, label], keys), file) };
    });
  }
  const path = LISTED[axis];
  if (path === undefined) {
    throw new TroupeError(`the axis ${axis} has a list, but sets no key of a run by its name.`, {
      where: layer.locate(['axes', axis]) ?? file,
      hint: `Write a map from each value to the keys that it sets; lists are for ${Object.keys(LISTED).join(', ')}.`,
    });
  }
  const all =
    axis === 'workflow' && singleAgent && !values.includes('single') ? [...values, 'single'] : values;
  return all.map((value) => {
    const within = (key: KeyPath) => key.every((one, i) => i >= path.length || one === path[i]);
    const locate = (key: KeyPath) => (within(key) ? layer.locate(['axes', axis]) : undefined);
    return { label: String(value), layers: [{ value: nested(path, value), locate }] };
  });
}

/** { a: { b: value } } */
function nested(path: KeyPath, value: unknown): Record<string, unknown> {
  return path.reduceRight<unknown>((inner, key) => ({ [key]: inner }), value) as Record<string, unknown>;
}

interface Axis {
  axis: string;
  values: Value[];
}

/** A study that was broken off has whole seeds, so that what it has can be compared. */
function slowestFirst(axes: readonly Axis[]): Axis[] {
  return [...axes.filter(({ axis }) => axis === 'seed'), ...axes.filter(({ axis }) => axis !== 'seed')];
}

type Combination = { axis: string; value: Value }[];

function combinations(axes: readonly Axis[]): Combination[] {
  return axes.reduce<Combination[]>(
    (found, { axis, values }) => found.flatMap((one) => values.map((value) => [...one, { axis, value }])),
    [[]],
  );
}

async function cellOf(
  combination: Combination,
  common: Layer[],
  overrides: readonly string[],
): Promise<Cell> {
  const { config, locate } = runConfigOf(
    [...common, ...combination.flatMap(({ value }) => value.layers)],
    overrides,
  );
  limitUserCode(config.run);
  const { workflow } = await checkWorkflow(config.workflow, locate);
  const alone = workflow.roles.length === 1;
  const axes = combination.map(({ axis, value }): [string, string | null] => {
    return [axis, alone && axis === 'sharing' ? null : value.label];
  });
  return { id: idOf(axes), axes: Object.fromEntries(axes), config };
}

/** Values of the axes, the seed behind the others. */
function idOf(axes: readonly [string, string | null][]): string {
  const others = axes.flatMap(([axis, label]) => (axis === 'seed' || label === null ? [] : [label]));
  const seeds = axes.flatMap(([axis, label]) => (axis === 'seed' ? [`seed${label}`] : []));
  return [...others, ...seeds].join('-').replace(/[^\w.-]+/g, '_') || 'cell';
}

export interface Selection {
  /** "axis=value" or "axis=value,value": cells that have one of them, for each axis that is named. */
  only: readonly string[];
  /** "2/4": the second quarter of the cells; they are dealt out in turn. */
  slice?: string | undefined;
}

/** The cells that are asked for. Throws a TroupeError for an axis or value that no cell has. */
export function selectCells({ cells, axes }: Study, { only, slice }: Selection): Cell[] {
  const wanted = only.map((text) => {
    const [axis = '', list = ''] = text.split(/=(.*)/s);
    if (!axes.includes(axis)) throw unknownName('axis', axis, axes, '--only');
    const values = list.split(',');
    const known = [...new Set(cells.flatMap((cell) => cell.axes[axis] ?? []))];
    for (const value of values) {
      if (!known.includes(value)) throw unknownName(`value of ${axis}`, value, known, '--only');
    }
    return { axis, values };
  });
  const chosen = cells.filter((cell) =>
    wanted.every(({ axis, values }) => values.includes(cell.axes[axis] ?? '')),
  );
  if (slice === undefined) return chosen;
  const [, index, of] = (/^(\d+)\/(\d+)$/.exec(slice) ?? []).map(Number);
  if (index === undefined || of === undefined || index < 1 || index > of) {
    throw new TroupeError(`"${slice}" is no slice; it takes I/N with 1 ≤ I ≤ N, such as 2/4.`, {
      where: '--slice',
    });
  }
  return chosen.filter((_, i) => i % of === index - 1);
}
