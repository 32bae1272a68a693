/**
 * A run that is killed at any moment goes on as if nothing had happened: whole checkpoints, and streams of the
 * same bytes as those of a run that never stopped.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import { HELD } from '../../src/config/lock.js';
import { damage, listCheckpoints } from '../../src/runs/checkpoint.js';
import { streamPath, TABLE_NAMES } from '../../src/streams/stream-files.js';
import { Crash, crashing } from './crash.js';
import { parametersAfter, STEPS, smallRun } from './small-run.js';
import { fastParent, temporaryFolder } from './temporary.js';

const dies = (): never => {
  throw new Crash('killed');
};

/** Whether the run came to its end. */
async function runUntil(folder: string, at: number): Promise<boolean> {
  try {
    await crashing(at, dies, () => smallRun(folder));
    return true;
  } catch (error) {
    if (!(error instanceof Crash)) throw error;
    // As with the process.
    for (const signs of HELD.values()) clearInterval(signs);
    HELD.clear();
    return false;
  }
}

async function expectWholeCheckpoints(folder: string): Promise<void> {
  for (const checkpoint of listCheckpoints(folder)) {
    expect(await damage(checkpoint)).toBeUndefined();
    const parameters = readFileSync(join(checkpoint.folder, 'policies/shared/parameters'), 'utf8');
    expect(parameters).toBe(parametersAfter(checkpoint.step));
  }
}

async function expectFinished(folder: string): Promise<void> {
  expect(streamsOf(folder)).toEqual(expected);
  // Killed before it could remove the one before, it keeps that too.
  expect(listCheckpoints(folder).at(-1)?.step).toBe(STEPS);
  await expectWholeCheckpoints(folder);
}

/** Checksum of each stream: comparing the bytes themselves with expect takes long. */
const streamsOf = (folder: string) => {
  return TABLE_NAMES.map((table) => {
    const bytes = readFileSync(streamPath(folder, table));
    return `${table}: ${bytes.length} ${createHash('sha256').update(bytes).digest('hex')}`;
  });
};
let expected: string[] = [];
let operations = 0;

beforeAll(async () => {
  const folder = mkdtempSync(join(fastParent, 'troupe-test-'));
  operations = await crashing(0, dies, () => smallRun(folder));
  expected = streamsOf(folder);
  rmSync(folder, { recursive: true });
});

it('at every one of its file operations', async () => {
  expect(operations).toBeGreaterThan(30 * STEPS);
  const folder = temporaryFolder(fastParent);
  for (let at = 1; at <= operations; at += 1) {
    const run = join(folder, String(at));
    expect(await runUntil(run, at)).toBe(false);
    await expectWholeCheckpoints(run);
    await smallRun(run);
    await expectFinished(run);
  }
});

it('again and again, at each operation of a resumed run', async () => {
  const folder = temporaryFolder(fastParent);
  for (let at = 1; !(await runUntil(folder, at)); at += 1) {
    expect(at).toBeLessThan(operations);
    await expectWholeCheckpoints(folder);
  }
  await expectFinished(folder);
});

it('by the kernel, in a process of its own', async () => {
  for (const at of [40, operations - 10]) {
    const folder = temporaryFolder(fastParent);
    const args = [
      '--import',
      './test/built-hooks.mjs',
      join('test', 'runs', 'killed-run.ts'),
      folder,
      String(at),
    ];
    expect(spawnSync(process.execPath, args).signal).toBe('SIGKILL');
    await expectWholeCheckpoints(folder);
    await smallRun(folder);
    await expectFinished(folder);
  }
});
