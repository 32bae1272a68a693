/** Prefix trees of few levels, as a GPU wants them: held against every way to share less, on small trees. */
import { describe, expect, it } from 'vitest';
import type { PackCall } from '../../src/engine/native-model.js';
import { generator } from '../kernels/kernels.js';
import { addon, checkTensorsAreFreed, keep } from './support.js';

checkTensorsAreFreed();

/** A text and one token more, which has no row: so that a call's rows are its text. */
const callOf = (text: readonly number[]): PackCall => ({
  prompt: Int32Array.from(text.slice(0, 1)),
  response: Int32Array.from([...text.slice(1), 99]),
  group: 0,
});

const pack = (texts: readonly (readonly number[])[], levels: number) => {
  const { rows, levels: depth } = keep(addon.pack(texts.map(callOf), 1, true, levels));
  return { rows, levels: depth };
};

const begins = (text: readonly number[], prefix: readonly number[]) => prefix.every((t, i) => text[i] === t);

/** Every beginning that different continuations have. */
function branchesOf(texts: readonly number[][]): number[][] {
  const all = new Map<string, number[]>();
  for (const a of texts) {
    for (const b of texts) {
      if (a === b) continue;
      let end = 0;
      while (end < Math.min(a.length, b.length) && a[end] === b[end]) end++;
      if (end > 0) all.set(a.slice(0, end).join(), a.slice(0, end));
    }
  }
  return [...all.values()];
}

/** Rows of the texts where these beginnings alone are shared; undefined: they have too many levels. */
function rowsOf(texts: readonly number[][], shared: readonly number[][], levels: number): number | undefined {
  let rows = 0;
  const add = (text: readonly number[]) => {
    const above = shared.filter((other) => begins(text, other) && other.length < text.length);
    rows += text.length - Math.max(0, ...above.map(({ length }) => length));
    return above.length < levels;
  };
  return [...shared, ...texts].map(add).every(Boolean) ? rows : undefined;
}

/** Of all 2ⁿ ways. A text that another goes on from takes no rows beside it. */
function fewestRows(all: readonly number[][], levels: number): number {
  const goesOn = (a: readonly number[], b: readonly number[], i: number, j: number) =>
    begins(b, a) && (b.length > a.length || j > i);
  const texts = all.filter((text, i) => !all.some((other, j) => goesOn(text, other, i, j)));
  const branches = branchesOf(texts);
  const ways = Array.from({ length: 2 ** branches.length }, (_, choice) =>
    rowsOf(
      texts,
      branches.filter((_, i) => (choice >> i) & 1),
      levels,
    ),
  );
  return Math.min(...ways.map((rows) => rows ?? Number.POSITIVE_INFINITY));
}

describe('of all ways to share', () => {
  const next = generator(7);
  const random = (below: number) => Math.floor(next() * below);
  /** Texts that often begin alike: each the beginning of one before it, and some tokens more. */
  const texts = () => {
    const made: number[][] = [];
    for (let i = 0; i < 2 + random(6); i++) {
      const from = made[random(made.length)] ?? [];
      made.push([
        ...from.slice(0, random(from.length + 1)),
        ...Array.from({ length: 1 + random(30) }, () => random(2)),
      ]);
    }
    return made;
  };

  it.each([1, 2, 3, 4])('at most %i levels take the fewest rows', (levels) => {
    let limited = 0;
    for (let round = 0; round < 60; round++) {
      const these = texts();
      const batch = pack(these, levels);
      expect(batch.levels, JSON.stringify(these)).toBeLessThanOrEqual(levels);
      expect(batch.rows, JSON.stringify(these)).toBe(fewestRows(these, levels));
      if (batch.rows > pack(these, 0).rows) limited++;
    }
    expect(limited).toBeGreaterThan(levels < 4 ? 5 : 0);
  });
});

it('answers that begin alike never take more rows on two levels than shared prompts alone would leave', () => {
  const texts = Array.from({ length: 64 }, (_, i) => {
    const prompt = [1, 2, 3, ...Array.from({ length: 20 }, (_, at) => 10 + (i >> 3) * 3 + (at % 3))];
    // "To solve this", "To solve the", …: eight samples, each sharing a few tokens with those before it.
    return [
      ...prompt,
      ...Array.from({ length: i % 8 }, () => 50),
      ...Array.from({ length: 30 }, () => 60 + (i % 8)),
    ];
  });
  const all = pack(texts, 0);
  expect(all.levels).toBeGreaterThan(7);
  const limited = pack(texts, 2);
  expect(limited.levels).toBe(2);
  expect(limited.rows).toBeGreaterThan(all.rows);
  expect(limited.rows).toBeLessThanOrEqual(8 * 23 + texts.reduce((sum, { length }) => sum + length - 23, 0));
});

