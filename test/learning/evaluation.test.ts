/**
 * Fails if pass@k or majority@k are not what their formulas say, if a policy that is evaluated afterwards is not the one
 * that was trained, or if an evaluation that was broken off does not go on where it was.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { tableFromIPC } from 'apache-arrow';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { evaluate } from '../../src/learning/evaluation/evaluate.js';
import { lineupsOf } from '../../src/learning/evaluation/lineups.js';
import {
  defaultKs,
  estimate,
  majorityAtK,
  passAtK,
  type Sample,
} from '../../src/learning/evaluation/measures.js';
import { type TrainedRun, trainedRun } from './trained-run.js';

/** Every subset of k of the indices below n. */
function subsets(n: number, k: number, from = 0): number[][] {
  if (k === 0) return [[]];
  const firsts = Array.from({ length: Math.max(0, n - from) }, (_, i) => from + i);
  return firsts.flatMap((first) => subsets(n, k - 1, first + 1).map((rest) => [first, ...rest]));
}

describe('pass@k', () => {
  it('is the share of the subsets of k samples that hold a right one', () => {
    for (let n = 1; n <= 7; n++) {
      for (let c = 0; c <= n; c++) {
        for (let k = 1; k <= n; k++) {
          const all = subsets(n, k);
          const holding = all.filter((subset) => subset.some((index) => index < c));
          expect(passAtK(n, c, k), `${n} ${c} ${k}`).toBeCloseTo(holding.length / all.length, 12);
        }
      }
    }
  });

  it('is 1 − C(n−c, k) / C(n, k), also where the coefficients leave the doubles', () => {
    const choose = (n: bigint, k: bigint): bigint => (k === 0n ? 1n : (choose(n - 1n, k - 1n) * n) / k);
    const [n, c, k] = [2000, 3, 500];
    const exact = 1 - Number((choose(1997n, 500n) * 10n ** 18n) / choose(2000n, 500n)) / 1e18;
    expect(passAtK(n, c, k)).toBeCloseTo(exact, 12);
  });
});

describe('majority@k', () => {
  const sample = fc.record({ answer: fc.option(fc.constantFrom('1', '2', '3'), { nil: undefined }) });
  const right = '2';

  /** The definition, written out: who has most votes, the earliest of several. */
  function majority(group: readonly Sample[]): boolean {
    let best: { answer: string; votes: number } | undefined;
    for (const { answer } of group) {
      if (answer === undefined) continue;
      const votes = group.filter((one) => one.answer === answer).length;
      if (best === undefined || votes > best.votes) best = { answer, votes };
    }
    return best?.answer === right;
  }

  it('is the share of groups of k whose most frequent answer is right', () => {
    const cases = fc.tuple(
      fc.array(sample, { minLength: 1, maxLength: 12 }),
      fc.integer({ min: 1, max: 12 }),
    );
    fc.assert(
      fc.property(cases, ([answers, wanted]) => {
        const k = Math.min(wanted, answers.length);
        const samples = answers.map(({ answer }) => ({ answer, correct: answer === right }));
        const groups: Sample[][] = [];
        for (let at = 0; at + k <= samples.length; at += k) groups.push(samples.slice(at, at + k));
        expect(majorityAtK(samples, k)).toBe(groups.filter(majority).length / groups.length);
      }),
    );
  });

  it('counts a right sample without a readable answer as no vote', () => {
    const samples = [{ answer: undefined, correct: true }];
    expect(majorityAtK(samples, 1)).toBe(0);
  });
});

it("an estimate's interval is Wilson's of the mean over problems", () => {
  // (p̂ + z²/2n ± z √(p̂(1−p̂)/n + z²/4n²)) / (1 + z²/n) at p̂ = 0.5, n = 4, z = 1.96.
  const half = (1.96 * Math.sqrt(0.25 / 4 + 1.96 ** 2 / 64)) / (1 + 1.96 ** 2 / 4);
  const found = estimate([0, 1, 0.5, 0.5], (value) => value);
  expect(found.mean).toBe(0.5);
  expect(found.low).toBeCloseTo(0.5 - half, 12);
  expect(found.high).toBeCloseTo(0.5 + half, 12);
  expect(estimate([], () => 1)).toEqual({ mean: null, low: null, high: null });
  expect([defaultKs(1), defaultKs(4), defaultKs(6)]).toEqual([[1], [1, 2, 4], [1, 2, 4, 6]]);
});

