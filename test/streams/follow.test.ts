/** Following a stream: as it grows, when it is cut back and written anew, to its end; and `troupe tail`. */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { truncateSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { tableFromIPC } from 'apache-arrow';
import { describe, expect, it } from 'vitest';
import { followStream, type StreamPart } from '../../src/streams/follow.js';
import { readStream } from '../../src/streams/stream-reader.js';
import { StreamWriter } from '../../src/streams/stream-writer.js';
import { fails, troupe } from '../cli/troupe.js';
import { newFolder, trainedRun } from '../learning/trained-run.js';
import { temporaryFolder } from '../runs/temporary.js';

const words = { roles: ['generator'], policies: ['shared'] };

function signals(step: number, value: number) {
  return [{ step, phase: 'train', role: 'generator', signal: `signal ${step}`, value }];
}

/** Values of column `value` in what was followed, as a reader of the bytes sees them. */
function valuesOf(parts: readonly StreamPart[]): number[] {
  const table = tableFromIPC(Buffer.concat(parts.map(({ bytes }) => bytes)));
  return [...(table.getChild('value') ?? [])];
}

/** Follows a stream while `write` writes it. */
async function followed(path: string, write: () => AsyncGenerator<number>): Promise<StreamPart[]> {
  const parts: StreamPart[] = [];
  let live = true;
  let wanted = Number.POSITIVE_INFINITY;
  let reached = () => {};
  const reading = (async () => {
    for await (const part of followStream(path, { isLive: () => live, interval: 1 })) {
      parts.push(part);
      if (parts.length >= wanted) reached();
    }
  })();
  for await (const count of write()) {
    await new Promise<void>((resolve) => {
      wanted = count;
      reached = resolve;
      if (parts.length >= count) resolve();
    });
  }
  live = false;
  await reading;
  return parts;
}

describe('a stream that is followed', () => {
  it('comes batch by batch, each when it is whole, from before there is a file', async () => {
    const path = join(temporaryFolder(), 'signals.arrows');
    const parts = await followed(path, async function* () {
      const writer = StreamWriter.create('signals', path, words);
      yield 1;
      for (let step = 0; step < 3; step++) {
        writer.append(signals(step, step));
        yield step + 2;
      }
      writer.close();
    });
    expect(parts.map(({ kind }) => kind)).toEqual(['header', 'batch', 'batch', 'batch']);
    expect(valuesOf(parts)).toEqual([0, 1, 2]);
  });

  it('comes again from where it was written differently, and only from there', async () => {
    const path = join(temporaryFolder(), 'signals.arrows');
    const parts = await followed(path, async function* () {
      const writer = StreamWriter.create('signals', path, words);
      writer.append(signals(0, 0));
      const checkpoint = writer.bytes;
      for (const step of [1, 2]) writer.append(signals(step, step));
      writer.close();
      yield 4;
      const resumed = StreamWriter.resume('signals', path, words, checkpoint, `${path}.aside`);
      // The same as before, then something else.
      resumed.append(signals(1, 1));
      resumed.append(signals(2, 20));
      resumed.append(signals(3, 3));
      yield 6;
      resumed.close();
    });
    expect(valuesOf(parts)).toEqual([0, 1, 2, 20, 3]);
    expect(parts.map(({ rewound }) => rewound)).toEqual([false, false, false, false, true, false]);
  });

  it('that is not live ends behind its last whole batch', async () => {
    const path = join(temporaryFolder(), 'signals.arrows');
    const writer = StreamWriter.create('signals', path, words);
    writer.append(signals(0, 0));
    writer.append(signals(1, 1));
    truncateSync(path, writer.bytes - 3);
    writer.close();
    const parts: StreamPart[] = [];
    for await (const part of followStream(path, { isLive: () => false })) parts.push(part);
    expect(valuesOf(parts)).toEqual([0]);
  });
});

const main = fileURLToPath(new URL('../../build/js/cli/main.js', import.meta.url));

describe('troupe tail', () => {
  it('prints what the stream holds, as Arrow and as JSON', async () => {
    const { folder, rows } = await trainedRun({});
    const args = ['tail', folder, '--table', 'roles'];
    const arrow = execFileSync('node', [main, ...args], { maxBuffer: 1e8 });
    const lines = troupe([...args, '--format', 'jsonl'])
      .stdout.trim()
      .split('\n');
    const expected = rows('roles').map((row) => JSON.parse(JSON.stringify(row)));
    expect(expected.length).toBeGreaterThan(0);
    expect(
      tableFromIPC(arrow)
        .toArray()
        .map((row) => JSON.parse(JSON.stringify(row))),
    ).toEqual(expected);
    expect(lines.map((line) => JSON.parse(line))).toEqual(expected);
  });

  it('follows a run to its end', async () => {
    const folder = newFolder();
    const settings = [
      'steps=4',
      'model.path=troupe-0.3m',
      'rollout.promptsPerStep=2',
      'evaluation.problems=2',
    ];
    const set = settings.flatMap((setting) => ['--set', setting]);
    const environment = { ...process.env, OMP_NUM_THREADS: '1' };
    const run = spawn('node', [main, 'train', '--run', folder, ...set], {
      env: environment,
      stdio: 'ignore',
    });
    const ended = new Promise((resolve) => run.on('close', resolve));
    // Until there is a run to follow.
    const follow = () =>
      spawnSync('node', [main, 'tail', folder, '--table', 'steps', '--follow'], { maxBuffer: 1e8 });
    let tail = follow();
    while (tail.status !== 0) tail = follow();
    expect(await ended).toBe(0);
    expect(tableFromIPC(tail.stdout).getChild('step')?.toArray()).toEqual(Int32Array.from([0, 1, 2, 3]));
    expect(tableFromIPC(tail.stdout).numRows).toBe(
      readStream(join(folder, 'streams', 'steps.arrows')).table.numRows,
    );
  });

  it('ends without a word when its reader does', async () => {
    const { folder } = await trainedRun({});
    const command = `node ${main} tail ${folder} --table calls --format jsonl | head -n 1`;
    const { status, stdout, stderr } = spawnSync('bash', ['-o', 'pipefail', '-c', command], {
      encoding: 'utf8',
    });
    expect(stderr).toBe('');
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ step: 0 });
  });

  it('says what is wrong', () => {
    fails(['tail', temporaryFolder(), '--table', 'steps'], ['no run directory']);
    fails(['tail', 'x', '--table', 'step'], ['Choices'], 2);
  });
});
