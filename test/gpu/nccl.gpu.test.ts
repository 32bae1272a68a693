/**
 * Guards against NCCL between ranks that computes something else, hangs, or ends the process without a sentence. One GPU
 * is enough: a rank alone in its group makes every collective, and NCCL refuses a second rank on the same GPU.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, it } from 'vitest';
import { freePort } from '../../src/engine/rank-place.js';
import { device } from './device.js';

const onGpu = device.startsWith('cuda');
const local = { host: '127.0.0.1', address: '127.0.0.1', interface: '', prefix: 'test' };
const folder = mkdtempSync(join(tmpdir(), 'troupe-nccl-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const steps = fileURLToPath(new URL('nccl-child.mjs', import.meta.url));
/** NCCL's and c10d's own logs, and where it was, are what is known where a process ends without a word. */
const env = { ...process.env, TROUPE_NCCL: '1', NCCL_DEBUG: 'INFO', TORCH_CPP_LOG_LEVEL: 'INFO' };
const source = fileURLToPath(new URL('backtrace.c', import.meta.url));
const backtrace = join(folder, 'backtrace.node');
if (spawnSync('cc', ['-shared', '-fPIC', '-w', source, '-o', backtrace]).status === 0) {
  Object.assign(env, { NODE_OPTIONS: `--require ${backtrace}` });
}

/** Two updates in bfloat16, with masters of their own, and a checkpoint between them. */
function stepsOf(nccl: '0' | '1', ...port: string[]): { norms: number[]; traffic: { bytes: number } | null } {
  const found = spawnSync('node', [steps, device, folder, ...port], {
    encoding: 'utf8',
    env: { ...env, TROUPE_NCCL: nccl },
  });
  expect(found, `${found.stdout}\n${found.stderr}`).toMatchObject({ status: 0, signal: null });
  return JSON.parse(found.stdout.split('\n').find((line) => line.startsWith('{')) ?? '{}');
}

it.each([
  ['by way of the CPU', '0'],
  ['by NCCL', '1'],
] as const)('trains in a group of one rank as without a group, %s', async (_, nccl) => {
  const alone = stepsOf(nccl);
  const ranked = stepsOf(nccl, String(await freePort()));
  expect(alone.traffic).toBe(null);
  expect(ranked.traffic?.bytes).toBeGreaterThan(100_000);
  for (const [i, norm] of ranked.norms.entries()) {
    expect(Math.abs(norm / (alone.norms[i] ?? 0) - 1)).toBeLessThan(1e-3);
  }
  expect(Math.abs((ranked.norms[2] ?? 0) / (ranked.norms[1] ?? 0) - 1)).toBeLessThan(1e-3);
});

const child = fileURLToPath(new URL('../engine/group-child.mjs', import.meta.url));

/** What each of two ranks on the device says of a scenario, how it ended, and what it wrote to standard error. */
async function two(scenario: string, timeoutSeconds: number) {
  const ports = [await freePort()];
  const ranks = [0, 1].map(async (rank) => {
    const options = { ...local, rank, size: 2, ports, serve: rank === 0, timeoutSeconds, device };
    const process = spawn('node', [child, scenario, JSON.stringify(options)], {
      env: { ...env, NCCL_DEBUG: 'WARN', TORCH_CPP_LOG_LEVEL: 'FATAL' },
    });
    let [stdout, stderr] = ['', ''];
    process.stdout.on('data', (data: Buffer) => {
      stdout += data.toString();
    });
    process.stderr.on('data', (data: Buffer) => {
      stderr += data.toString();
    });
    const [code, signal] = (await once(process, 'close')) as [number | null, string | null];
    const said = JSON.parse(stdout.split('\n')[0] || '{}') as {
      result?: unknown;
      error?: string;
      kind?: string;
    };
    return { ...said, code, signal, stderr };
  });
  return await Promise.all(ranks);
}

it('says what NCCL refuses: two ranks on one GPU', async () => {
  for (const [rank, found] of (await two('oneDevice', 20)).entries()) {
    expect(found, found.stderr).toMatchObject({ code: 0, signal: null });
    expect(found.stderr).not.toMatch(/frame #|terminate called/);
    if (!onGpu) expect(found.result).toEqual([3, 3]);
    else {
      expect(found.kind).toBe('TroupeError');
      expect(found.error).toMatch(
        new RegExp(`^rank ${rank} failed in "on one device".*(Duplicate GPU|NCCL|has ended)`),
      );
    }
  }
});

it('does not wait for a rank that never comes to NCCL', async () => {
  const [first] = await two('elsewhere', 4);
  expect(first, first?.stderr).toMatchObject({ code: 0, signal: null });
  expect(first?.stderr).not.toMatch(/frame #|terminate called/);
  if (!onGpu) expect(first?.result).toEqual([3, 3]);
  else expect(first?.error).toMatch(/^rank 0 failed in "on two devices"/);
});
