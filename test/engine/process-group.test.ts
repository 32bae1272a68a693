/**
 * Guards against wrong sums between ranks, and against a rank that waits for ever, or without a word, for one that is
 * dead, stopped, misconfigured or somewhere else.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { native } from '../../src/engine/native.js';
import { ProcessGroup } from '../../src/engine/process-group.js';
import { freePort } from '../../src/engine/rank-place.js';

const child = fileURLToPath(new URL('group-child.mjs', import.meta.url));
const local = { host: '127.0.0.1', address: '127.0.0.1', interface: '', prefix: 'test', nccl: false };

const children: ChildProcess[] = [];
afterEach(() => {
  for (const one of children.splice(0)) one.kill('SIGKILL');
});

interface Result {
  result?: Record<string, unknown> | string;
  leaked?: number;
  error?: string;
  kind?: string;
}

/** What came of each scenario. Nothing else is said: c10d's own log is pages of addresses. */
function start(scenarios: string, options: object): Promise<Result[]> {
  const process = spawn('node', [child, scenarios, JSON.stringify({ ...local, ...options })], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  children.push(process);
  let output = '';
  let log = '';
  process.stderr.on('data', (data: Buffer) => {
    log += data.toString();
  });
  process.stdout.on('data', (data: Buffer) => {
    output += data.toString();
  });
  const read = () => output.split('\n').filter((line) => line !== '');
  return once(process, 'close').then(() => {
    expect(log).toBe('');
    return read().map((line) => JSON.parse(line) as Result);
  });
}

/** What each of `size` ranks says. */
async function group(scenarios: string, size: number, timeoutSeconds: number): Promise<Promise<Result[]>[]> {
  const ports = await Promise.all(scenarios.split(',').map(freePort));
  return Array.from({ length: size }, (_, rank) =>
    start(scenarios, { rank, size, ports, serve: rank === 0, timeoutSeconds }),
  );
}

it('adds up, scatters, gathers and broadcasts what loops would; waits for the late, not for those who went elsewhere', async () => {
  const ranks = await Promise.all(await group('collectives,late,apart,early', 3, 2));
  for (const [rank, [collectives, late, apart, early]] of ranks.entries()) {
    expect(collectives?.leaked).toBe(0);
    expect(collectives?.result).toEqual({
      sum: [6, 30],
      flat: [3, 6, 9],
      most: [2, 0],
      // Σ over ranks of i · (rank + 1) = 6 i
      part: [12 * rank, 12 * rank + 6],
      all: [0, 0.5, 1, 1.5, 2, 2.5],
      given: [2, 7],
      counted: 6,
      words: ['', 'xxx', 'xxxxxx'],
      measured: true,
    });
    // For longer than the timeout: it lives.
    expect(late?.result).toBe('met');
    if (rank === 2) continue;
    expect(apart).toEqual({
      error: `rank ${rank} waited in "one", and rank 2 is in "another": the ranks have lost each other.`,
      kind: 'TroupeError',
    });
    expect(early?.error).toBe(`rank ${rank} waited in "too late", and rank 2 has ended.`);
  }
});

it('names a rank that has died, one that is stopped, and a store that is', async () => {
  // The one that is left may still be leaving the start of the group when the other is gone.
  const place = (name: string) => `"(${name}|start of the group)"`;
  const [dies] = await group('dies', 2, 20);
  const [stops] = await group('stops', 2, 1);
  const [, firstStops] = await group('firstStops', 2, 1);
  expect((await dies)?.[0]?.error).toMatch(
    new RegExp(`^rank 0 waited in ${place('after the death')}, and the process of rank 1 .* is gone\\.$`),
  );
  expect((await stops)?.[0]?.error).toMatch(
    new RegExp(`^rank 0 waited in ${place('behind the last')}, and rank 1 has not been heard of for 1 s\\.$`),
  );
  expect((await firstStops)?.[0]?.error).toMatch(
    new RegExp(
      `^rank 1 waited in ${place('behind the first')}, and ` +
        '(the store at 127.0.0.1:\\d+ has not answered|rank 0 has not been heard of) for 1 s\\.$',
    ),
  );
});

describe('a group that cannot start says why', () => {
  const alone = { ...local, rank: 0, size: 2, serve: true, timeoutSeconds: 0.5 };

  it('where a rank does not come, or nobody keeps the store', async () => {
    const port = await freePort();
    expect(() => new ProcessGroup({ ...alone, port })).toThrow(
      'waited 0.5 s for all 2 ranks to start; missing: 1.',
    );
    expect(() => new ProcessGroup({ ...alone, port: 1, rank: 1, serve: false })).toThrow(
      /^rank 1 could not reach the store at 127\.0\.0\.1:1, .* within 0\.5 s/,
    );
  });

  it('where the store that it has met hangs', async () => {
    const port = await freePort();
    void start('early', { rank: 0, size: 3, ports: [port], serve: true, timeoutSeconds: 20 });
    const isUp = async () => {
      const socket = connect(port, '127.0.0.1');
      const up = await once(socket, 'connect').then(
        () => true,
        () => false,
      );
      socket.destroy();
      return up;
    };
    while (!(await isUp())) await new Promise((resolve) => setTimeout(resolve, 50));
    // Between the two: from the first question about rank 2 on nothing is answered any more.
    const between = createServer((from) => {
      const to = connect(port, '127.0.0.1');
      let silent = false;
      from.on('data', (data) => {
        silent ||= data.includes('rank/2');
        if (!silent) to.write(data);
      });
      to.on('data', (data) => void (silent || from.write(data)));
      for (const socket of [from, to]) socket.on('error', () => {});
    }).listen(0, '127.0.0.1');
    await once(between, 'listening');
    const ports = [(between.address() as { port: number }).port];
    const [said] = await start('early', { rank: 1, size: 3, ports, serve: false, timeoutSeconds: 1 });
    expect(said?.error).toMatch(/^waited 1 s for all 3 ranks to start; missing: .*2\.$/);
    between.close();
  });

  it('where the port is in use, or the interface does not exist', async () => {
    const server = createServer().listen(0, '0.0.0.0');
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    expect(() => new ProcessGroup({ ...alone, port })).toThrow(`port ${port} is in use by another program`);
    server.close();
    const elsewhere = { ...alone, port: await freePort(), interface: 'nonesuch0' };
    expect(() => new ProcessGroup(elsewhere)).toThrow('there is no network interface nonesuch0');
  });

  it('where ranks do not agree on their number, or two have the same', async () => {
    const port = await freePort();
    const patient = { ...alone, timeoutSeconds: 20 };
    const other = start('early', { rank: 1, size: 3, ports: [port], serve: false, timeoutSeconds: 20 });
    expect(() => new ProcessGroup({ ...patient, port })).toThrow(
      'rank 0 was started as one of 2 ranks, rank 1 as one of 3: WORLD_SIZE has to be the same for all.',
    );
    expect((await other)[0]?.error).toContain('WORLD_SIZE has to be the same for all.');
    const second = await freePort();
    const twin = start('early', { rank: 0, size: 2, ports: [second], serve: false, timeoutSeconds: 20 });
    const twice = 'two processes were started as rank 0: every rank has to have a RANK of its own.';
    expect(() => new ProcessGroup({ ...patient, port: second })).toThrow(twice);
    expect((await twin)[0]?.error).toBe(twice);
  });

  it('where NCCL is asked for and cannot be used, or not by all', async () => {
    const [port, another] = [await freePort(), await freePort()];
    const missing = Object.values(native().cudaProblems())[0];
    const lonely = () => new ProcessGroup({ ...alone, size: 1, port, nccl: true }).dispose();
    if (missing === undefined) lonely();
    else
      expect(lonely).toThrow(
        `TROUPE_NCCL=1 asks for NCCL between GPUs, which cannot be used here: ${missing}`,
      );
    const differ = 'TROUPE_NCCL is 1 on rank 1 and not on rank 0: it has to be the same for all.';
    const options = { rank: 1, size: 2, ports: [another], serve: false, timeoutSeconds: 20, nccl: true };
    const other = start('early', options);
    expect(() => new ProcessGroup({ ...alone, timeoutSeconds: 20, port: another })).toThrow(differ);
    expect((await other)[0]?.error).toBe(differ);
  });
});
