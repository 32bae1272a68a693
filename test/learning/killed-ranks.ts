/** Runs of several processes whose ranks are killed, and what starts them again as torchrun does. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { printConfig } from '../../src/config/print.js';
import type { RunConfig } from '../../src/config/schema.js';
import { freePort } from '../../src/engine/rank-place.js';
import { main } from '../cli/troupe.js';

export interface EndedRank {
  code: number | null;
  signal: NodeJS.Signals | null;
  stderr: string;
}

export interface StartedRank {
  process: ChildProcess;
  stderr(): string;
  ended: Promise<EndedRank>;
}

/** Starts `size` ranks of `troupe train`, with `over` added to their environment and `own` to each one's arguments. */
export async function startRanks(
  size: number,
  args: readonly string[],
  over: Record<string, string> = {},
  own: (rank: number) => string[] = () => [],
): Promise<StartedRank[]> {
  const MASTER_PORT = String(await freePort());
  return Array.from({ length: size }, (_, rank) => {
    const place = {
      RANK: `${rank}`,
      LOCAL_RANK: `${rank}`,
      WORLD_SIZE: `${size}`,
      LOCAL_WORLD_SIZE: `${size}`,
    };
    const env = { ...process.env, OMP_NUM_THREADS: '1', ...place, MASTER_ADDR: '127.0.0.1', MASTER_PORT };
    const child = spawn('node', [main, 'train', ...args, ...own(rank)], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...env, ...over },
    });
    let stderr = '';
    child.stderr.on('data', (data: Buffer) => {
      stderr += data.toString();
    });
    const ended = once(child, 'close').then(([code, signal]) => ({ code, signal, stderr }) as EndedRank);
    return { process: child, stderr: () => stderr, ended };
  });
}

/** Writes the configuration beside the run. */
export function configFile(folder: string, config: RunConfig): string {
  const file = join(folder, 'config.yaml');
  writeFileSync(file, printConfig(config));
  return file;
}

/**
 * A run of `size` ranks that is started again, as `torchrun --max-restarts` does, for as long as `kill` kills a rank.
 * Returns what the ranks of every start but the last said.
 */
export async function restartedRun(
  size: number,
  args: readonly string[],
  kill: (ranks: StartedRank[], restarts: number) => Promise<void>,
  maxRestarts: number,
): Promise<EndedRank[][]> {
  const failures: EndedRank[][] = [];
  for (let restarts = 0; restarts <= maxRestarts; restarts++) {
    const ranks = await startRanks(size, args, {
      TORCHELASTIC_RESTART_COUNT: String(restarts),
      TORCHELASTIC_MAX_RESTARTS: String(maxRestarts),
    });
    await kill(ranks, restarts);
    const ended = await Promise.all(ranks.map((rank) => rank.ended));
    if (ended.every(({ code }) => code === 0)) return failures;
    failures.push(ended);
  }
  throw new Error(`the run failed ${maxRestarts + 1} times: ${JSON.stringify(failures.at(-1))}`);
}
