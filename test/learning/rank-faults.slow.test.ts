/** Forty kills at random moments of random ranks: whatever happens, the run comes out as if nothing had. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { randomStream } from '../../src/learning/random.js';
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
