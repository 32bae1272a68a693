/** Fails if the ranks of a step are dealt other rows than packing makes of their calls. */
import { expect, it } from 'vitest';
import { native } from '../../src/engine/native.js';
import { Ranks } from '../../src/engine/ranks.js';
import { rowsOf } from '../../src/learning/prefixes.js';
import type { EpisodeCall } from '../../src/learning/step-call.js';
import { rankByRows } from '../../src/learning/train-calls.js';
import type { RoleCall } from '../../src/workflows/types.js';
import { text } from '../rollout/tiny.js';
import { episode, roleCall } from './episodes.js';

const call = (prompt: number[], response: number[]): RoleCall => {
  const made = roleCall({});
  return {
    ...made,
    prompt: Int32Array.from(prompt),
    completion: { ...made.completion, ids: Int32Array.from(response) },
  };
};

/** A conversation: each turn's prompt is what was said before it, and 20 tokens more. */
function conversation(seed: number, turns: number): RoleCall[] {
  const calls: RoleCall[] = [];
  for (let turn = 0, said = text(seed, 50); turn < turns; turn++) {
    const response = text(1000 * seed + turn, 100);
    calls.push(call(said, response));
    said = [...said, ...response, ...text(2000 * seed + turn, 20)];
  }
  return calls;
}

/** What native/batch makes of the calls as one group. */
function packedRows(calls: readonly RoleCall[]): number {
  const packed = calls.map(({ prompt, completion }) => ({ prompt, response: completion.ids, group: 0 }));
  const batch = native().pack(packed, 1, true, 0);
  try {
    return batch.rows;
  } finally {
    batch.dispose();
  }
}

it.each<[string, RoleCall[]]>([
  ['nothing', []],
  ['an empty response', [call([1, 2], [])]],
  ['samples of one prompt', [1, 2, 3].map((seed) => call(text(9, 30), text(seed, 10)))],
  [
    'responses that begin alike',
    [call([1, 2], [3, 4, 5, 6]), call([1, 2], [3, 4, 7]), call([1, 2, 3], [4, 5])],
  ],
  ['turns of conversations', [...conversation(1, 4), ...conversation(2, 3), ...conversation(1, 2)]],
])('rows are those of the trees: %s', (_what, calls) => {
  expect(rowsOf(calls)).toBe(packedRows(calls));
});

it('a conversation counts what its turns add, not each turn from the beginning', () => {
  const ranks = Object.assign(Object.create(Ranks.prototype) as Ranks, { size: 2 });
  const long = text(3, 250);
  const problems = [
    conversation(1, 4),
    ...[1, 2, 3].map((problem) => [call([...long, problem], text(problem, 260))]),
  ];
  const calls = problems.flatMap((calls, problem): EpisodeCall[] => {
    const of = episode(problem, 0, 0, []);
    return calls.map((call, index) => ({ episode: of, call, index }));
  });
  const rankOf = rankByRows(ranks, calls);
  const load = [0, 1].map((rank) => {
    const own = problems.filter(
      (_, problem) =>
        rankOf(calls.find(({ episode }) => episode.problemIndex === problem) as EpisodeCall) === rank,
    );
    return own.reduce((sum, calls) => sum + packedRows(calls), 0);
  });
  expect(Math.max(...load) / Math.min(...load)).toBeLessThan(1.1);
});

it('groups share no rows, and a backward pass weighs more', () => {
  const ranks = Object.assign(Object.create(Ranks.prototype) as Ranks, { size: 2 });
  const prompt = text(5, 100);
  // Two groups of one prompt cost as much as two prompts.
  const problems = [[0, 1], [0, 0], [0]].map((groups, problem) =>
    groups.map((group, index) => ({
      episode: episode(problem, 0, 0, []),
      call: call(prompt, text(problem, 11)),
      index,
      group,
    })),
  );
  const calls = problems.flat();
  const rankOf = rankByRows(ranks, calls, ({ group }) => ({ group, passes: 3 }));
  expect(problems.map(([first]) => rankOf(first as (typeof calls)[number]))).toEqual([0, 1, 1]);
});
