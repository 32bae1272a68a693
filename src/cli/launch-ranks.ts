/**
 * `troupe train --ranks N`: the same command N times on this machine, as torchrun would start it. Ends when all have
 * ended; where one fails, the others are ended too. The ranks end by themselves if this process is killed.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:os';
import { reasonOf, TroupeError } from '../config/errors.js';
import { freePort } from '../engine/rank-place.js';

/** Seconds that ranks have to save and end in, once one has failed. */
const GRACE = 20;

/**
 * Resolves with the exit code: that of the first rank that failed, else 0. Throws a TroupeError, when the others have ended,
 * where a rank could not be started. `args`: of the command, as it was given.
 */
export async function launchRanks(count: number, args: readonly string[]): Promise<number> {
  const port = String(await freePort());
  const ranks = Array.from({ length: count }, (_, rank) => {
    // Results are rank 0's. The channel tells a rank that this process is gone.
    return spawn(process.execPath, [...process.execArgv, process.argv[1] ?? '', ...args], {
      stdio: ['ignore', rank === 0 ? 'inherit' : 'ignore', 'inherit', 'ipc'],
      env: {
        ...process.env,
        RANK: String(rank),
        LOCAL_RANK: String(rank),
        WORLD_SIZE: String(count),
        LOCAL_WORLD_SIZE: String(count),
        MASTER_ADDR: '127.0.0.1',
        MASTER_PORT: port,
      },
    });
  });
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  // A terminal sends its signals to the ranks as well: soon after each other they are one (stop-signals.ts).
  const pass = (signal: NodeJS.Signals) => void ranks.map((rank) => rank.kill(signal));
  for (const signal of signals) process.on(signal, pass);
  let failed: number | undefined;
  let grace: NodeJS.Timeout | undefined;
  const end = (code: number) => {
    failed ??= code;
    for (const rank of ranks) if (isAlive(rank)) rank.kill('SIGTERM');
    grace ??= setTimeout(() => ranks.forEach((rank) => void rank.kill('SIGKILL')), GRACE * 1000);
  };
  let unstarted: TroupeError | undefined;
  const ended = ranks.map(async (rank, number) => {
    try {
      const [code, signal] = (await once(rank, 'exit')) as [number | null, NodeJS.Signals | null];
      const status = code ?? 128 + constants.signals[signal ?? 'SIGKILL'];
      if (status !== 0) end(status);
    } catch (cause) {
      const what = `could not be started (${reasonOf(cause)})`;
      unstarted ??= new TroupeError(what, { where: `rank ${number}`, hint: 'Start fewer ranks.', cause });
      end(1);
    }
  });
  await Promise.all(ended);
  clearTimeout(grace);
  for (const signal of signals) process.removeAllListeners(signal);
  if (unstarted !== undefined) throw unstarted;
  return failed ?? 0;
}

const isAlive = ({ exitCode, signalCode }: ChildProcess) => exitCode === null && signalCode === null;

/** Asks a rank that `launchRanks` started to stop when that process is gone. */
export function stopWithLauncher(): void {
  if (process.channel === undefined) return;
  process.on('disconnect', () => process.kill(process.pid, 'SIGTERM'));
  // A run that has ended does not wait for it.
  process.channel.unref();
}
