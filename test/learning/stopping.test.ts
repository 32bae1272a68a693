/**
 * Signals in the middle of things, through the command line: whatever the run is doing, it drops the step, saves where
 * the step began, and goes on from there as if it had never been stopped.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { main, troupe } from '../cli/troupe.js';
import { needs } from '../needs.js';
import { remains, rowsOfRun } from './trained-run.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-stopping-'));
const config = join(folder, 'run.yaml');
const straight = join(folder, 'straight');

/**
 * Sends itself TROUPE_SIGNAL, twice as where npx passes it on too, in the seventh episode: after an evaluation of 2 and a
 * step of 4, in step 1.
 */
const workflow = `
let episodes = 0;
export default {
  name: 'mine',
  roles: ['solver'],
  async run({ problem, call }) {
    if (++episodes === 7 && process.env.TROUPE_SIGNAL) {
      process.kill(process.pid, process.env.TROUPE_SIGNAL);
      process.kill(process.pid, process.env.TROUPE_SIGNAL);
      setInterval(() => {}, 1000);
      await new Promise(() => {});
    }
    const { text } = await call('solver', [{ role: 'user', content: problem.question }]);
    return { answer: text };
  },
};
`;

/** Sends the signal from a micro-batch of step 1, and leaves the main thread time to hear of it before the next. */
const loss = `
let calls = 0;
export default ({ logprobs, advantages, weights }) => {
  if (++calls === 6 && process.env.TROUPE_SIGNAL) {
    process.kill(process.pid, process.env.TROUPE_SIGNAL);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
  }
  return logprobs.mul(advantages).mul(weights).sum().neg();
};
`;

beforeAll(() => {
  writeFileSync(join(folder, 'workflow.mjs'), workflow);
  writeFileSync(join(folder, 'loss.mjs'), loss);
  writeFileSync(
    config,
    `
steps: 3
deterministic: true
model: { path: troupe-0.3m, dtype: float32 }
task: { name: arithmetic, levels: [1] }
workflow: { module: ./workflow.mjs }
rollout: { promptsPerStep: 2, episodesPerPrompt: 2, sampling: { maxTokens: 4 } }
learning: { loss: { module: ./loss.mjs }, microBatchRows: 1, skipZeroAdvantage: false }
evaluation: { every: 0, problems: 2, greedy: false }
checkpoints: { every: 0 }
`,
  );
  expect(troupe(['train', config, '--run', straight]).status).toBe(0);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe.each([
  ['an episode of a step', 'SIGINT', {}],
  ['an episode of a step', 'SIGTERM', {}],
  ['an episode of a step', 'SIGHUP', {}],
  ['the updates of a step', 'SIGTERM', { workflow: 'quiet.mjs' }],
])('in %s, %s', (_where, signal, { workflow: quiet }: { workflow?: string }) => {
  it('saves where the step began, and the run goes on from there', () => {
    if (quiet !== undefined) writeFileSync(join(folder, quiet), workflow.replace('=== 7', '=== -1'));
    const run = join(folder, `${signal}-${quiet ?? 'rollout'}`);
    const set = quiet === undefined ? [] : ['--set', `workflow.module=${join(folder, quiet)}`];
    const stopped = troupe(['train', config, '--run', run, ...set], { TROUPE_SIGNAL: signal });
    expect(stopped.status, stopped.stderr).toBe(0);
    expect(stopped.stderr).toContain(`${signal}: saving, then stopping`);
    expect(stopped.stdout).toContain('stopped after step 1; continue with');
    expect(readdirSync(join(run, 'checkpoints'))).toEqual(['step-000001']);
    expect(rowsOfRun(run, 'steps').map(({ step }) => step)).toEqual([0]);

    const resumed = troupe(['train', '--resume', run]);
    expect(resumed.status, resumed.stderr).toBe(0);
    expect(remains(run)).toEqual(remains(straight));
  });
});

/** A terminal that is closed in the middle of a run; Node has none to offer. */
const terminal = `
import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
said = b""
while b"step 2/" not in said:
    said += os.read(fd, 4096)
os.close(fd)
_, status = os.waitpid(pid, 0)
print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status))
`;

it('a closed terminal saves and ends', (context) => {
  needs('terminal')(context);
  writeFileSync(join(folder, 'endless.mjs'), workflow.replace('=== 7', '=== -1'));
  const run = join(folder, 'terminal');
  const module = `workflow.module=${join(folder, 'endless.mjs')}`;
  const command = ['node', main, 'train', config, '--run', run, '--set', 'steps=1000000', '--set', module];
  const environment = { ...process.env, OMP_NUM_THREADS: '1' };
  const ended = spawnSync('python3', ['-c', terminal, ...command], { encoding: 'utf8', env: environment });
  // By the signal, 1: not by an abort of Node's, which cannot restore a terminal that is gone.
  expect(ended.stdout.trim(), ended.stderr).toBe('1');
  expect(readdirSync(join(run, 'checkpoints'))).toHaveLength(1);
  expect(readdirSync(run).filter((name) => name.startsWith('lock'))).toEqual([]);
});

it('saves and ends where the shell is gone that npx has started it by', async () => {
  writeFileSync(join(folder, 'endless.mjs'), workflow.replace('=== 7', '=== -1'));
  const run = join(folder, 'npx');
  const set = `--set steps=1000000 --set workflow.module=${join(folder, 'endless.mjs')}`;
  const shell = spawn('sh', ['-c', `node ${main} train ${config} --run ${run} ${set}; true`], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: {
      ...process.env,
      OMP_NUM_THREADS: '1',
      npm_lifecycle_event: 'npx',
      npm_lifecycle_script: "'troupe'",
    },
  });
  let stderr = '';
  shell.stderr.on('data', (data: Buffer) => {
    stderr += data.toString();
    // What npx does with a SIGTERM.
    if (stderr.includes('step 2/')) shell.kill('SIGTERM');
  });
  // When the last process has closed it.
  await once(shell.stderr, 'close');
  expect(stderr).toContain('npx is gone: saving, then stopping');
  expect(readdirSync(join(run, 'checkpoints'))).toHaveLength(1);
  expect(readdirSync(run).filter((name) => name.startsWith('lock'))).toEqual([]);
});
