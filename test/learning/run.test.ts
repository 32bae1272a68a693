/**
 * Whole runs through the command line on the smallest embedded model: what a run leaves behind, resuming after a
 * kill with bit-identical parameters and streams, stop signals, and bad input.
 */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readChanges } from '../../src/runs/run-directory.js';
import { readStream } from '../../src/streams/stream-reader.js';
import { command } from '../cli/troupe.js';

const main = fileURLToPath(new URL('../../build/js/cli/main.js', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'troupe-run-'));
const config = join(folder, 'run.yaml');
const STEPS = 4;

beforeAll(() => {
  writeFileSync(
    config,
    `
steps: ${STEPS}
deterministic: true
model: { path: troupe-0.3m, dtype: float32 }
task: { name: arithmetic, levels: [1] }
workflow: { name: voting, prompts: small }
policies: { sharing: isolated, defaults: { learningRate: 1e-3 } }
rollout: { promptsPerStep: 3, episodesPerPrompt: 4, sampling: { temperature: 1, maxTokens: 6 } }
evaluation: { every: 2, problems: 5 }
checkpoints: { every: 1, keep: 2 }
`,
  );
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Of every process, so that bits can be compared: a command within this one sets them for those started after it. */
const env = { ...process.env, OMP_NUM_THREADS: '2' };

function troupe(...args: string[]) {
  return spawnSync('node', [main, ...args], { encoding: 'utf8', env });
}

const digest = (file: string) => createHash('sha256').update(readFileSync(file)).digest('hex');

/** Digests of every stream but the timings, and of the last checkpoint's parameters. */
function remains(run: string): Record<string, string> {
  const streams = readdirSync(join(run, 'streams')).filter((name) => !name.startsWith('timings'));
  const checkpoint = join(run, 'checkpoints', readdirSync(join(run, 'checkpoints')).sort().at(-1) ?? '');
  const files = [
    ...streams.map((name) => join(run, 'streams', name)),
    ...['generator', 'aggregator'].map((name) =>
      join(checkpoint, 'policies', name, 'training-state.safetensors'),
    ),
  ];
  return Object.fromEntries(files.map((file) => [file.slice(run.length), digest(file)]));
}

/** Starts a run and sends `signal` once `line` shows in its output. */
function interrupted(run: string, line: string, signal: NodeJS.Signals): Promise<number | null> {
  return new Promise((resolve) => {
    const child = spawn('node', [main, 'train', config, '--run', run], {
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let sent = false;
    const watch = (data: Buffer) => {
      if (sent || !data.toString().includes(line)) return;
      sent = true;
      child.kill(signal);
    };
    child.stdout.on('data', watch);
    child.stderr.on('data', watch);
    child.on('exit', resolve);
  });
}

describe('a run', () => {
  const whole = join(folder, 'whole');

  it('trains, evaluates, and says where its streams are', () => {
    const { status, stdout, stderr } = troupe('train', config, '--run', whole);
    expect(status, stderr).toBe(0);
    expect(stdout).toMatch(
      /^before {3}\d+\.\d % .*; greedy \d+\.\d % .*\nafter {4}\d+\.\d % .*; greedy .*\nlabel {4}[a-z-]+\nrole {5}generator: \d.*\nrole {5}aggregator: .*\nbest {5}step \d, \d+\.\d %: .*\nstreams {2}/,
    );
    const gradients = readStream(join(whole, 'streams', 'gradients.arrows')).table;
    const roles = new Set(gradients.getChild('role')?.toArray());
    expect(roles).toEqual(new Set([null, 'generator', 'aggregator']));
    expect(Math.max(...(gradients.getChild('step')?.toArray() ?? []))).toBe(STEPS - 1);
  });

  it('repeats itself to the bit when it is deterministic', () => {
    const again = join(folder, 'again');
    expect(troupe('train', config, '--run', again).status).toBe(0);
    expect(remains(again)).toEqual(remains(whole));
  });

  it('that was killed before its first checkpoint begins again when asked, and keeps what it had', async () => {
    const run = join(folder, 'killed-early');
    await interrupted(run, 'accuracy', 'SIGKILL');
    const refused = troupe('train', '--resume', run);
    expect(refused.status).toBe(1);
    expect(refused.stderr).toMatch(/holds 0 steps and 1 evaluations, but no checkpoint.*--restart/);
    const { status, stderr } = troupe('train', '--resume', run, '--restart');
    expect(status, stderr).toBe(0);
    expect(stderr).toContain(join(run, 'replaced', '1'));
    expect(remains(run)).toEqual(remains(whole));
    const before = readStream(join(run, 'replaced', '1', 'streams', 'evaluations.arrows')).table;
    expect(before.numRows).toBeGreaterThan(0);
  });

  it('takes more steps when it goes on, and says what changed', async () => {
    const run = join(folder, 'longer');
    expect(troupe('train', config, '--run', run, '--set', 'steps=2').status).toBe(0);
    const refused = troupe('train', '--resume', run, '--set', 'seed=7');
    expect(refused.status).toBe(1);
    expect(refused.stderr).toContain('a run that goes on keeps seed (0 → 7)');
    const { status, stderr } = troupe('train', '--resume', run, '--set', `steps=${STEPS}`);
    expect(status, stderr).toBe(0);
    expect(readChanges(run)).toEqual([{ step: 2, key: 'steps', from: 2, to: STEPS }]);
    expect(remains(run)).toEqual(remains(whole));
  });

  it('that is done has nothing to do, and is never made shorter', async () => {
    const run = join(folder, 'done');
    cpSync(whole, run, { recursive: true });
    const { status, stderr } = await command(['train', '--resume', run]);
    expect(status, stderr).toBe(0);
    expect(stderr).toContain(
      `nothing to do: all ${STEPS} steps are done; --set steps=N makes the run longer`,
    );
    const fewer = await command(['train', '--resume', run, '--set', 'steps=3']);
    expect([fewer.status, fewer.stdout]).toEqual([1, '']);
    expect(fewer.stderr).toMatch(
      /^troupe: steps: is 3, and the run has done 4 already: it can be made longer, not shorter\. .*\n$/,
    );
    expect(readChanges(run)).toEqual([]);
    expect(remains(run)).toEqual(remains(whole));
  });

  it.each(['step 2/', 'step 3/'])('goes on after a kill at "%s" as if nothing had been', async (line) => {
    const run = join(folder, `killed-${line.replace(/\W/g, '')}`);
    await interrupted(run, line, 'SIGKILL');
    const { status, stderr } = troupe('train', '--resume', run);
    expect(status, stderr).toBe(0);
    expect(remains(run)).toEqual(remains(whole));
  });

  it('saves and stops at SIGTERM, and goes on from there', async () => {
    const run = join(folder, 'stopped');
    expect(await interrupted(run, 'step 1/', 'SIGTERM')).toBe(0);
    expect(existsSync(join(run, 'checkpoints'))).toBe(true);
    expect(troupe('train', '--resume', run).status).toBe(0);
    expect(remains(run)).toEqual(remains(whole));
  });

  it('does not go on with a configuration that was changed by hand', async () => {
    const file = join(whole, 'config.yaml');
    const before = readFileSync(file, 'utf8');
    writeFileSync(file, before.replace('seed: 0', 'seed: 7').replace(`steps: ${STEPS}`, 'steps: 9'));
    const { status, stderr } = await command(['train', '--resume', whole]);
    writeFileSync(file, before);
    expect(status).toBe(1);
    expect(stderr).toMatch(
      /config\.yaml: was changed since .*seed \(0 → 7\), steps \(4 → 9\).*go on with --set steps=9\.$/m,
    );
  });

  it('does not overwrite a run', () => {
    const { status, stderr } = troupe('train', config, '--run', whole);
    expect(status).toBe(1);
    expect(stderr).toContain('already holds a run');
  });
});

describe('other ways to train', () => {
  it.each([
    ['shared parameters', 'policies.sharing=shared'],
    ['adapters', 'policies.defaults.parameters=lora'],
    ['eval-opt', 'workflow.name=eval-opt'],
    ['orch-workers', 'workflow.name=orch-workers'],
    ['single', 'workflow.name=single'],
    ['a KL term', 'learning.kl.coefficient=0.01'],
    ['several mini-batches', 'learning.miniBatches=2'],
  ])('with %s', async (_what, setting) => {
    const run = join(folder, setting.replace(/\W/g, '-'));
    const once = ['--set', 'steps=1', '--set', 'evaluation.problems=1'];
    const { status, stderr } = await command(['train', config, '--run', run, '--set', setting, ...once]);
    expect(status, stderr).toBe(0);
    expect(readStream(join(run, 'streams', 'updates.arrows')).table.numRows).toBeGreaterThan(0);
  });
});

describe('bad input', () => {
  it('names an unknown key and what was probably meant', () => {
    const { status, stderr } = troupe('train', config, '--set', 'rollout.promptPerStep=3');
    expect(status).toBe(1);
    expect(stderr).toContain('promptsPerStep');
  });

  it('ends with one sentence when the run directory cannot be written', () => {
    const { status, stderr } = troupe('train', config, '--run', '/proc/run');
    expect(status).toBe(1);
    expect(stderr).toContain('/proc/run');
    expect(stderr).not.toContain('    at ');
  });
});
