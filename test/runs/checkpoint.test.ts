/** Checkpoints: whole or not there, damage found before it is loaded, the right ones kept. */
import { existsSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { TroupeError } from '../../src/config/errors.js';
import {
  bestCheckpoint,
  type Checkpoint,
  damage,
  findCheckpoint,
  latestCheckpoint,
  listCheckpoints,
  moveLater,
  parseWhich,
  pruneCheckpoints,
  saveCheckpoint,
} from '../../src/runs/checkpoint.js';
import { RunStreams } from '../../src/streams/run-streams.js';
import { temporaryFolder } from './temporary.js';

const words = { roles: ['generator'], policies: ['shared'] };

/** A run with a checkpoint for each score; checkpoint i is of step i + 1. */
async function runWith(scores: readonly (number | null)[]): Promise<{ run: string; streams: RunStreams }> {
  const run = temporaryFolder();
  const streams = RunStreams.create(run, words);
  for (const [index, score] of scores.entries()) await save(run, streams, index + 1, score);
  streams.close();
  return { run, streams };
}

function save(run: string, streams: RunStreams, step: number, score: number | null): Promise<Checkpoint> {
  return saveCheckpoint(run, streams, { step, score, trainer: { optimizerSteps: step } }, (folder) => {
    writeFileSync(join(folder, 'parameters'), `parameters ${step}`);
  });
}

const stepsOf = (run: string) => listCheckpoints(run).map(({ step }) => step);
const nothing = () => {};

describe('a checkpoint', () => {
  it('gives back what was saved', async () => {
    const run = temporaryFolder();
    const streams = RunStreams.create(run, words);
    const saved = await save(run, streams, 7, 0.5);
    const [found] = listCheckpoints(run);
    expect(found).toEqual(saved);
    expect(found).toMatchObject({ step: 7, score: 0.5, trainer: { optimizerSteps: 7 } });
    expect(found?.streams).toEqual(streams.offsets());
    expect(Object.keys(found?.files ?? {})).toEqual(['parameters']);
    streams.close();
  });

  it('is not there if writing it fails, and the earlier ones stay', async () => {
    const { run } = await runWith([null]);
    const resumed = RunStreams.resume(
      run,
      words,
      listCheckpoints(run)[0]?.streams,
      join(run, 'replaced', '1'),
    );
    const full = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
    const saving = saveCheckpoint(run, resumed, { step: 2, score: null, trainer: null }, (folder) => {
      writeFileSync(join(folder, 'parameters'), 'half of');
      throw full;
    });
    await expect(saving).rejects.toThrow(TroupeError);
    await expect(saving).rejects.toThrow(/step-000002: the disk is full/);
    expect(stepsOf(run)).toEqual([1]);
    expect(readdirSync(join(run, 'checkpoints'))).toEqual(['step-000001']);
    resumed.close();
  });

  it('of a step that is there already takes its place', async () => {
    const run = temporaryFolder();
    const streams = RunStreams.create(run, words);
    await save(run, streams, 1, 0.1);
    await save(run, streams, 1, 0.2);
    await save(run, streams, 1, 0.3);
    expect(listCheckpoints(run).map(({ score }) => score)).toEqual([0.3]);
    expect(readdirSync(join(run, 'checkpoints'))).toHaveLength(1);
    streams.close();
  });
});

describe('the latest checkpoint', () => {
  it('is the newest undamaged one', async () => {
    const { run } = await runWith([null, null, null, null, null, null]);
    const file = (step: number, name: string) => join(run, 'checkpoints', `step-00000${step}`, name);
    const state = JSON.parse(readFileSync(file(6, 'state.json'), 'utf8'));
    const deep = `${'['.repeat(100_000)}${']'.repeat(100_000)}`;
    writeFileSync(
      file(6, 'state.json'),
      JSON.stringify({ ...state, trainer: 0 }).replace('"trainer":0', `"trainer":${deep}`),
    );
    truncateSync(file(5, 'parameters'), 3);
    writeFileSync(file(4, 'parameters'), 'parameters X');
    rmSync(file(3, 'parameters'));
    writeFileSync(file(2, 'state.json'), '{"format": 1, "step"');
    const warnings: string[] = [];
    const found = await latestCheckpoint(run, (text) => warnings.push(text));
    expect(found?.step).toBe(1);
    expect(warnings.map((text) => /: (.*)\.$/.exec(text)?.[1])).toEqual([
      'state.json cannot be read',
      'parameters has 3 bytes instead of 12',
      'parameters does not have its checksum',
      'parameters is missing',
      'state.json cannot be read',
    ]);
  });

  it('is undefined in a run without any', async () => {
    expect(await latestCheckpoint(temporaryFolder(), nothing)).toBeUndefined();
  });
});

describe('a checkpoint that cannot be read', () => {
  it.each([
    ['no file', undefined, 'state.json is missing'],
    ['null', 'null', 'it has format undefined; this Troupe reads format 2'],
    ['another format', '{"format": 1}', 'it has format 1; this Troupe reads format 2'],
  ])('%s', async (_what, text, problem) => {
    const { run } = await runWith([null]);
    const file = join(run, 'checkpoints', 'step-000001', 'state.json');
    if (text === undefined) rmSync(file);
    else writeFileSync(file, text);
    expect(listCheckpoints(run)).toEqual([]);
    const warnings: string[] = [];
    expect(await latestCheckpoint(run, (text) => warnings.push(text))).toBeUndefined();
    expect(warnings).toEqual([`${join(run, 'checkpoints', 'step-000001')} is not used: ${problem}.`]);
  });

  it('one number in it was changed', async () => {
    const { run } = await runWith([0.25]);
    const file = join(run, 'checkpoints', 'step-000001', 'state.json');
    writeFileSync(file, readFileSync(file, 'utf8').replace('0.25', '0.26'));
    const warnings: string[] = [];
    expect(await latestCheckpoint(run, (text) => warnings.push(text))).toBeUndefined();
    expect(warnings.join()).toContain('state.json does not have its checksum');
  });
});

describe('the checkpoint that is meant', () => {
  it('is the newest, the best, or that of a step', async () => {
    const { run } = await runWith([0.1, 0.9, null]);
    const found = async (text: string) => (await findCheckpoint(run, parseWhich(text), nothing)).step;
    expect([await found('last'), await found('best'), await found('1')]).toEqual([3, 2, 1]);
    await expect(found('7')).rejects.toThrow(/has no such checkpoint; there are those of steps 1, 2, 3/);
    await expect(findCheckpoint(temporaryFolder(), 'best', nothing)).rejects.toThrow(/none can be read/);
    expect(() => parseWhich('newest')).toThrow(/it takes last, best, or the number of a step/);
    truncateSync(join(run, 'checkpoints', 'step-000002', 'parameters'), 3);
    await expect(found('best')).rejects.toThrow(/step-000002: is damaged: parameters has 3 bytes/);
  });

  it('is never another one in silence because its state cannot be read', async () => {
    const { run } = await runWith([0.1, 0.9, 0.3]);
    const state = join(run, 'checkpoints', 'step-000002', 'state.json');
    writeFileSync(state, readFileSync(state, 'utf8').replace('0.9', '0.8'));
    const warnings: string[] = [];
    const warn = (text: string) => void warnings.push(text);
    expect((await findCheckpoint(run, 'best', warn)).step).toBe(3);
    expect(warnings).toEqual([
      `${join(run, 'checkpoints', 'step-000002')} is not used: state.json does not have its checksum.`,
    ]);
    await expect(findCheckpoint(run, 2, warn)).rejects.toThrow(
      /step-000002: is damaged: state\.json does not have its checksum/,
    );
  });
});

describe('keeping', () => {
  it('keeps the newest and the best', async () => {
    const { run } = await runWith([0.1, 0.9, 0.3, null, 0.2]);
    pruneCheckpoints(run, 2);
    expect(stepsOf(run)).toEqual([2, 4, 5]);
    expect(bestCheckpoint(listCheckpoints(run))?.step).toBe(2);
    for (const checkpoint of listCheckpoints(run)) expect(await damage(checkpoint)).toBeUndefined();
  });

  it('takes the newest of equally good ones, and none where nothing was evaluated', async () => {
    const { run } = await runWith([0.5, 0.5, 0.4]);
    expect(bestCheckpoint(listCheckpoints(run))?.step).toBe(2);
    expect(bestCheckpoint([])).toBeUndefined();
  });

  it('moves what lies behind the one that a run goes on from, damaged or not', async () => {
    const { run } = await runWith([null, null, null]);
    writeFileSync(join(run, 'checkpoints', 'step-000002', 'state.json'), '');
    const aside = join(run, 'replaced', '1');
    moveLater(run, listCheckpoints(run)[0], aside);
    expect(stepsOf(run)).toEqual([1]);
    expect(readdirSync(join(run, 'checkpoints'))).toEqual(['step-000001']);
    expect(readdirSync(join(aside, 'checkpoints')).sort()).toEqual(['step-000002', 'step-000003']);
    moveLater(run, undefined, join(run, 'replaced', '2'));
    expect(stepsOf(run)).toEqual([]);
    expect(existsSync(join(run, 'replaced', '2', 'checkpoints', 'step-000001'))).toBe(true);
  });
});

it('orders steps by number, also beyond six digits', async () => {
  const run = temporaryFolder();
  const streams = RunStreams.create(run, words);
  for (const step of [1_000_000, 999_999, 20]) await save(run, streams, step, null);
  expect(stepsOf(run)).toEqual([20, 999_999, 1_000_000]);
  expect(readFileSync(join(run, 'checkpoints', 'step-1000000', 'parameters'), 'utf8')).toBe(
    'parameters 1000000',
  );
  streams.close();
});
