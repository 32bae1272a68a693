/**
 * Forty kills at random moments of random ranks, and torchrun, which starts again by itself what was killed: whatever
 * happens, the run comes out as if nothing had.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { freePort } from '../../src/engine/rank-place.js';
import { randomStream } from '../../src/learning/random.js';
import { main } from '../cli/troupe.js';
import { needs, pythonPath } from '../needs.js';
import { configFile, restartedRun } from './killed-ranks.js';
import { remains, smallConfig } from './trained-run.js';

const parent = mkdtempSync(join(tmpdir(), 'troupe-kills-'));
afterAll(() => rmSync(parent, { recursive: true, force: true }));

const config = smallConfig({
  steps: 4,
  policies: { sharing: 'isolated' },
  rollout: { promptsPerStep: 3, episodesPerPrompt: 2, sampling: { temperature: 1, maxTokens: 4 } },
  evaluation: { every: 2, problems: 2, greedy: false },
  checkpoints: { every: 1, keep: 5 },
});

function newRun(name: string): { run: string; args: string[] } {
  mkdirSync(join(parent, name));
  const run = join(parent, name, 'run');
  return { run, args: [configFile(join(parent, name), config), '--run', run] };
}

const RANKS = 2;
const RUNS = 8;
const KILLS_PER_RUN = 5;

const whole = newRun('whole');
let duration = 0;
beforeAll(async () => {
  const began = Date.now();
  await restartedRun(RANKS, whole.args, async () => {}, 0);
  duration = Date.now() - began;
}, 600_000);

it('40 kills', async () => {
  const random = randomStream(13);
  for (let number = 0; number < RUNS; number++) {
    const { run, args } = newRun(`run ${number}`);
    const failures = await restartedRun(
      RANKS,
      args,
      async (ranks, restarts) => {
        if (restarts >= KILLS_PER_RUN) return;
        const rank = ranks[Math.floor(random() * RANKS)];
        await Promise.race([sleep(random() * duration), rank?.ended]);
        rank?.process.kill('SIGKILL');
      },
      KILLS_PER_RUN,
    );
    for (const ended of failures) {
      for (const { code, signal, stderr } of ended) {
        if (signal === 'SIGKILL') continue;
        // One that had ended well before the other was killed, or one sentence.
        if (code !== 0) expect(stderr).toMatch(/^troupe: /m);
        expect(stderr).not.toMatch(/^ {4}at /m);
      }
    }
    expect(remains(run)).toEqual(remains(whole.run));
  }
});

/** Processes of `troupe train` on that run, as /proc has them. */
function ranksOf(run: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((name) => {
      try {
        const words = readFileSync(`/proc/${name}/cmdline`, 'utf8').split('\0');
        return words[1] === main && words.includes(run);
      } catch {
        return false;
      }
    })
    .map(Number);
}

describe('torchrun', () => {
  it('takes up a run three times whose ranks are killed', { timeout: 600_000 }, async (context) => {
    needs('peft')(context);
    const { run, args } = newRun('torchrun');
    const place = [
      '--no-python',
      '--nproc-per-node',
      `${RANKS}`,
      '--max-restarts',
      '3',
      '--monitor-interval',
      '0.1',
    ];
    const port = ['--master-port', `${await freePort()}`];
    const command = ['-m', 'torch.distributed.run', ...place, ...port, '--', 'node', main, 'train', ...args];
    const process_ = spawn(pythonPath, command, {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, OMP_NUM_THREADS: '1' },
    });
    let stderr = '';
    process_.stderr.on('data', (data: Buffer) => {
      stderr += data.toString();
    });
    const ended = once(process_, 'close');
    const said = (text: string) => stderr.split(text).length - 1;
    const random = randomStream(7);
    for (let kills = 0; kills < 3; kills++) {
      // Each time it starts again, with another rank, after it has met the others.
      const before = said('accuracy') + said('train step');
      while (process_.exitCode === null && said('accuracy') + said('train step') === before) await sleep(20);
      await sleep(random() * 300);
      const [first, second] = ranksOf(run);
      const killed = (kills % 2 === 0 ? first : second) ?? first;
      expect(killed).toBeDefined();
      process.kill(killed as number, 'SIGKILL');
      while (process_.exitCode === null && ranksOf(run).length > 0) await sleep(20);
    }
    const [code] = await ended;
    expect(code, stderr).toBe(0);
    expect(stderr).not.toMatch(/^ {4}at /m);
    expect(remains(run)).toEqual(remains(whole.run));
  });
});
