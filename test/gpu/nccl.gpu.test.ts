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
const env = { ...process.env, NCCL_DEBUG: 'INFO', TORCH_CPP_LOG_LEVEL: 'INFO' };
const source = fileURLToPath(new URL('backtrace.c', import.meta.url));
const backtrace = join(folder, 'backtrace.node');
if (spawnSync('cc', ['-shared', '-fPIC', '-w', source, '-o', backtrace]).status === 0) {
  Object.assign(env, { NODE_OPTIONS: `--require ${backtrace}` });
}

/** The line that is a program's answer: NCCL prints its version before it. */
const said = (stdout: string) => stdout.split('\n').find((line) => line.startsWith('{')) ?? '{}';

/** Two updates in bfloat16, with masters of their own, and a checkpoint between them: as one rank, or in a group at a port. */
function stepsOn(where: string, nccl: '0' | '1' | 'later', ...port: string[]) {
  const { status, signal, stdout, stderr } = spawnSync('node', [steps, where, folder, ...port], {
    encoding: 'utf8',
    env: { ...env, TROUPE_NCCL: nccl },
  });
  return { status, signal, said: `${stdout}\n${stderr}`, stdout };
}

interface Steps {
  norms: number[];
  traffic: { bytes: number; ncclBytes: number } | null;
}

function stepsOf(found: ReturnType<typeof stepsOn>): Steps {
  expect(found, found.said).toMatchObject({ status: 0, signal: null });
  return JSON.parse(said(found.stdout));
}

function expectSame(ranked: Steps): void {
  const alone = stepsOf(stepsOn(device, '0'));
  expect(alone.traffic).toBe(null);
  expect(ranked.traffic?.bytes).toBeGreaterThan(100_000);
  for (const [i, norm] of ranked.norms.entries()) {
    expect(Math.abs(norm / (alone.norms[i] ?? 0) - 1)).toBeLessThan(1e-3);
  }
  expect(Math.abs((ranked.norms[2] ?? 0) / (ranked.norms[1] ?? 0) - 1)).toBeLessThan(1e-3);
}

it('trains in a group of one rank as without a group, by way of the CPU', async () => {
  const ranked = stepsOf(stepsOn(device, '0', String(await freePort())));
  expectSame(ranked);
  expect(ranked.traffic?.ncclBytes).toBe(0);
});

const NCCL_HERE = 'TROUPE_NCCL=1 asks for NCCL between GPUs, which cannot be used here: ';

it('trains in a group of one rank as without a group, by NCCL', async () => {
  const found = stepsOn(device, '1', String(await freePort()));
  if (!onGpu) {
    expect(found.status).toBe(1);
    expect(found.said).toContain(NCCL_HERE);
    return;
  }
  const ranked = stepsOf(found);
  expectSame(ranked);
  expect(ranked.traffic?.ncclBytes).toBeGreaterThan(100_000);
  // NCCL's own log.
  expect(found.said).toMatch(/NCCL INFO .*nranks 1 /);
});

it('takes NCCL once the ranks have agreed on it', async () => {
  const ranked = stepsOf(stepsOn(device, 'later', String(await freePort())));
  expectSame(ranked);
  // On the CPU there is nothing that NCCL would take.
  if (onGpu) expect(ranked.traffic?.ncclBytes).toBeGreaterThan(100_000);
  else expect(ranked.traffic?.ncclBytes).toBe(0);
});

it('does not train on the CPU where NCCL is asked for', async () => {
  const found = stepsOn('cpu', '1', String(await freePort()));
  expect(found.status).toBe(1);
  expect(found.said).not.toContain('first update');
  const refused = 'TROUPE_NCCL=1 asks for NCCL between GPUs, and this rank computes on the CPU';
  expect(found.said).toContain(onGpu ? refused : NCCL_HERE);
});

const child = fileURLToPath(new URL('../engine/group-child.mjs', import.meta.url));

/** What each of two ranks on the device says of a scenario, how it ended, and what it wrote to standard error. */
async function two(scenario: string, timeoutSeconds: number) {
  const ports = [await freePort()];
  const ranks = [0, 1].map(async (rank) => {
    const options = { ...local, rank, size: 2, ports, serve: rank === 0, timeoutSeconds, device, nccl: true };
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
    const answer = JSON.parse(said(stdout)) as {
      result?: unknown;
      error?: string;
      kind?: string;
    };
    return { ...answer, code, signal, stderr };
  });
  return await Promise.all(ranks);
}

it('says what NCCL refuses: two ranks on one GPU', async () => {
  for (const [rank, found] of (await two('oneDevice', 20)).entries()) {
    expect(found, found.stderr).toMatchObject({ code: 0, signal: null });
    expect(found.stderr).not.toMatch(/frame #|terminate called/);
    if (!onGpu) expect(found.error).toMatch(new RegExp(`^${NCCL_HERE}|has ended`));
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
  if (!onGpu) expect(first?.error).toContain(NCCL_HERE);
  else expect(first?.error).toMatch(/^rank 0 failed in "on two devices"/);
});
