/** Fails if greedy evaluations are not greedy, mix with the sampled ones, or if unread calls are paid. */
import { describe, expect, it } from 'vitest';
import { openEntry } from '../../src/config/registry.js';
import { History } from '../../src/judgement/history.js';
import { rewards } from '../../src/learning/rewards.js';
import { RunData } from '../../src/report/run-data.js';
import { addStreams } from '../../src/runs/read-history.js';
import { readTables } from '../../src/runs/read-tables.js';
import { episode, rewardContext, roleCall } from './episodes.js';
import { trainedRun } from './trained-run.js';

const evaluation = { every: 0, problems: 6, episodes: 2 };

describe('greedy evaluation', () => {
  it('stands beside the sampled one: one episode of each problem, the same in every run', async () => {
    const run = await trainedRun({ steps: 1, evaluation });
    expect(run.rows('evaluations')).toHaveLength(2 * 12);
    const greedy = run.rows('greedy_evaluations');
    expect(greedy).toHaveLength(2 * 6);
    expect(run.outcome.before?.greedy?.accuracy).toMatchObject({ total: 6 });
    const history = new History();
    addStreams(history, run.folder);
    expect(history.evaluations.map(({ step }) => step)).toEqual([0, 1]);
    expect(history.greedyEvaluations.map(({ step }) => step)).toEqual([0, 1]);

    // What was asked and said is there for every episode, and the report shows the best and the worst of them.
    const calls = run.rows('evaluation_calls');
    const prompts = run.rows('evaluation_prompts');
    for (const { step, phase, episode, question } of run.rows('episodes')) {
      if (phase === 'train') continue;
      const said = calls.filter(
        (call) => call.step === step && call.phase === phase && call.episode === episode,
      );
      expect(said.map(({ role }) => role)).toEqual(['generator', 'generator', 'generator', 'aggregator']);
      for (const call of said) {
        const asked = prompts.filter((row) => row.step === step && row.prompt === call.prompt);
        expect(asked.map(({ text }) => text)).toEqual([expect.stringContaining(String(question))]);
      }
    }
    const data = new RunData(run.folder);
    for (const { name, table } of readTables(run.folder)) data.add(name, table);
    const [best, worst] = data.evaluated.at(0);
    expect(best?.reward).toBeGreaterThan(worst?.reward ?? Number.NaN);
    expect(best?.question).toEqual(expect.any(String));
    expect(best?.calls[0]?.prompt).toContain(best?.question);

    const other = await trainedRun({ seed: 1, steps: 0, evaluation });
    const answers = (rows: Record<string, unknown>[]) => rows.map(({ answer }) => answer);
    const first = greedy.filter(({ step }) => step === 0);
    expect(answers(other.rows('greedy_evaluations'))).toEqual(answers(first));
  });

  it('is not made where it is turned off, or would be the same', async () => {
    for (const over of [{ greedy: false }, { sampling: { temperature: 0 } }]) {
      const run = await trainedRun({ steps: 0, evaluation: { ...evaluation, ...over } });
      expect(run.rows('greedy_evaluations')).toEqual([]);
      expect(run.outcome.before?.greedy).toBeUndefined();
    }
  });
});

const openBuiltIn = (name: string, unread: 'nothing' | 'reward') =>
  openEntry(rewards, { name }, { path: [] }, rewardContext(unread));

describe('a call that its workflow could not read', () => {
  const call = { ...roleCall({ own: 1 }), unread: true as const };
  const right = episode(0, 0, 1, []);

  it.each(['outcome', 'own'])('earns nothing, unless asked otherwise (%s)', async (name) => {
    const calls = [call, roleCall({ own: 1 })].map((one) => ({ call: one, episode: right }));
    const values = (unread: 'nothing' | 'reward') =>
      openBuiltIn(name, unread).then((reward) => reward.values(calls, { step: 0, steps: 1 }));
    expect(await values('nothing')).toEqual([0, 1]);
    expect(await values('reward')).toEqual([1, 1]);
  });
});
