/** Pictures of the layers of a run: Gram matrices as heat maps, and cosines of roles over its steps. */
import type { Figure, Row } from './figure.js';
import { matrices, stepHeatMap } from './heat-maps.js';
import { type GramEntry, meanGrams } from './layers.js';
import type { RunData } from './run-data.js';

/** Steps that the heat maps at the start and at the end of a run average. */
const WINDOW = 10;
/** Columns of the heat map over steps. */
const BINS = 80;

export function layerFigures(run: RunData): Figure[] {
  return run.layers.policies.flatMap((policy) => {
    const entries = run.layers.finest(policy);
    const windows: [string, number, number][] =
      run.steps > 2 * WINDOW
        ? [
            ['first', 0, WINDOW],
            ['last', run.steps - WINDOW, run.steps],
          ]
        : [['all', 0, run.steps]];
    return [
      ...windows.flatMap(([name, from, to]) => gramFigure(policy, name, meanGrams(entries, from, to))),
      ...overSteps(policy, run.layers.roles(policy), run.steps),
    ];
  });
}

function gramFigure(policy: string, name: string, means: readonly GramEntry[]): Figure[] {
  if (means.length === 0) return [];
  const groups = [...new Set(means.flatMap(({ a, b }) => [a, b]))];
  const layers = [...new Set(means.map(({ layer }) => layer))];
  const drawn = layers.map((layer) => ({
    title: `layer ${layer}`,
    cells: means
      .filter((entry) => entry.layer === layer)
      .flatMap(({ a, b, cosine }) => {
        const cell = { x: a, y: b, value: cosine };
        return a === b ? [cell] : [cell, { x: b, y: a, value: cosine }];
      }),
  }));
  return [
    {
      id: `gram-${fileName(policy)}-${name}`,
      title: `Gram matrices of ${policy}, ${name} ${name === 'all' ? '' : `${WINDOW} `}steps`,
      caption: 'Cosines between the gradients of the groups.',
      svg: () => matrices(drawn, groups),
      legend: [],
      numbers: means.map(({ layer, a, b, gram, cosine }): Row => ({ layer, a, b, gram, cosine })),
    },
  ];
}

function overSteps(policy: string, entries: readonly GramEntry[], steps: number): Figure[] {
  const pairs = [...new Set(entries.map(({ a, b }) => JSON.stringify([a, b])))];
  const size = Math.max(1, Math.ceil(steps / BINS));
  return pairs.flatMap((pair) => {
    const [a, b] = JSON.parse(pair) as [string, string];
    const own = entries.filter((entry) => entry.a === a && entry.b === b);
    const cells = Array.from({ length: Math.ceil(steps / size) }, (_, bin) => {
      const means = meanGrams(own, bin * size, (bin + 1) * size);
      return means.map(({ layer, cosine }) => ({ x: bin * size, y: layer, value: cosine }));
    }).flat();
    if (cells.every(({ value }) => value === null)) return [];
    return [
      {
        id: `layers-${fileName(policy)}-${fileName(a)}-${fileName(b)}`,
        title: `Cosine of ${a} and ${b}, by layer`,
        caption: `Policy ${policy}${size === 1 ? '' : `; means over ${size} steps`}.`,
        svg: () => stepHeatMap(cells),
        legend: [],
        numbers: cells.map(({ x, y, value }): Row => ({ step: x, layer: y, cosine: value })),
      },
    ];
  });
}

function fileName(name: string): string {
  return name.replaceAll(/[^\w-]/g, '-');
}
