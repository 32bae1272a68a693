/** Run directories: no run is overwritten by accident, none is written by two processes, every refusal says why. */
import { spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { hostname } from 'node:os';
import { basename, join } from 'node:path';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { TroupeError } from '../../src/config/errors.js';
import { isInUse } from '../../src/config/lock.js';
import { saveCheckpoint } from '../../src/runs/checkpoint.js';
import { describeEnvironment, programOf } from '../../src/runs/environment.js';
import {
  createRun,
  newRunFolder,
  readChanges,
  readEnvironments,
  readRunConfig,
  resumeRun,
} from '../../src/runs/run-directory.js';
import { RunStreams } from '../../src/streams/run-streams.js';
import { streamPath } from '../../src/streams/stream-files.js';
import { readStream } from '../../src/streams/stream-reader.js';
import { temporaryFolder } from './temporary.js';

const words = { roles: ['generator'], policies: ['shared'] };
const environment = describeEnvironment({ libtorch: '2.13.0', devices: ['cpu'] });
/** How a run is resumed that goes on with `config`. */
const using = (config: string) => ({ config, environment, warn: () => {} });

describe('a new run', () => {
  it('has its configuration and environment', () => {
    const folder = join(temporaryFolder(), 'runs', 'first');
    const run = createRun(folder, 'seed: 3\n', environment);
    expect(run).toMatchObject({ folder, checkpoint: undefined });
    expect(readRunConfig(folder)).toBe('seed: 3\n');
    expect(readEnvironments(folder)).toEqual([{ ...environment, configuration: { seed: 3 } }]);
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

  it('that cannot be locked leaves no folder', () => {
    const parent = temporaryFolder();
    // The folder's path is short enough for the system, those of files in it are not.
    const levels = Array.from({ length: 21 }, () => 'x'.repeat(200));
    const folder = join(parent, ...levels).slice(0, 4085);
    expect(() => createRun(folder, '', environment)).toThrow('longer than the file system takes');
    expect(readdirSync(parent)).toEqual([]);
  });

  it('gets a name by time', () => {
    expect(newRunFolder('voting', new Date('2026-01-02T03:04:05.678Z'))).toBe('runs/voting-20260102-030405');
  });
});

describe('resuming', () => {
  it('adds its environment and goes on without a checkpoint where there is none', async () => {
    const folder = temporaryFolder();
    createRun(folder, 'seed: 3\n', environment).release();
    const run = await resumeRun(folder, using('seed: 3\n'));
    expect(run.checkpoint).toBeUndefined();
    expect(readEnvironments(folder)).toHaveLength(2);
    expect(existsSync(join(folder, 'config.1.yaml'))).toBe(false);
    run.release();
  });

  it('with another configuration keeps the old one beside it', async () => {
    const folder = temporaryFolder();
    createRun(folder, 'steps: 10\n', environment).release();
    for (const steps of [20, 30]) {
      (await resumeRun(folder, using(`steps: ${steps}\n`))).release();
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
    await expect(resumeRun(folder, using(''))).rejects.toThrow(/is no run directory/);
    await expect(resumeRun(join(folder, 'missing'), using(''))).rejects.toThrow(TroupeError);
  });
});

describe('a run that could not start', () => {
  it('leaves nothing, and what was there stays', () => {
    const parent = temporaryFolder();
    const run = createRun(join(parent, 'runs', 'first'), '', environment);
    RunStreams.create(run.folder, words).close();
    run.discard();
    expect(readdirSync(parent)).toEqual([]);
    writeFileSync(join(parent, 'notes.txt'), '');
    createRun(join(parent, 'second'), '', environment).discard();
    expect(readdirSync(parent)).toEqual(['notes.txt']);
    const empty = temporaryFolder();
    createRun(empty, '', environment).discard();
    expect(readdirSync(empty)).toEqual([]);
  });
});

describe('resuming never deletes a row', () => {
  /** A run with a row and a checkpoint for each step. */
  async function stepped(steps: number): Promise<string> {
    const folder = temporaryFolder();
    const run = createRun(folder, '', environment);
    const streams = RunStreams.create(folder, words);
    for (let step = 1; step <= steps; step++) {
      streams.append('signals', [row]);
      streams.markBoundary();
      await saveCheckpoint(folder, streams, { step, score: null, trainer: null }, (into) => {
        writeFileSync(join(into, 'parameters'), 'x');
      });
    }
    streams.close();
    run.release();
    return folder;
  }
  const oneStep = () => stepped(1);
  const row = { step: 0, phase: 'train', role: 'generator', signal: 's', value: 1 };
  const batches = (folder: string) => readStream(streamPath(folder, 'signals')).batches;

  it.each([
    [
      'there is no checkpoint',
      (folder: string) => rmSync(join(folder, 'checkpoints'), { recursive: true }),
      'There is none',
    ],
    [
      'it is of another format',
      (folder: string) => writeFileSync(join(folder, 'checkpoints/step-000001/state.json'), '{"format":1}'),
      'step-000001 is not used: it has format 1',
    ],
  ])('where %s it says what is there, and begins again only when asked', async (_what, damage, message) => {
    const folder = await oneStep();
    damage(folder);
    await expect(resumeRun(folder, using(''))).rejects.toThrow(message);
    await expect(resumeRun(folder, using(''))).rejects.toThrow(/--restart/);
    expect(batches(folder)).toBe(1);
    expect(existsSync(join(folder, 'replaced'))).toBe(false);
    const run = await resumeRun(folder, { ...using(''), restart: true });
    expect(run.checkpoint).toBeUndefined();
    RunStreams.resume(folder, words, undefined, run.aside).close();
    run.release();
    expect([batches(folder), batches(run.aside)]).toEqual([0, 1]);
  });

  it('a checkpoint whose files are damaged is such a one too', async () => {
    const folder = await oneStep();
    writeFileSync(join(folder, 'checkpoints/step-000001/parameters'), 'y');
    await expect(resumeRun(folder, using(''))).rejects.toThrow(/parameters does not have its checksum/);
  });

  it('a stream that was cut off goes on from the checkpoint before, if it holds the rows of that', async () => {
    const folder = await stepped(2);
    const file = streamPath(folder, 'signals');
    truncateSync(file, statSync(file).size - 1);
    const warnings: string[] = [];
    const run = await resumeRun(folder, { ...using(''), warn: (text) => void warnings.push(text) });
    expect(run.checkpoint?.step).toBe(1);
    expect(warnings).toEqual([
      expect.stringMatching(/step-000002 is not used: streams\/signals\.arrows is cut off before byte \d+/),
    ]);
    RunStreams.resume(folder, words, run.checkpoint?.streams, run.aside).close();
    run.release();
    expect(batches(folder)).toBe(1);
    rmSync(file);
    await expect(resumeRun(folder, using(''))).rejects.toThrow(
      /no checkpoint to go on from.*signals.*--restart/,
    );
  });

  it('records what changed, and after which step', async () => {
    const folder = await oneStep();
    const changes = [{ key: 'steps', from: 10, to: 20 }];
    (await resumeRun(folder, { ...using('steps: 20\n'), changes })).release();
    expect(readChanges(folder)).toEqual([{ step: 1, key: 'steps', from: 10, to: 20 }]);
    expect(readFileSync(join(folder, 'config.yaml'), 'utf8')).toBe('steps: 20\n');
  });

  it('leaves the run as it was where a check refuses it, which a run that begins again is not asked', async () => {
    const folder = await stepped(2);
    writeFileSync(join(folder, 'checkpoints/step-000002/parameters'), 'y');
    const contents = () =>
      readdirSync(folder, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map(({ parentPath, name }) => [join(parentPath, name), readFileSync(join(parentPath, name), 'hex')]);
    const before = contents();
    const check = async () => {
      throw new TroupeError('another model');
    };
    const options = { ...using('steps: 20\n'), changes: [{ key: 'steps', from: 10, to: 20 }], check };
    await expect(resumeRun(folder, options)).rejects.toThrow('another model');
    expect(contents()).toEqual(before);
    (await resumeRun(folder, { ...options, restart: true })).release();
    expect(contents()).not.toEqual(before);
  });

  it('by another version of the program says so, and records it', async () => {
    const folder = await oneStep();
    const warnings: string[] = [];
    const commit = '0123456789abcdef0123456789abcdef01234567';
    const other = { ...environment, commit, libtorch: '2.14.0' };
    const options = { ...using(''), environment: other, warn: (text: string) => void warnings.push(text) };
    (await resumeRun(folder, options)).release();
    (await resumeRun(folder, options)).release();
    const [from, to] = [
      programOf(environment),
      `Troupe ${other.troupe} at 0123456789ab with libtorch 2.14.0`,
    ];
    expect(from).not.toBe(to);
    expect(readChanges(folder)).toEqual([{ step: 1, key: 'program', from, to }]);
    expect(warnings).toEqual([expect.stringContaining(`last ran with ${from}; it goes on with ${to}`)]);
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
    const file = join(folder, 'lock-other.json');
    const lock = (holder: object) => writeFileSync(file, JSON.stringify({ holds: true, ...holder }));
    lock({ host: hostname(), pid: other.pid, started });
    await expect(resumeRun(folder, using(''))).rejects.toThrow(new RegExp(`in use by process ${other.pid}`));
    // The same number again, for a process that started at another time.
    lock({ host: hostname(), pid: other.pid, started: '1' });
    if (stat !== undefined) (await resumeRun(folder, using(''))).release();
    const gone = new Promise((resolve) => other.once('exit', resolve));
    other.kill('SIGKILL');
    await gone;
    lock({ host: hostname(), pid: other.pid, started });
    (await resumeRun(folder, using(''))).release();
    expect(readdirSync(folder).filter((name) => name.startsWith('lock'))).toEqual([]);
  });

  const elsewhere = { pid: process.ppid, started: '7', host: 'elsewhere', holds: true };

  /** A run, and the lock of a process of another host in it, whose last sign is so many seconds old. */
  function heldElsewhere(seconds: number, holder: object = elsewhere) {
    const folder = temporaryFolder();
    createRun(folder, '', environment).release();
    const file = join(folder, 'lock-elsewhere-1-7.json');
    const sign = (ago: number) => {
      writeFileSync(file, JSON.stringify(holder));
      utimesSync(file, new Date(), new Date(Date.now() - 1000 * ago));
    };
    sign(seconds);
    return { folder, file, sign };
  }

  it('of another host counts while its process gives signs of life', async () => {
    const { folder, file, sign } = heldElsewhere(3);
    expect(isInUse(folder)).toBe(true);
    const said: string[] = [];
    const refused = expect(
      resumeRun(folder, { ...using(''), warn: (text) => said.push(text) }),
    ).rejects.toThrow(`${folder}: is in use by process ${process.ppid} of the host elsewhere.`);
    sign(0);
    await refused;
    expect(said).toEqual([
      `${folder}: process ${process.ppid} of the host elsewhere was at work on it; waiting up to 120 seconds for a sign that it still is`,
    ]);
    expect(readdirSync(folder).filter((name) => name.startsWith('lock'))).toEqual([basename(file)]);
  });

  it('of another host counts for nothing once no sign has come for two minutes', async () => {
    for (const [seconds, holder] of [
      [121, elsewhere],
      [121, { ...elsewhere, pid: 999_999_999, started: null, holds: false }],
      // Its time is over while it is waited for.
      [118, elsewhere],
    ] as const) {
      const { folder, file } = heldElsewhere(seconds, holder);
      expect(isInUse(folder)).toBe(seconds < 120);
      const run = await resumeRun(folder, using(''));
      expect(existsSync(file)).toBe(false);
      run.release();
    }
  });

  it('is a sign of life itself', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    const folder = temporaryFolder();
    const run = createRun(folder, '', environment);
    const [name = ''] = readdirSync(folder).filter((file) => file.startsWith('lock'));
    const file = join(folder, name);
    const text = readFileSync(file, 'utf8');
    utimesSync(file, 1, 1);
    vi.advanceTimersByTime(5001);
    expect(statSync(file).mtimeMs).toBeGreaterThan(Date.now() - 60_000);
    expect(readFileSync(file, 'utf8')).toBe(text);
    // Whoever took it for dead has removed it, and it does not come back.
    rmSync(file);
    expect(() => vi.advanceTimersByTime(5001)).toThrow(
      `${file}: is gone, and with it the right to write there: another process may do so.`,
    );
    vi.advanceTimersByTime(60_000);
    expect(existsSync(file)).toBe(false);
    // What is in the folder is another's now.
    run.discard();
    expect(existsSync(join(folder, 'config.yaml'))).toBe(true);
    run.release();
    vi.advanceTimersByTime(60_000);
    expect(readdirSync(folder).filter((other) => other.startsWith('lock'))).toEqual([]);
    vi.useRealTimers();
  });

  it('has the name of its host, whose process another may have the number of', () => {
    const folder = temporaryFolder();
    const run = createRun(folder, '', environment);
    const [name = ''] = readdirSync(folder).filter((file) => file.startsWith('lock'));
    expect(name).toMatch(new RegExp(`^lock-${encodeURIComponent(hostname())}-${process.pid}-\\w+\\.json$`));
    run.release();
  });

  it('keeps this process out while it has the run', async () => {
    const folder = temporaryFolder();
    const first = createRun(folder, '', environment);
    const taken = new RegExp(`in use by process ${process.pid}`);
    await expect(resumeRun(`${folder}/.`, using(''))).rejects.toThrow(taken);
    first.release();
    (await resumeRun(folder, using(''))).release();
  });

  it.each(['{"host":"', 'null', '[]', '{"host":1,"pid":"x"}', '"'.repeat(9)])(
    'that a crash or another program left as %s counts for nothing',
    async (text) => {
      const folder = temporaryFolder();
      createRun(folder, '', environment).release();
      writeFileSync(join(folder, 'lock-1-2.json'), text);
      expect(isInUse(folder)).toBe(false);
      (await resumeRun(folder, using(''))).release();
    },
  );

  it('is never held by two, however close they come', async () => {
    const script = join('test', 'runs', 'locking.ts');
    const folder = temporaryFolder();
    const children = Array.from({ length: 3 }, () =>
      spawn(process.execPath, ['--import', './test/built-hooks.mjs', script, folder, '40', '3'], {
        stdio: ['ignore', 'pipe', 'inherit'],
      }),
    );
    const said = await Promise.all(
      children.map(async ({ stdout }) => {
        const parts: Buffer[] = [];
        for await (const part of stdout ?? []) parts.push(part as Buffer);
        return JSON.parse(Buffer.concat(parts).toString()) as {
          held: number;
          refused: number;
          together: number;
        };
      }),
    );
    expect(said.map(({ together }) => together)).toEqual([0, 0, 0]);
    // Every attempt ended, and some in vain: they were at it at the same time.
    expect(said.reduce((sum, { held }) => sum + held, 0)).toBeGreaterThan(0);
    expect(said.reduce((sum, { refused }) => sum + refused, 0)).toBeGreaterThan(0);
    expect(said.map(({ held, refused }) => held + refused)).toEqual([40, 40, 40]);
  });
});