/** Calls of prompts some of which go on where others end, and rows if prompts alone were shared. */
function nested(next: () => number): { calls: PackCall[]; prompts: number } {
  const random = (below: number) => Math.floor(next() * below);
  const prompts: number[][] = [];
  for (let i = 0; i < 1 + random(5); i++) {
    const more = Array.from({ length: 1 + random(20) }, () => random(2));
    prompts.push([...(prompts[random(2 * prompts.length)] ?? []), ...more]);
  }
  const calls = prompts.flatMap((prompt) =>
    Array.from({ length: 1 + random(5) }, () => ({
      prompt: Int32Array.from(prompt),
      response: Int32Array.from({ length: 1 + random(6) }, () => random(3)),
      group: 0,
    })),
  );
  const different = new Map(prompts.map((prompt) => [prompt.join(), prompt.length]));
  const shared = [...different.values()].reduce((sum, length) => sum + length, 0);
  return { calls, prompts: calls.reduce((sum, { response }) => sum + response.length - 1, shared) };
}

it('prompts that go on where others end take no more rows either', () => {
  const prompt = Array.from({ length: 20 }, (_, i) => i);
  const longer = [...prompt, ...prompt];
  const calls = [...Array(4).fill(prompt), ...Array(4).fill(longer)].map((text: number[], i) => ({
    prompt: Int32Array.from(text),
    response: Int32Array.of(50 + i, 99),
    group: 0,
  }));
  expect(keep(addon.pack(calls, 1, true, 2)).rows).toBe(20 + 40 + 8);
  const next = generator(3);
  for (let round = 0; round < 300; round++) {
    const { calls: these, prompts } = nested(next);
    const batch = keep(addon.pack(these, 1, true, 2));
    expect(batch.levels).toBeLessThanOrEqual(2);
    expect(batch.rows).toBeLessThanOrEqual(prompts);
  }
});

it('what is shared is what saves most', () => {
  const texts = Array.from({ length: 16 }, (_, i) => [
    ...Array.from({ length: 100 }, (_, at) => at % 50),
    ...Array.from({ length: 40 }, () => 50 + (i >> 2)),
    ...Array.from({ length: 20 }, () => 60 + (i % 4)),
  ]);
  expect(pack(texts, 3)).toEqual({ rows: 100 + 4 * 40 + 16 * 20, levels: 3 });
  expect(pack(texts, 2)).toEqual({ rows: 4 * 140 + 16 * 20, levels: 2 });
  expect(pack(texts, 1)).toEqual({ rows: 16 * 160, levels: 1 });
});

it('turns of a conversation, each of which goes on from the last, are one level', () => {
  // Four conversations of three turns about one question, as a generator has with an evaluator.
  const calls = Array.from({ length: 4 }, (_, sample) => {
    const said = (turn: number) => Array.from({ length: 10 }, () => 20 + 4 * turn + sample);
    return [0, 1, 2].map((turn) => ({
      prompt: Int32Array.of(
        ...Array.from({ length: 30 }, (_, at) => at % 10),
        ...Array.from({ length: turn }, (_, before) => [...said(before), 11, 12, 13, 14, 15]).flat(),
      ),
      response: Int32Array.from(said(turn)),
      group: 0,
    }));
  }).flat();
  const batch = keep(addon.pack(calls, 1, true, 2));
  const { rows, levels, entries } = batch;
  expect({ rows, levels, entries }).toEqual({
    rows: 30 + 4 * (10 + 5 + 10 + 5 + 9),
    levels: 2,
    entries: 120,
  });
  expect(keep(addon.pack(calls, 1, true))).toMatchObject({ rows, levels, entries });
  // Two who go on from one turn differently part there.
  const [first] = calls as [PackCall];
  const others = [70, 71].map((token) => ({
    prompt: Int32Array.of(...first.prompt, ...first.response, token),
    response: Int32Array.of(72, 99),
    group: 0,
  }));
  expect(keep(addon.pack([first, ...others], 1, true))).toMatchObject({ rows: 30 + 10 + 2 * 2, levels: 2 });
});

it('thousands of texts', () => {
  const each = (end: number[]) =>
    Array.from({ length: 1500 }, (_, i) => [...Array.from({ length: i + 1 }, () => 7), ...end]);
  // Each the one before it and a token more: all of them are the longest's rows.
  expect(pack(each([]), 0)).toEqual({ rows: 1500, levels: 1 });
  // Each parts from those after it.
  expect(pack(each([8]), 0)).toEqual({ rows: 1500 + 1500, levels: 1500 });
  expect(pack(each([8]), 3).levels).toBe(3);
});
