/**
 * Fails if a dashboard shows other numbers than the streams hold, if TensorBoard does not read what is written for it, or
 * if a resumed run has a step twice.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/config/package.js';
import { frames, readEvent } from '../../src/runs/sinks/event-file.js';
import { newFolder, resumedRun, rowsOfRun, type TrainedRun, trainedRun } from '../learning/trained-run.js';
import { needs, pythonPath } from '../needs.js';

const over = {
  steps: 2,
  rollout: { promptsPerStep: 2, episodesPerPrompt: 3, sampling: { temperature: 1, maxTokens: 6 } },
  evaluation: { every: 1, problems: 3 },
  checkpoints: { every: 1 },
  sinks: ['tensorboard' as const, 'jsonl' as const, 'csv' as const],
};

/** Metrics without those that clocks make. */
const timeless = (lines: string[]) => lines.filter((line) => !/timing_s|step_time/.test(line));

const jsonLines = (folder: string) =>
  readFileSync(join(folder, 'metrics.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);

const csvLines = (folder: string) => readFileSync(join(folder, 'metrics.csv'), 'utf8').trimEnd().split('\n');

const eventsOf = (folder: string) =>
  readdirSync(join(folder, 'tensorboard'))
    .sort()
    .flatMap((name) => [...frames(readFileSync(join(folder, 'tensorboard', name)))])
    .map(({ data }) => readEvent(data))
    .filter(({ names }) => names.length > 0);

let whole: TrainedRun;
let resumed: string;
beforeAll(async () => {
  whole = await trainedRun(over);
  resumed = newFolder();
  await trainedRun(over, resumed, { crash: 2 }).catch(() => undefined);
  await resumedRun(over, resumed);
});

const places = [
  [0, 'evaluation'],
  [1, 'train'],
  [1, 'evaluation'],
  [2, 'train'],
  [2, 'evaluation'],
];

describe('metrics', () => {
  it('are what the streams hold', () => {
    const lines = jsonLines(whole.folder);
    expect(lines.map(({ step, phase }) => [step, phase])).toEqual(places);
    const [, first, second] = lines;
    const [totals] = rowsOfRun(whole.folder, 'steps');
    const calls = rowsOfRun(whole.folder, 'calls').filter(({ step }) => step === 0);
    const lengths = calls.map((row) => Number(row.response_tokens));
    expect(first).toMatchObject({
      'train/reward': totals?.reward_mean,
      'train/accuracy': totals?.correct_share,
      'train/completions/min_length': Math.min(...lengths),
      'train/completions/max_length': Math.max(...lengths),
    });
    expect(first?.['train/completions/mean_length']).toBeCloseTo(
      lengths.reduce((sum, length) => sum + length, 0) / lengths.length,
      12,
    );
    const values = rowsOfRun(whole.folder, 'rewards')
      .filter(({ step }) => step === 0)
      .map(({ value }) => Number(value));
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    expect(first?.['train/rewards/outcome/mean']).toBeCloseTo(mean, 12);
    const evaluated = rowsOfRun(whole.folder, 'evaluations').filter(({ step }) => step === 1);
    const right = evaluated.filter(({ correct }) => correct).length;
    expect(second?.['eval/accuracy']).toBe(right / evaluated.length);
    for (const row of rowsOfRun(whole.folder, 'updates').filter(({ step }) => step === 0)) {
      expect(first?.[`policies/${row.policy}/grad_norm`]).toBe(row.gradient_norm);
    }
    for (const row of rowsOfRun(whole.folder, 'roles').filter(({ step }) => step === 0)) {
      expect(first?.[`roles/${row.role}/reward_mean`]).toBe(row.reward_mean);
    }
    // Of two policies there is no one loss.
    expect(first).not.toHaveProperty('train/loss');
  });

  it('have names that the docs explain', () => {
    const docs = readFileSync(join(packageRoot(), 'docs', 'dashboards.md'), 'utf8');
    const names = new Set(jsonLines(whole.folder).flatMap((line) => Object.keys(line)));
    const own = [...names].filter(
      (name) => !/^(step|phase|(train\/rewards|roles|policies|gradients|(eval\/)?signals)\/.*)$/.test(name),
    );
    expect(own.length).toBeGreaterThan(20);
    // `a/b`, `…/c` stands for a/b and a/c.
    const explained = (name: string) =>
      docs.includes(`\`${name}\``) || docs.includes(`\`…/${name.split('/').at(-1)}\``);
    expect(own.filter((name) => !explained(name))).toEqual([]);
  });

  it('are the same as CSV', () => {
    const [head, ...lines] = csvLines(whole.folder);
    expect(head).toBe('step,phase,metric,value');
    const expected = jsonLines(whole.folder).flatMap(({ step, phase, ...scalars }) =>
      Object.entries(scalars).map(([name, value]) => `${step},${phase},${name},${value}`),
    );
    expect(lines).toEqual(expected);
  });

  it('of a run that was killed and went on are those of one that was not', () => {
    const without = (lines: Record<string, unknown>[]) =>
      lines.map((line) => timeless(Object.entries(line).map((entry) => entry.join())));
    expect(without(jsonLines(resumed))).toEqual(without(jsonLines(whole.folder)));
    expect(timeless(csvLines(resumed))).toEqual(timeless(csvLines(whole.folder)));
    expect(eventsOf(resumed)).toEqual(eventsOf(whole.folder));
    expect(eventsOf(whole.folder).map(({ step }) => step)).toEqual(places.map(([step]) => step));
    expect(readdirSync(join(resumed, 'tensorboard'))).toHaveLength(2);
    // What was cut off is not lost, and begins like a file of its own.
    const aside = join(resumed, 'replaced', '1');
    expect(csvLines(aside)[0]).toBe('step,phase,metric,value');
    expect(jsonLines(aside).map(({ step, phase }) => [step, phase])).toEqual([[2, 'train']]);
    expect(eventsOf(aside).map(({ step }) => step)).toEqual([2]);
  });

  it('are written nowhere unless asked for', async () => {
    const { folder } = await trainedRun({ ...over, steps: 0, sinks: [] });
    expect(readdirSync(folder).filter((name) => /metrics|tensorboard/.test(name))).toEqual([]);
    expect(existsSync(join(folder, 'streams'))).toBe(true);
  });
});

const READER = `
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
all = EventAccumulator(sys.argv[1], size_guidance={'scalars': 0, 'histograms': 0, 'tensors': 0}).Reload()
tags = all.Tags()
scalars = {tag: [[e.step, e.value] for e in all.Scalars(tag)] for tag in tags['scalars']}
histograms = {tag: [[e.step, e.histogram_value.num, sum(e.histogram_value.bucket), e.histogram_value.sum,
    list(e.histogram_value.bucket_limit)[-1]] for e in all.Histograms(tag)] for tag in tags['histograms']}
texts = {tag: [[e.step, e.tensor_proto.string_val[0].decode()] for e in all.Tensors(tag)]
    for tag in all.PluginTagToContent('text')}
print(json.dumps([scalars, histograms, texts]))
`;

describe("TensorBoard's own reader", () => {
  it('sees every number, histogram and text once', async (context) => {
    needs('tensorboard')(context);
    const read = spawnSync(pythonPath, ['-c', READER, join(resumed, 'tensorboard')], { encoding: 'utf8' });
    expect(read.status, read.stderr).toBe(0);
    const [scalars, histograms, texts] = JSON.parse(read.stdout) as [
      Record<string, [number, number][]>,
      Record<string, number[][]>,
      Record<string, [number, string][]>,
    ];
    const expected: Record<string, [number, number][]> = {};
    for (const { step, phase: _, ...values } of jsonLines(resumed)) {
      for (const [name, value] of Object.entries(values)) {
        expected[name] = [...(expected[name] ?? []), [Number(step), Math.fround(Number(value))]];
      }
    }
    expect(scalars).toEqual(expected);
    const calls = rowsOfRun(resumed, 'calls').filter(({ role }) => role === 'generator');
    const lengths = calls.filter(({ step }) => step === 1).map((row) => Number(row.response_tokens));
    const sum = lengths.reduce((total, length) => total + length, 0);
    expect(Object.keys(histograms).sort()).toEqual(
      ['advantages', 'response_length'].flatMap((what) => [`${what}/aggregator`, `${what}/generator`]),
    );
    expect(histograms['response_length/generator']?.[1]).toEqual([
      2,
      lengths.length,
      lengths.length,
      sum,
      Math.max(...lengths),
    ]);
    expect(texts['samples/generator']?.map(([step]) => step)).toEqual([1, 2]);
    expect(texts['samples/generator']?.[0]?.[1]).toContain(`answer:\n\n    ${calls[0]?.text}`);
  });
});
