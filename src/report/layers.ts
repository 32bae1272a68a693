/** Gram matrices by layer, over the steps of a run: the tables `gradients` and `gradient_pairs` at scope `layer`. */
import type { Table } from 'apache-arrow';
import { groupName } from '../gradients/groups.js';
import type { TableName } from '../streams/tables.js';
import { columnsOf } from './table-rows.js';

/** One entry of the Gram matrix of a layer at a step. */
export interface GramEntry {
  step: number;
  layer: number;
  /** Names of groups, e.g. "voter/0"; the same for the diagonal. */
  a: string;
  b: string;
  /** ⟨g_a, g_b⟩. */
  gram: number;
  /** Null where it was not measured, or is within the error of a sketch. */
  cosine: number | null;
}

/** Largest number of groups whose matrices can be read in a picture. */
const MOST_GROUPS = 12;

/** Groupings whose groups are parts of roles, the finest first. */
const FINEST = ['role/slot/turn', 'role/slot', 'role/turn', 'role'] as const;

export class LayerGrams {
  /** By policy, then by grouping. */
  readonly #entries = new Map<string, Map<string, GramEntry[]>>();

  add(name: TableName, table: Table): void {
    const pairs = name === 'gradient_pairs';
    const ends = pairs ? ['_a', '_b'] : ['', ''];
    const columns = columnsOf(
      table,
      ['step', 'policy', 'grouping', 'scope', 'layer', 'norm', 'gram', 'cosine'],
      ends.flatMap((end) => ['role', 'slot', 'turn'].map((key) => key + end)),
    );
    for (let row = 0, rows = table.numRows; row < rows; row++) {
      const grouping = String(columns.text('grouping', row));
      if (columns.text('scope', row) !== 'layer' || !FINEST.some((one) => one === grouping)) continue;
      const norm = pairs ? null : columns.number('norm', row);
      const gram = pairs ? columns.number('gram', row) : norm === null ? null : norm * norm;
      if (gram === null) continue;
      const [a = '', b = ''] = ends.map((end) =>
        groupName({
          role: columns.text(`role${end}`, row),
          slot: columns.number(`slot${end}`, row),
          turn: columns.number(`turn${end}`, row),
        }),
      );
      this.#of(String(columns.text('policy', row)), grouping).push({
        step: columns.number('step', row) ?? 0,
        layer: columns.number('layer', row) ?? -1,
        a,
        b,
        gram,
        cosine: pairs ? columns.number('cosine', row) : 1,
      });
    }
  }

  get policies(): string[] {
    return [...this.#entries.keys()];
  }

  /** Entries of the finest grouping of a policy that fits into a picture; none where it has one group only. */
  finest(policy: string): GramEntry[] {
    for (const grouping of FINEST) {
      const entries = this.#entries.get(policy)?.get(grouping) ?? [];
      const groups = new Set(entries.map(({ a }) => a)).size;
      if (groups >= 2 && groups <= MOST_GROUPS) return entries;
    }
    return [];
  }

  /** Entries between two different roles of a policy. */
  roles(policy: string): GramEntry[] {
    return (this.#entries.get(policy)?.get('role') ?? []).filter(({ a, b }) => a !== b);
  }

  #of(policy: string, grouping: string): GramEntry[] {
    const groupings = this.#entries.get(policy) ?? new Map<string, GramEntry[]>();
    this.#entries.set(policy, groupings);
    const entries = groupings.get(grouping) ?? [];
    groupings.set(grouping, entries);
    return entries;
  }
}

/** Means over steps of each entry of each layer. Steps from `from` on and before `to`. */
export function meanGrams(entries: readonly GramEntry[], from: number, to: number): GramEntry[] {
  const means = new Map<string, GramEntry & { count: number; cosines: number }>();
  for (const { step, layer, a, b, gram, cosine } of entries) {
    if (step < from || step >= to) continue;
    const key = JSON.stringify([layer, a, b]);
    const mean = means.get(key) ?? { step: from, layer, a, b, gram: 0, cosine: null, count: 0, cosines: 0 };
    means.set(key, mean);
    mean.gram += (gram - mean.gram) / ++mean.count;
    if (cosine === null) continue;
    mean.cosine = (mean.cosine ?? 0) + (cosine - (mean.cosine ?? 0)) / ++mean.cosines;
  }
  return [...means.values()]
    .map(({ step, layer, a, b, gram, cosine }) => ({ step, layer, a, b, gram, cosine }))
    .sort((one, other) => one.layer - other.layer);
}