describe('of runs', () => {
  const folder = mkdtempSync(join(tmpdir(), 'troupe-evaluation-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const over = {
    evaluation: { every: 1, problems: 5, episodes: 2 },
    checkpoints: { every: 1 },
    policies: { defaults: { learningRate: 3e-3 } },
  };
  let isolated: TrainedRun;
  let shared: TrainedRun;
  beforeAll(async () => {
    isolated = await trainedRun({ ...over, steps: 2 });
    shared = await trainedRun({ ...over, steps: 1, policies: { ...over.policies, sharing: 'shared' } });
  });

  const episodesIn = (output: string, name: string, phase: string) => {
    const parent = join(output, 'episodes');
    const found = readdirSync(parent).filter((key) => {
      return JSON.parse(readFileSync(join(parent, key, 'lineup.json'), 'utf8')).name === name;
    });
    expect(found).toHaveLength(1);
    const files = readdirSync(join(parent, found[0] as string)).filter((file) => file.startsWith(phase));
    return files.sort().map((file) => join(parent, found[0] as string, file));
  };
  const answersOf = (files: readonly string[]) =>
    files.flatMap((file) => {
      const rows = tableFromIPC(readFileSync(file)).toArray() as { problem: string; answer: string }[];
      return rows.map(({ problem, answer }) => [problem, answer]);
    });
  const duringRun = (run: TrainedRun, step: number, table: 'evaluations' | 'greedy_evaluations') =>
    run
      .rows(table)
      .filter((row) => row.step === step)
      .map(({ problem, answer }) => [problem, answer]);

  it('every checkpoint and the base say what they said in the run, in whatever parts they are played', async () => {
    const output = join(folder, 'checkpoints');
    const { results } = await evaluate(isolated.folder, {
      checkpoints: ['all'],
      base: true,
      folder: output,
      problemsAtOnce: 2,
    });
    expect(results.map(({ name }) => name)).toEqual(['step 1', 'step 2', 'base']);
    for (const [step, name] of ['base', 'step 1', 'step 2'].entries()) {
      const sampled = episodesIn(output, name, 'sampled');
      expect(sampled).toHaveLength(3);
      expect(answersOf(sampled), name).toEqual(duringRun(isolated, step, 'evaluations'));
      const [row] = tableFromIPC(readFileSync(sampled[0] as string)).toArray() as Record<string, string>[];
      const [first] = JSON.parse(row?.said ?? '') as { role: string; messages: { content: string }[] }[];
      expect(first?.role).toBe('generator');
      expect(first?.messages.at(-1)?.content).toContain(row?.question);
      expect(row?.right_answer).toMatch(/^\d+$/);
      const greedy = answersOf(episodesIn(output, name, 'greedy'));
      expect(greedy, name).toEqual(duringRun(isolated, step, 'greedy_evaluations'));
    }
    // Else the comparison of checkpoints would compare nothing.
    expect(duringRun(isolated, 0, 'evaluations')).not.toEqual(duringRun(isolated, 2, 'evaluations'));
    const { after } = isolated.outcome;
    expect(results[1]).toMatchObject({ problems: 5, samples: 2, accuracy: { mean: after?.accuracy.mean } });
    expect(results[1]?.greedy?.mean).toBe(after?.greedy?.accuracy.mean);
    expect(Object.keys(results[1]?.pass ?? {})).toEqual(['1', '2']);
    expect(results[1]?.pass[1]?.mean).toBeCloseTo(results[1]?.accuracy.mean ?? -1, 12);
    const table = () => tableFromIPC(readFileSync(join(output, 'results.arrow')));
    const column = (name: string) => table().getChild(name)?.toJSON();
    expect(column('lineup')).toEqual(['step 1', 'step 2', 'base']);
    expect(column('accuracy')).toEqual(results.map(({ accuracy }) => accuracy.mean));
    expect(new Set(column('evaluation')).size).toBe(1);
    expect(column('episodes')).toEqual(
      ['step 1', 'step 2', 'base'].map(
        (name) => episodesIn(output, name, 'sampled')[0]?.split('/').at(-2) ?? '',
      ),
    );

    // Other evaluations stand below it, with the columns of both; the same one again is not doubled.
    const other = { checkpoints: ['1'], base: true, folder: output, ks: [2] };
    const two = await evaluate(isolated.folder, other);
    await evaluate(isolated.folder, other);
    expect(column('lineup')).toEqual(['step 1', 'step 2', 'base', 'step 1', 'base']);
    const [first, second] = [results, two.results].map((one) => one.map(({ pass }) => pass));
    expect(column('pass_at_1')).toEqual([...(first ?? []).map((pass) => pass[1]?.mean), null, null]);
    expect(column('pass_at_2')).toEqual([first, second].flatMap((all) => all?.map((pass) => pass[2]?.mean)));
    expect(new Set(column('evaluation')).size).toBe(2);
    writeFileSync(join(output, 'results.arrow'), 'no Arrow');
    await expect(evaluate(isolated.folder, other)).rejects.toThrow(/results\.arrow: cannot be read/);
    expect(readFileSync(join(output, 'results.arrow'), 'utf8')).toBe('no Arrow');
  });

  it('one that was ended goes on behind what is there', async () => {
    const output = join(folder, 'ended');
    const options = { folder: output, problemsAtOnce: 2, ks: [1] };
    const ending = new AbortController();
    const ended = evaluate(isolated.folder, {
      ...options,
      signal: ending.signal,
      onProgress: (what) => {
        if (/sampled episodes [5-9]\//.test(what)) ending.abort(new Error('ended'));
      },
    });
    await expect(ended).rejects.toThrow('ended');
    const [first = ''] = episodesIn(output, 'step 2', 'sampled');
    expect(first).toMatch(/sampled-000000\.arrow$/);
    const { mtimeMs } = statSync(first);
    const seen: string[] = [];
    const { results } = await evaluate(isolated.folder, {
      ...options,
      onProgress: (what) => seen.push(what),
    });
    // The signal came in the second part, which may have been whole by then.
    expect(seen[0]).toMatch(/^step 2: sampled episodes [59]\/10$/);
    expect(statSync(first).mtimeMs).toBe(mtimeMs);
    expect(answersOf(episodesIn(output, 'step 2', 'sampled'))).toEqual(duringRun(isolated, 2, 'evaluations'));
    const again = await evaluate(isolated.folder, { ...options, onProgress: (what) => seen.push(what) });
    expect(seen.at(-1)).toBe('step 2: greedy episodes 5/5');
    expect(again.results).toEqual(results);
  });

  it('roles of different runs play together, each with each', async () => {
    const roles = { generator: [isolated.folder, 'base'], aggregator: [`${shared.folder}@1`] };
    const { results } = await evaluate(isolated.folder, { roles, set: ['evaluation.greedy=false'] });
    const [a, b] = [isolated, shared].map((run) => run.folder.split('/').at(-1));
    expect(results.map(({ players }) => players)).toEqual([
      { generator: `${a}@2:generator`, aggregator: `${b}@1:shared` },
      { generator: 'base', aggregator: `${b}@1:shared` },
    ]);
    expect(results[1]?.againstFirst?.problems).toBe(5);
    expect(results[0]?.greedy).toBeUndefined();
  });

  const warn = () => {};
  const request = { checkpoints: ['last'], base: false, roles: {}, ablate: false };
  const voting = ['generator', 'aggregator'];

  it('single roles are put back to the base', async () => {
    const lineups = await lineupsOf({ ...request, run: isolated.folder, ablate: true }, voting, warn);
    const names = (players: object) =>
      Object.values(players).map((one) => (one === 'base' ? one : 'trained'));
    expect(lineups.map(({ name, players }) => [name, ...names(players)])).toEqual([
      ['step 2', 'trained', 'trained'],
      ['step 2 generator=base', 'base', 'trained'],
      ['step 2 aggregator=base', 'trained', 'base'],
      ['base', 'base', 'base'],
    ]);
  });

  it('another workflow gets the shared policy for every role, of isolated ones it says whom it lacks', async () => {
    const evalOpt = ['generator', 'evaluator'];
    const [lineup] = await lineupsOf({ ...request, run: shared.folder }, evalOpt, warn);
    expect(Object.values(lineup?.players ?? {}).map((one) => one !== 'base' && one.policy.name)).toEqual([
      'shared',
      'shared',
    ]);
    const lacking = lineupsOf({ ...request, run: isolated.folder }, evalOpt, warn);
    await expect(lacking).rejects.toThrow(/no policy for the role "evaluator".*--role evaluator=base/);
    const named = { evaluator: [`${isolated.folder}:aggregator`] };
    const [given] = await lineupsOf({ ...request, run: isolated.folder, roles: named }, evalOpt, warn);
    expect(Object.values(given?.players ?? {}).map((one) => one !== 'base' && one.policy.name)).toEqual([
      'generator',
      'aggregator',
    ]);
  });

  it.each([
    [{ roles: { voter: ['base'] } }, /--role.*voter/],
    [{ roles: { generator: ['nowhere'] } }, /--role generator.*nowhere.*no run directory/],
    [{ checkpoints: ['7'] }, /no such checkpoint; there are those of steps 1, 2/],
    [{ checkpoints: ['newest'] }, /last, best/],
  ])('what is not there is named (%j)', async (over, message) => {
    const found = lineupsOf({ ...request, run: isolated.folder, ...over }, voting, warn);
    await expect(found).rejects.toThrow(message);
  });

  it('a configuration takes no checkpoint, and k no more than there are samples', async () => {
    await expect(evaluate('default', { checkpoints: ['last'] })).rejects.toThrow(/--checkpoint/);
    await expect(evaluate('default', { samples: 2, ks: [3] })).rejects.toThrow(/--k.*1 to 2/);
    await expect(evaluate('default', { samples: 0 })).rejects.toThrow(/--samples/);
  });
});
