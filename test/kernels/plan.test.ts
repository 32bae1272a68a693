/** The plan of a batch's trees: its calls together are the trees' attention mask, every pair once. */
import { expect, it } from 'vitest';
import { native } from '../../src/engine/native.js';
import { generator } from './kernels.js';

interface Call {
  causal: boolean;
  queryBegin: number;
  queryRows: number;
  keyBegin: number;
  keyRows: number;
  longestQuery: number;
  longestKey: number;
  queries: Int32Array;
  keys: Int32Array;
}

const addon = native() as unknown as {
  treePlan(nodes: number[], rows: number): { order: number[]; place: number[]; calls: Call[] };
};

interface Node {
  start: number;
  length: number;
  parent: number;
}

/** Depth-first forests with nodes of 0 to 6 rows, up to four levels. */
function forest(next: () => number): Node[] {
  const nodes: Node[] = [];
  let start = 0;
  const grow = (parent: number, depth: number) => {
    const length = Math.floor(next() * 7);
    const index = nodes.push({ start, length, parent }) - 1;
    start += length;
    const children = depth === 3 ? 0 : Math.floor(next() * 4);
    for (let i = 0; i < children; i++) grow(index, depth + 1);
  };
  const roots = 1 + Math.floor(next() * 3);
  for (let i = 0; i < roots; i++) grow(-1, 0);
  return nodes;
}

/** The batch's rows that each of its rows attends to. */
function expectedPairs(nodes: Node[]): Set<string> {
  const pairs = new Set<string>();
  for (const node of nodes) {
    for (let i = 0; i < node.length; i++) {
      for (let j = 0; j <= i; j++) pairs.add(`${node.start + i} ${node.start + j}`);
      for (let parent = node.parent; parent >= 0; parent = (nodes[parent] as Node).parent) {
        const { start, length } = nodes[parent] as Node;
        for (let j = 0; j < length; j++) pairs.add(`${node.start + i} ${start + j}`);
      }
    }
  }
  return pairs;
}

function pairsOf({ order, calls }: { order: number[]; calls: Call[] }): string[] {
  const pairs: string[] = [];
  for (const call of calls) {
    for (let s = 0; s + 1 < call.queries.length; s++) {
      const [q0, q1] = [call.queries[s] as number, call.queries[s + 1] as number];
      const [k0, k1] = [call.keys[s] as number, call.keys[s + 1] as number];
      for (let q = q0; q < q1; q++) {
        const last = call.causal ? k0 + (q - q0) : k1 - 1;
        for (let k = k0; k <= last; k++)
          pairs.push(`${order[call.queryBegin + q]} ${order[call.keyBegin + k]}`);
      }
    }
  }
  return pairs;
}

it('the calls of 200 random forests are their dense masks', () => {
  const next = generator(17);
  let deepest = 0;
  for (let round = 0; round < 200; round++) {
    const nodes = forest(next);
    const plan = addon.treePlan(
      nodes.flatMap(({ start, length, parent }) => [start, length, parent]),
      nodes.reduce((sum, { length }) => sum + length, 0),
    );
    const pairs = pairsOf(plan);
    expect(new Set(pairs).size).toBe(pairs.length);
    expect(new Set(pairs)).toEqual(expectedPairs(nodes));
    plan.order.forEach((row, place) => {
      expect(plan.place[row]).toBe(place);
    });
    for (const call of plan.calls) {
      expect([call.queries.at(-1), call.keys.at(-1)]).toEqual([call.queryRows, call.keyRows]);
      expect(call.queries.length).toBe(call.keys.length);
      const lengths = (offsets: Int32Array) =>
        Array.from(offsets.slice(1), (end, i) => end - (offsets[i] as number));
      expect(Math.max(0, ...lengths(call.queries))).toBe(call.longestQuery);
      expect(Math.max(0, ...lengths(call.keys))).toBe(call.longestKey);
      // Flash attention without keys leaves its result undefined.
      expect(lengths(call.keys).every((length) => length > 0)).toBe(true);
    }
    deepest = Math.max(deepest, plan.calls.length);
  }
  expect(deepest).toBe(7); // four levels: one causal call and six pairs
});

it('two levels take two calls, whatever the number of samples', () => {
  const nodes = [0, 10, -1];
  for (let i = 0; i < 50; i++) nodes.push(10 + 3 * i, 3, 0);
  expect(addon.treePlan(nodes, 160).calls.length).toBe(2);
});
