/** Guards against a problem that two ranks run, or none, and against shares of the work that are needlessly unequal. */
import { describe, expect, it } from 'vitest';
import { type Count, Deal } from '../../src/engine/deal.js';
import { Ranks } from '../../src/engine/ranks.js';
import { beginByRoom, Room } from '../../src/learning/room.js';
import type { Complete } from '../../src/rollout/episode.js';

/** As the group's store counts. */
function counter(): Count {
  const counts = new Map<string, number>();
  return async (name, amount) => {
    counts.set(name, (counts.get(name) ?? 0) + amount);
    return counts.get(name) as number;
  };
}

const modulo = (size: number) => (problem: number) => problem % size;

function deals(size: number, problems: readonly number[]): Deal[] {
  const count = counter();
  const place = { size, ownerOf: modulo(size) };
  return Array.from({ length: size }, (_, rank) => new Deal('deal', problems, { rank, ...place }, count));
}

const upTo = (n: number) => Array.from({ length: n }, (_, i) => i);

describe('a deal', () => {
  it('gives every problem once, whoever asks when, a rank its own before those of others', async () => {
    for (let seed = 0; seed < 20; seed++) {
      const problems = upTo(11).filter((problem) => problem !== 4);
      const ranks = deals(3, problems);
      const given: number[][] = [[], [], []];
      const left = [0, 1, 2];
      for (let turn = seed; left.length > 0; turn = (turn * 7 + 3) % 31) {
        const rank = left[turn % left.length] as number;
        const taken = await (ranks[rank] as Deal).take(1 + (turn % 3));
        if (taken.length === 0) left.splice(left.indexOf(rank), 1);
        const others = taken.filter((problem) => problem % 3 !== rank);
        expect(others.length > 0).toBe(ranks[rank]?.othersTurn === true && taken.length > 0);
        given[rank]?.push(...taken);
      }
      expect(given.flat().sort((a, b) => a - b)).toEqual(problems);
      for (const [rank, its] of given.entries()) {
        const firstOther = its.findIndex((problem) => problem % 3 !== rank);
        const own = firstOther < 0 ? its : its.slice(firstOther);
        if (firstOther >= 0) expect(own.every((problem) => problem % 3 !== rank)).toBe(true);
      }
    }
  });

  it('leaves the whole work to one rank where the others never ask', async () => {
    const [, second] = deals(2, upTo(5));
    const taken: number[] = [];
    for (let next = await second?.take(9); next?.length; next = await second?.take(9)) taken.push(...next);
    expect(taken).toEqual([1, 3, 0, 2, 4]);
  });
});

it('a rank with short episodes runs what the one with long ones has not begun', async () => {
  const ranks = deals(2, upTo(8));
  const complete: Complete = async () => {
    await new Promise((resolve) => setTimeout(resolve, 5));
    return {} as Awaited<ReturnType<Complete>>;
  };
  const release: (() => void)[] = [];
  const ran = ranks.map(async (deal, rank) => {
    const room = new Room(complete, 4);
    const began: number[] = [];
    const { episodes, takenOver } = await beginByRoom(deal, room, 2, (problem) => {
      began.push(problem);
      return [0, 1].map(() =>
        room.during(async () => {
          if (rank === 0) await new Promise<void>((resolve) => release.push(resolve));
          await Promise.all([0, 1].map(() => room.complete({} as Parameters<Complete>[0])));
        }),
      );
    });
    // Rank 0 has not ended a single one by then.
    if (rank === 1) while (release.length > 0) release.pop()?.();
    await Promise.all(episodes);
    return { began, takenOver: takenOver.problems };
  });
  const [first, second] = await Promise.all(ran);
  // Two problems of two episodes fill its batch of four.
  expect(first).toEqual({ began: [0, 2], takenOver: 0 });
  expect(second).toEqual({ began: [1, 3, 5, 7, 4, 6], takenOver: 2 });
});

it('shares are as even as whole problems allow', () => {
  const costs = new Map([9, 1, 1, 7, 5, 3, 1].map((cost, problem) => [2 * problem, cost]));
  const rankOf = Ranks.prototype.shares.call({ size: 3 } as Ranks, costs);
  const loads = [0, 0, 0];
  for (const [problem, cost] of costs) loads[rankOf(problem)] = (loads[rankOf(problem)] ?? 0) + cost;
  expect(loads).toEqual([9, 9, 9]);
});
