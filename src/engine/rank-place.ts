/**
 * Which of how many ranks this process is and where they meet, from what torchrun, SLURM, or whoever starts the
 * processes put into their environment (docs/distributed.md).
 */
import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { reasonOf, TroupeError } from '../config/errors.js';
import { untilAborted } from '../config/user-code.js';

export interface RankPlace {
  rank: number;
  /** Ranks in all. */
  size: number;
  /** Index among the ranks of this machine, and their number. */
  localRank: number;
  localSize: number;
  /** Where the store is, at which the ranks meet. */
  host: string;
  port: number;
  /** This process keeps the store; else torchrun's agent or another rank does. */
  serve: boolean;
  /** Names this start of the group in a store that outlives it. */
  prefix: string;
  /** Times that torchrun has started the group again. */
  restarts: number;
  /** Times that it may. */
  maxRestarts: number;
  /** GPUs exchange by NCCL (TROUPE_NCCL); undefined: where they can. */
  nccl: boolean | undefined;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Undefined: a run of one rank. Throws a TroupeError where the variables do not fit each other. */
export function placeFrom(environment: Environment): RankPlace | undefined {
  const { RANK, WORLD_SIZE, SLURM_STEP_NUM_TASKS = '1' } = environment;
  if (RANK === undefined && WORLD_SIZE?.trim() === '1') return undefined;
  if (Number(SLURM_STEP_NUM_TASKS) > 1) return fromVariables(slurmVariables(environment));
  if (RANK === undefined && WORLD_SIZE === undefined) return undefined;
  return fromVariables(environment);
}

function fromVariables(environment: Environment): RankPlace {
  const size = whole(environment, 'WORLD_SIZE', 1, MAX_RANKS);
  const rank = whole(environment, 'RANK', 0, MAX_RANKS);
  if (rank >= size) {
    throw new TroupeError(`is ${rank}; of ${size} ranks (WORLD_SIZE) the last one is ${size - 1}.`, {
      where: 'RANK',
    });
  }
  const host = environment.MASTER_ADDR;
  if (host === undefined || host === '') {
    throw new TroupeError("is not set; it takes the address of rank 0's machine.", { where: 'MASTER_ADDR' });
  }
  const localRank = environment.LOCAL_RANK === undefined ? 0 : whole(environment, 'LOCAL_RANK', 0, MAX_RANKS);
  const localSize =
    environment.LOCAL_WORLD_SIZE === undefined ? 1 : whole(environment, 'LOCAL_WORLD_SIZE', 1, MAX_RANKS);
  const optional = (name: string) =>
    environment[name] === undefined ? 0 : whole(environment, name, 0, Number.MAX_SAFE_INTEGER);
  const restarts = optional('TORCHELASTIC_RESTART_COUNT');
  const agent = environment.TORCHELASTIC_USE_AGENT_STORE === 'True';
  return {
    rank,
    size,
    localRank,
    localSize,
    host,
    port: whole(environment, 'MASTER_PORT', 1, 65535),
    serve: rank === 0 && !agent,
    prefix: `troupe/${environment.TORCHELASTIC_RUN_ID ?? ''}/${restarts}`,
    restarts,
    maxRestarts: optional('TORCHELASTIC_MAX_RESTARTS'),
    nccl: asksForNccl(environment),
  };
}

function asksForNccl({ TROUPE_NCCL = '' }: Environment): boolean | undefined {
  if (TROUPE_NCCL === '') return undefined;
  if (['1', '0'].includes(TROUPE_NCCL)) return TROUPE_NCCL === '1';
  throw new TroupeError(`is "${TROUPE_NCCL}"; it takes 1 or 0.`, {
    where: 'TROUPE_NCCL',
    hint: 'With 1, GPUs exchange by NCCL or the run ends; with 0 they do not; else they do where they can (docs/distributed.md).',
  });
}

/** More than any run has: what is above it is a mistake in the environment. */
const MAX_RANKS = 65536;

function whole(environment: Environment, name: string, least: number, most: number): number {
  const text = environment[name];
  const value = Number(text);
  if (text !== undefined && /^\d+$/.test(text.trim()) && value >= least && value <= most) return value;
  const given = text === undefined ? 'is not set' : `is "${text}"`;
  throw new TroupeError(`${given}; it takes a whole number from ${least} to ${most}.`, {
    where: name,
    hint: 'torchrun sets it, and `troupe train --ranks N` does (docs/distributed.md).',
  });
}

/** srun's variables under torchrun's names; those that are set already stay. */
function slurmVariables(environment: Environment): Environment {
  const { SLURM_JOB_ID = '0', SLURM_STEP_TASKS_PER_NODE = '1', SLURM_NODEID = '0' } = environment;
  const nodes = environment.SLURM_STEP_NODELIST ?? environment.SLURM_JOB_NODELIST ?? '';
  return {
    WORLD_SIZE: environment.SLURM_STEP_NUM_TASKS,
    RANK: environment.SLURM_PROCID,
    LOCAL_RANK: environment.SLURM_LOCALID,
    LOCAL_WORLD_SIZE: String(tasksOfNode(SLURM_STEP_TASKS_PER_NODE, Number(SLURM_NODEID))),
    MASTER_ADDR: firstHost(nodes),
    // Two jobs on one machine do not meet.
    MASTER_PORT: String(PORTS.first + (Number(SLURM_JOB_ID) % PORTS.count)),
    ...Object.fromEntries(Object.entries(environment).filter(([, value]) => value !== undefined)),
  };
}

/** The first of "gpu[03-05,09],login1" is gpu03. */
export function firstHost(nodes: string): string {
  const [, name = '', list = '', end = ''] = /^([^,[]*)(?:\[([^\]]*)\]([^,[]*))?/.exec(nodes) ?? [];
  const [first = ''] = list.split(/[-,]/);
  return name + first + end;
}

/** Tasks of node `index` in "4(x2),2": 4, 4, 2. */
export function tasksOfNode(list: string, index: number): number {
  let nodes = 0;
  for (const [, tasks = '1', times = '1'] of list.matchAll(/(\d+)(?:\(x(\d+)\))?/g)) {
    nodes += Number(times);
    if (index < nodes) return Number(tasks);
  }
  return 1;
}

/**
 * This machine's address, as the others reach it: that of the interface by which it reaches the store. Nothing is sent.
 * A name that is not known yet may become so: Kubernetes gives one to a pod when it runs. Throws a TroupeError where that
 * takes more than `seconds`, or with the signal's reason.
 */
export async function addressTowards(
  { host, port }: Pick<RankPlace, 'host' | 'port'>,
  { seconds, signal }: { seconds: number; signal?: AbortSignal | undefined },
): Promise<string> {
  const end = performance.now() + seconds * 1000;
  for (;;) {
    try {
      const address = await sourceOf(host, port);
      // A machine may know its own name as an address of its loopback (Debian does), where no other one reaches it.
      const own = isLoopback(address) && !isLoopback(host) && host !== 'localhost';
      return own ? await sourceOf(ELSEWHERE, port).catch(() => address) : address;
    } catch (cause) {
      if (performance.now() >= end) {
        throw new TroupeError(`there has been no way to ${host} for ${seconds} s (${reasonOf(cause)}).`, {
          where: 'MASTER_ADDR',
          cause,
        });
      }
    }
    await untilAborted(sleep(Math.min(RETRY, Math.max(0, end - performance.now()))), signal);
  }
}

/** Milliseconds. */
const RETRY = 500;

/** An address on no machine (RFC 5737). */
const ELSEWHERE = '192.0.2.1';

const isLoopback = (address: string) => /^127\.|^::1$/.test(address);

/** What this machine's packets to `host` have as their source. */
async function sourceOf(host: string, port: number): Promise<string> {
  let thrown: unknown;
  for (const type of ['udp4', 'udp6'] as const) {
    const socket = createSocket(type);
    try {
      const connected = once(socket, 'connect');
      socket.connect(port, host);
      await connected;
      return socket.address().address;
    } catch (error) {
      thrown = error;
    } finally {
      socket.close();
    }
  }
  throw thrown;
}

/** Below the ports that a system gives to whoever names none (Linux: from 32,768 on). */
const PORTS = { first: 20_000, count: 12_000 };

/**
 * A port of this machine that nothing listens on now: none that another program may be given until somebody listens on this
 * one, seconds later.
 */
export async function freePort(): Promise<number> {
  for (let tries = 1; ; tries++) {
    const port = PORTS.first + randomInt(PORTS.count);
    const server = createServer().listen(port);
    try {
      await once(server, 'listening');
      server.close();
      return port;
    } catch (error) {
      if (tries === 100) throw error;
    }
  }
}
