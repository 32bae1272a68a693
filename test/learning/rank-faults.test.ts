/**
 * Guards against a run of several ranks that hangs, goes on wrongly or ends without a word where one of them is killed,
 * differs from the others, or is asked to stop.
 */
import { once } from 'node:events';
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, expect, it } from 'vitest';
import { packageRoot } from '../../src/config/package.js';
import { freePort } from '../../src/engine/rank-place.js';
import { randomStream } from '../../src/learning/random.js';
import { listCheckpoints } from '../../src/runs/checkpoint.js';
import { configFile, restartedRun, type StartedRank, startRanks } from './killed-ranks.js';
import { remains, smallConfig } from './trained-run.js';

const parent = mkdtempSync(join(tmpdir(), 'troupe-faults-'));
afterAll(() => rmSync(parent, { recursive: true, force: true }));

const config = smallConfig({
  steps: 5,
  rollout: { promptsPerStep: 2, episodesPerPrompt: 2, sampling: { temperature: 1, maxTokens: 4 } },
  evaluation: { every: 0, problems: 2, greedy: false },
  checkpoints: { every: 1, keep: 9 },
  // A rank that is killed before it has met the other is waited for that long.
  distributed: { timeoutSeconds: 8 },
});

function newRun(name: string): { run: string; args: string[] } {
  mkdirSync(join(parent, name));
  const run = join(parent, name, 'run');
  return { run, args: [configFile(join(parent, name), config), '--run', run] };
}

const KILLS = 5;

/** Waits until a rank has said it. */
async function said(rank: StartedRank | undefined, text: string): Promise<void> {
  while (rank?.process.exitCode === null && !rank.stderr().includes(text)) await sleep(5);
}

async function listens(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

// Seven starts of two processes.
it('goes on by itself after kills, as if there had been none, and says who was killed', {
  timeout: 180_000,
}, async () => {
  const whole = newRun('whole');
  const began = Date.now();
  expect(await restartedRun(2, whole.args, async () => {}, 0)).toEqual([]);
  const duration = Date.now() - began;
  const killed = newRun('killed');
  const random = randomStream(13);
  const failures = await restartedRun(
    2,
    killed.args,
    async (ranks, restarts) => {
      if (restarts >= KILLS) return;
      if (restarts < 2) {
        // Rank 1 in the middle of the second step, then rank 0, which keeps records and store, in the next one.
        await said(ranks[0], restarts === 0 ? 'train step 1/5' : 'train step 2/5');
      } else {
        // At any moment before the end: while they start, meet, load, train, save.
        await sleep(random() * 0.4 * duration);
      }
      ranks[(restarts + 1) % 2]?.process.kill('SIGKILL');
    },
    KILLS,
  );
  // A kill at any moment comes too late where the machine has become faster since the whole run was timed.
  expect(failures.length).toBeGreaterThanOrEqual(2);
  for (const { code, signal, stderr } of failures.flat()) {
    if (signal === 'SIGKILL') continue;
    expect(code).toBe(1);
    expect(stderr).toMatch(/^troupe: /m);
    expect(stderr).not.toMatch(/^ {4}at /m);
  }
  const [[first, one] = [], [zero, last] = []] = failures;
  expect([one?.signal, zero?.signal]).toEqual(['SIGKILL', 'SIGKILL']);
  expect(first).toMatchObject({ code: 1 });
  expect(first?.stderr).toMatch(/troupe: .*rank 1/);
  // And, once, what is left.
  const left =
    /^.*(nothing is saved: --resume with --restart begins again|the run goes on from step \d, which is saved)$/gm;
  expect(first?.stderr.match(left)).toHaveLength(1);
  expect(first?.stderr).not.toContain('last checkpoint');
  expect(last).toMatchObject({ code: 1 });
  expect(last?.stderr).toMatch(/troupe: .*(rank 0|the store at 127\.0\.0\.1:\d+ is gone)/);
  expect(remains(killed.run)).toEqual(remains(whole.run));
});

it('ends where the engine of a rank hangs, and says so', async () => {
  const { run, args } = newRun('hanging');
  // Not TypeScript: compiling that takes seconds on a busy machine.
  const loss = join(run, '..', 'loss.mjs');
  const hang =
    "export default function loss({ logprobs }) { while (process.env.RANK === '1'); return logprobs.sum(); }";
  writeFileSync(loss, hang);
  const settings = [
    `learning.loss.module=${loss}`,
    'distributed.stallSeconds=5',
    'distributed.timeoutSeconds=5',
  ];
  const ranks = await startRanks(2, [...args, ...settings.flatMap((one) => ['--set', one])]);
  const [zero, one] = await Promise.all(ranks.map(({ ended }) => ended));
  expect([zero?.code, one?.code]).toEqual([1, 1]);
  expect(one?.stderr).toMatch(/troupe: the engine of rank 1 has not come back from its work for 5 s\./);
  expect(zero?.stderr).toMatch(/troupe: .*rank 1/);
});

it('refuses ranks that differ, by what differs, and leaves nothing behind', async () => {
  const { run, args } = newRun('different');
  const ranks = await startRanks(2, args, {}, (rank) => ['--set', `seed=${rank}`]);
  for (const { code, stderr } of await Promise.all(ranks.map(({ ended }) => ended))) {
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /troupe: start: ranks 0 and 1 differ in configuration \(\w{12} and \w{12}\), data \(\w{12} and \w{12}\)\. All ranks/,
    );
  }
  expect(existsSync(run)).toBe(false);
});

it('says on all ranks what one of them could not start for', async () => {
  const { args } = newRun('lacking');
  // A machine with half of the model.
  const half = join(parent, 'half');
  cpSync(join(packageRoot(), 'models', 'troupe-0.3m'), half, { recursive: true });
  truncateSync(join(half, 'tokenizer.json'), 1000);
  const lacking = (rank: number) => (rank === 1 ? ['--set', `model.path=${half}`] : []);
  const ranks = await startRanks(2, args, {}, lacking);
  const [zero, one] = await Promise.all(ranks.map(({ ended }) => ended));
  expect([zero?.code, one?.code]).toEqual([1, 1]);
  expect(zero?.stderr).toMatch(/troupe: rank 1: .*tokenizer\.json/);
  expect(zero?.stderr).not.toContain('lost each other');
});

it('ends at once where it is asked to while it waits for others to start', async () => {
  const { run, args } = newRun('waiting');
  const port = await freePort();
  const patient = [...args, '--set', 'distributed.timeoutSeconds=600'];
  const [rank] = await startRanks(1, patient, { WORLD_SIZE: '2', MASTER_PORT: `${port}` });
  // Its store is there.
  while (rank?.process.exitCode === null && !(await listens(port))) await sleep(20);
  rank?.process.kill('SIGTERM');
  const ended = await rank?.ended;
  expect(ended?.stderr).toMatch(/troupe: SIGTERM: stopped before the run began; nothing was kept\./);
  expect(ended?.code).not.toBe(0);
  expect(existsSync(run)).toBe(false);
});

it('stops as one where one rank is asked to, and saves', async () => {
  const { run, args } = newRun('stopped');
  const ranks = await startRanks(2, args);
  await said(ranks[0], 'train step 1/5');
  ranks[1]?.process.kill('SIGTERM');
  const ended = await Promise.all(ranks.map((rank) => rank.ended));
  expect(ended.map(({ code }) => code)).toEqual([0, 0]);
  const steps = listCheckpoints(run).map(({ step }) => step);
  expect(steps[0]).toBe(1);
  expect(steps.length).toBeLessThan(5);
});
