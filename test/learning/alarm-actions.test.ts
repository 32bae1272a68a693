/**
 * Fails if an alarm does not stop a run or roll it back as configured, or if a run with alarms and rollbacks that
 * was interrupted anywhere ends other than the uninterrupted one, to the bit.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { type RunInput, runSchema } from '../../src/config/schema.js';
import type { Alarm } from '../../src/judgement/alarms.js';
import { History } from '../../src/judgement/history.js';
import { verdict } from '../../src/judgement/verdict.js';
import { actionOn, answerAlarms, rolledBack } from '../../src/learning/alarms.js';
import { newLoopState } from '../../src/learning/loop-state.js';
import type { Trainer } from '../../src/learning/trainer.js';
import { addStreams } from '../../src/runs/read-history.js';
import { json } from '../cli/troupe.js';
import { newFolder, remains, resumedRun, smallConfig, type TrainedRun, trainedRun } from './trained-run.js';

/** Any rise of a role's perplexity above its mean of the first two steps, at a rate that makes it rise. */
const jumpy = (alarms: object): RunInput => ({
  steps: 6,
  policies: { defaults: { learningRate: 3e-3 } },
  rollout: { promptsPerStep: 2, episodesPerPrompt: 3, sampling: { temperature: 1, maxTokens: 6 } },
  evaluation: { every: 2, problems: 3, greedy: false },
  checkpoints: { every: 3, keep: 1 },
  alarms: {
    baseline: 2,
    window: 1,
    deviations: 0,
    actOn: ['perplexity', 'entropy'],
    trends: { perplexity: { factor: 1 }, entropy: { factor: 1 } },
    ...alarms,
  },
});

describe('a run that is rolled back', () => {
  const config = jumpy({ onAlarm: 'rollback', rateFactor: 0.5, rollbacks: 2 });
  let whole: TrainedRun;
  beforeAll(async () => {
    whole = await trainedRun(config);
  });

  it('goes on from the best parameters, at a lower rate, and stops after its last rollback', () => {
    const alarms = whole.rows('alarms');
    const [first] = alarms.filter(({ action }) => action === 'rollback');
    expect(first).toMatchObject({ rate_factor: 0.5 });
    const { step, restored_step: restored } = first as { step: number; restored_step: number };
    expect(restored).toBeLessThan(step);
    const versions = (at: number) => {
      const ofStep = whole.rows('calls').filter((row) => row.step === at && row.role === 'generator');
      return new Set(ofStep.map(({ version }) => version));
    };
    expect(versions(step)).toEqual(versions(restored));
    const rate = (at: number) => whole.rows('updates').find((row) => row.step === at)?.learning_rate;
    expect(rate(step - 1)).toBe(3e-3);
    expect(rate(step)).toBe(1.5e-3);
  });

  it('is found again in its streams', () => {
    const history = new History();
    addStreams(history, whole.folder);
    const rows = whole.rows('alarms').map(({ step, rule, role }) => `${step} ${rule} ${role}`);
    const { alarms } = verdict(history, smallConfig(config).alarms);
    expect(alarms.map(({ step, rule, role }) => `${step} ${rule} ${role}`)).toEqual(rows);
    expect(rows.length).toBeGreaterThan(0);
  });

  it('is told about by the command line, under its own rules or others', async () => {
    interface Told {
      runs: { alarms: unknown[] }[];
      rates: { rule: string; sound: number }[];
    }
    const alarms = (...args: string[]) => json<Told>(['alarms', whole.folder, ...args]);
    const own = await alarms();
    expect(own.runs[0]?.alarms).toHaveLength(whole.rows('alarms').length);
    expect(own.rates).toContainEqual(
      expect.objectContaining({ rule: 'perplexity', sound: 1, falseAlarms: 1 }),
    );
    expect((await alarms('--set', 'alarms.baseline=50')).runs[0]?.alarms).toEqual([]);
  });

  it.each([1, 2, 3, 4, 5])('and killed after step %i, as if it had not been', async (crash) => {
    const folder = newFolder();
    await expect(trainedRun(config, folder, { crash })).rejects.toThrow('crash');
    await resumedRun(config, folder);
    expect(remains(folder)).toEqual(remains(whole.folder));
  });

  it.each([1, 2, 3, 4])('and stopped after step %i, as if it had not been', async (stop) => {
    const folder = newFolder();
    const stopped = await trainedRun(config, folder, { stop });
    expect(stopped.outcome.stopped).toBe(true);
    await resumedRun(config, folder);
    expect(remains(folder)).toEqual(remains(whole.folder));
  });
});

it('a rollback that breaks off between two policies leaves nothing that may be saved', async () => {
  const config = runSchema.parse({ alarms: { onAlarm: 'rollback', actOn: ['accuracy'] } });
  const restored: string[] = [];
  const ranks = {
    lead: (_what: string, work: () => Promise<void>) => work(),
    everywhere: async (_command: string, { policy }: { policy: string }) => {
      if (restored.push(policy) === 2) throw new Error('the disk is gone');
    },
  };
  const policies = ['a', 'b'].map((name) => ({ name, freeze: false }));
  const parts = { config, policies, ranks, state: newLoopState(), betweenSteps: false };
  const trainer = parts as unknown as Trainer;
  const recorder = {
    alarms: async () => [{ rule: 'accuracy' } as Alarm],
    best: async () => ({ step: 1, folder: '' }),
    boundary: async () => {},
  };
  await expect(answerAlarms(trainer, recorder, 3)).rejects.toThrow('the disk is gone');
  expect(restored).toEqual(['a', 'b']);
  expect([trainer.betweenSteps, trainer.state.rollbacks]).toEqual([true, 0]);
});

describe('other answers to an alarm', () => {
  it('stop: the run saves, ends, and can be taken up again behind the alarm', async () => {
    const run = await trainedRun(jumpy({ onAlarm: 'stop' }));
    const { steps, stopped, alarm } = run.outcome;
    expect({ stopped, alarm }).toMatchObject({
      stopped: true,
      alarm: expect.stringMatching(/(perplexity|entropy) of/),
    });
    expect(run.rows('alarms').at(-1)).toMatchObject({ step: steps, action: 'stop', restored_step: null });
    const resumed = await resumedRun(jumpy({ onAlarm: 'log' }), run.folder);
    expect(resumed.outcome.steps).toBe(6);
  });

  it('log: nothing but rows', async () => {
    const run = await trainedRun(jumpy({ onAlarm: 'log' }));
    expect(run.outcome).toMatchObject({ steps: 6, stopped: false });
    expect(new Set(run.rows('alarms').map(({ action }) => action))).toEqual(new Set(['log']));
    expect(new Set(run.rows('updates').map((row) => row.learning_rate))).toEqual(new Set([3e-3]));
  });

  it('only the rules that were named act, and rollbacks end in a stop', () => {
    const config = runSchema.parse({ alarms: { onAlarm: 'rollback', rollbacks: 1 } }).alarms;
    const alarm = (rule: Alarm['rule']) => [{ rule }] as Alarm[];
    const state = newLoopState();
    expect(actionOn(alarm('kl'), config, state)).toBe('log');
    expect(actionOn(alarm('accuracy'), config, state)).toBe('rollback');
    const after = rolledBack({ ...state, skippedInARow: { shared: 2 } }, config, 7);
    expect(after).toEqual({
      skippedInARow: {},
      rateFactor: 0.5,
      rollbacks: 1,
      since: 7,
      boundaryDue: false,
      memory: {},
      replacedProblems: 0,
    });
    expect(actionOn(alarm('capture'), config, after)).toBe('stop');
  });
});
