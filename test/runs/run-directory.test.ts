/** Run directories: no run is overwritten by accident, none is written by two processes, every refusal says why. */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { TroupeError } from '../../src/config/errors.js';
import { describeEnvironment } from '../../src/runs/environment.js';
import { isInUse } from '../../src/runs/lock.js';
import {
  createRun,
  newRunFolder,
  readEnvironments,
  readRunConfig,
  resumeRun,
} from '../../src/runs/run-directory.js';
import { temporaryFolder } from './temporary.js';

const environment = describeEnvironment({ libtorch: '2.13.0', devices: ['cpu'] });
const nothing = () => {};

describe('a new run', () => {
  it('has its configuration and environment', () => {
    const folder = join(temporaryFolder(), 'runs', 'first');
    const run = createRun(folder, 'seed: 3\n', environment);
    expect(run).toMatchObject({ folder, checkpoint: undefined });
    expect(readRunConfig(folder)).toBe('seed: 3\n');
    expect(readEnvironments(folder)).toEqual([environment]);
    expect(environment).toMatchObject({ libtorch: '2.13.0', node: process.versions.node });
    run.release();
  });

  it('refuses a folder that holds a run, or anything', () => {
    const folder = temporaryFolder();
    createRun(folder, '', environment).release();
    expect(() => createRun(folder, '', environment)).toThrow(TroupeError);
    expect(() => createRun(folder, '', environment)).toThrow(/already holds a run.*--resume/);
    const other = temporaryFolder();
    writeFileSync(join(other, 'thesis.tex'), '');
    expect(() => createRun(other, '', environment)).toThrow(/is not empty/);
    expect(existsSync(join(other, 'config.yaml'))).toBe(false);
  });

  it('says that its folder cannot be made', () => {
    const file = join(temporaryFolder(), 'file');
    writeFileSync(file, '');
    expect(() => createRun(join(file, 'run'), '', environment)).toThrow(TroupeError);
  });

  it('gets a name by time', () => {
    expect(newRunFolder('voting', new Date('2026-01-02T03:04:05.678Z'))).toBe('runs/voting-20260102-030405');
  });
});

describe('resuming', () => {
  it('adds its environment and goes on without a checkpoint where there is none', async () => {
    const folder = temporaryFolder();
    createRun(folder, 'seed: 3\n', environment).release();
    const run = await resumeRun(folder, 'seed: 3\n', environment, nothing);
    expect(run.checkpoint).toBeUndefined();
    expect(readEnvironments(folder)).toHaveLength(2);
    expect(existsSync(join(folder, 'config.1.yaml'))).toBe(false);
    run.release();
  });

  it('with another configuration keeps the old one beside it', async () => {
    const folder = temporaryFolder();
    createRun(folder, 'steps: 10\n', environment).release();
    for (const steps of [20, 30]) {
      (await resumeRun(folder, `steps: ${steps}\n`, environment, nothing)).release();
    }
    const read = (name: string) => readFileSync(join(folder, name), 'utf8');
    expect(['config.yaml', 'config.1.yaml', 'config.2.yaml'].map(read)).toEqual([
      'steps: 30\n',
      'steps: 10\n',
      'steps: 20\n',
    ]);
  });

  it('refuses what is no run', async () => {
    const folder = temporaryFolder();
    mkdirSync(join(folder, 'streams'));
    await expect(resumeRun(folder, '', environment, nothing)).rejects.toThrow(/is no run directory/);
    await expect(resumeRun(join(folder, 'missing'), '', environment, nothing)).rejects.toThrow(TroupeError);
  });
});

describe('the lock', () => {
  it('keeps a second process out while the first one lives, and not longer', async () => {
    const folder = temporaryFolder();
    createRun(folder, '', environment).release();
    const other = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)']);
    onTestFinished(() => void other.kill('SIGKILL'));
    await new Promise((resolve) => other.once('spawn', resolve));
    const stat = existsSync('/proc/self/stat') ? readFileSync(`/proc/${other.pid}/stat`, 'utf8') : undefined;
    const started = stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? null;
    const lock = (holder: object) => writeFileSync(join(folder, 'lock.json'), JSON.stringify(holder));
    lock({ host: hostname(), pid: other.pid, started });
    await expect(resumeRun(folder, '', environment, nothing)).rejects.toThrow(
      new RegExp(`in use by process ${other.pid}`),
    );
    // The same number again, for a process that started at another time.
    lock({ host: hostname(), pid: other.pid, started: '1' });
    if (stat !== undefined) (await resumeRun(folder, '', environment, nothing)).release();
    lock({ host: 'elsewhere', pid: other.pid, started });
    (await resumeRun(folder, '', environment, nothing)).release();
    const gone = new Promise((resolve) => other.once('exit', resolve));
    other.kill('SIGKILL');
    await gone;
    lock({ host: hostname(), pid: other.pid, started });
    (await resumeRun(folder, '', environment, nothing)).release();
    expect(existsSync(join(folder, 'lock.json'))).toBe(false);
  });

  it.each(['{"host":"', 'null', '[]', '{"host":1,"pid":"x"}', '"'.repeat(9)])(
    'that a crash or another program left as %s counts for nothing',
    async (text) => {
      const folder = temporaryFolder();
      createRun(folder, '', environment).release();
      writeFileSync(join(folder, 'lock.json'), text);
      expect(isInUse(folder)).toBe(false);
      (await resumeRun(folder, '', environment, nothing)).release();
    },
  );
});
