/** Guards against a rank that takes itself for another, or for the only one, under one of the launchers. */
import { hostname, networkInterfaces } from 'node:os';
import { expect, it } from 'vitest';
import { addressTowards, firstHost, freePort, placeFrom, tasksOfNode } from '../../src/engine/rank-place.js';

it('without a launcher, or in a job of one task, there is one rank', () => {
  expect(placeFrom({})).toBeUndefined();
  expect(placeFrom({ WORLD_SIZE: '1' })).toBeUndefined();
  // A batch script's own environment: nobody has started tasks yet.
  expect(placeFrom({ SLURM_PROCID: '0', SLURM_NTASKS: '4' })).toBeUndefined();
});

it('torchrun', () => {
  const environment = {
    RANK: '3',
    WORLD_SIZE: '4',
    LOCAL_RANK: '1',
    LOCAL_WORLD_SIZE: '2',
    MASTER_ADDR: '10.0.0.1',
    MASTER_PORT: '29500',
    TORCHELASTIC_RUN_ID: 'none',
    TORCHELASTIC_RESTART_COUNT: '2',
    TORCHELASTIC_MAX_RESTARTS: '3',
  };
  const place = {
    rank: 3,
    size: 4,
    localRank: 1,
    localSize: 2,
    host: '10.0.0.1',
    port: 29500,
    serve: false,
    prefix: 'troupe/none/2',
    restarts: 2,
    maxRestarts: 3,
    nccl: undefined,
  };
  expect(placeFrom(environment)).toEqual(place);
  const first = { ...environment, RANK: '0' };
  expect(placeFrom(first)).toEqual({ ...place, rank: 0, serve: true });
  // Its agent keeps the store.
  expect(placeFrom({ ...first, TORCHELASTIC_USE_AGENT_STORE: 'True' })?.serve).toBe(false);
});

it('srun', () => {
  const environment = {
    SLURM_STEP_NUM_TASKS: '10',
    SLURM_PROCID: '9',
    SLURM_LOCALID: '1',
    SLURM_NODEID: '2',
    SLURM_STEP_TASKS_PER_NODE: '4(x2),2',
    SLURM_STEP_NODELIST: 'gpu[03-05,09]',
    SLURM_JOB_ID: '1234567',
  };
  expect(placeFrom(environment)).toMatchObject({
    rank: 9,
    size: 10,
    localRank: 1,
    localSize: 2,
    host: 'gpu03',
  });
  expect(placeFrom(environment)?.port).toBe(20000 + (1234567 % 12000));
  expect(placeFrom({ ...environment, MASTER_PORT: '4000' })?.port).toBe(4000);
  expect(['a1', 'a1,b2', 'a[1,3]', 'n[008-010].x', 'c1,d[1-2]'].map(firstHost)).toEqual([
    'a1',
    'a1',
    'a1',
    'n008.x',
    'c1',
  ]);
  expect([0, 1, 2, 3].map((node) => tasksOfNode('4(x2),2,1', node))).toEqual([4, 4, 2, 1]);
  // As batch scripts export some of it for other programs.
  const own = { WORLD_SIZE: '10', MASTER_ADDR: '10.0.0.3' };
  expect(placeFrom({ ...environment, ...own })).toMatchObject({ rank: 9, localRank: 1, host: '10.0.0.3' });
  const all = { ...own, RANK: '7', LOCAL_RANK: '3' };
  expect(placeFrom({ ...environment, ...all })).toMatchObject({ rank: 7, localRank: 3 });
  expect(placeFrom({ ...environment, WORLD_SIZE: '1' })).toBeUndefined();
});

it('says which variable is wrong', () => {
  const right = { RANK: '0', WORLD_SIZE: '2', MASTER_ADDR: 'localhost', MASTER_PORT: '29500' };
  const wrong: [Record<string, string | undefined>, string][] = [
    [{ RANK: '2' }, 'RANK: is 2; of 2 ranks (WORLD_SIZE) the last one is 1.'],
    [{ RANK: undefined }, 'RANK: is not set; it takes a whole number'],
    [{ WORLD_SIZE: undefined }, 'WORLD_SIZE: is not set; it takes a whole number'],
    [{ WORLD_SIZE: '0' }, 'WORLD_SIZE: is "0"; it takes a whole number from 1'],
    [{ WORLD_SIZE: 'two' }, 'WORLD_SIZE: is "two"; it takes a whole number'],
    [{ MASTER_ADDR: undefined }, "MASTER_ADDR: is not set; it takes the address of rank 0's machine."],
    [{ TROUPE_NCCL: 'true' }, 'TROUPE_NCCL: is "true"; it takes 1 or 0.'],
    [{ MASTER_PORT: '70000' }, 'MASTER_PORT: is "70000"; it takes a whole number from 1 to 65535.'],
  ];
  for (const [change, message] of wrong) expect(() => placeFrom({ ...right, ...change })).toThrow(message);
  const nccl = ['1', '0', '', undefined].map((set) => placeFrom({ ...right, TROUPE_NCCL: set })?.nccl);
  expect(nccl).toEqual([true, false, undefined, undefined]);
});

it('finds the address that others reach this machine at, and waits for a name to be known', async () => {
  const towards = (host: string) => addressTowards({ host, port: 29500 }, { seconds: 0.2 });
  expect(await towards('127.0.0.1')).toBe('127.0.0.1');
  expect(await towards('localhost')).toBe('127.0.0.1');
  // Where the machine's own name is an address of its loopback, as Debian writes it, that is no address for others.
  const all = Object.values(networkInterfaces()).flatMap((its) => its ?? []);
  const outside = all.some(({ family, internal }) => family === 'IPv4' && !internal);
  if (outside) expect(await towards(hostname())).not.toMatch(/^127\./);
  const unknown = towards('no-such-host.invalid');
  await expect(unknown).rejects.toThrow(
    /^MASTER_ADDR: there has been no way to no-such-host\.invalid for 0\.2 s \(/,
  );
  const stop = new AbortController();
  const stopped = addressTowards(
    { host: 'no-such-host.invalid', port: 29500 },
    { seconds: 60, signal: stop.signal },
  );
  setTimeout(() => stop.abort(), 20);
  await expect(stopped).rejects.toThrow(stop.signal.reason);
});

it('a free port is none that the system gives to programs that name none', async () => {
  for (let i = 0; i < 20; i++) {
    const port = await freePort();
    expect(port).toBeGreaterThanOrEqual(20_000);
    expect(port).toBeLessThan(32_768);
  }
});
