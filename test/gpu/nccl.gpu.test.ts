/**
 * Guards against NCCL between ranks that computes something else, hangs, or ends the process without a sentence. One GPU
 * is enough: a rank alone in its group makes every collective, and NCCL refuses a second rank on the same GPU.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, it } from 'vitest';
import { packageRoot } from '../../src/config/package.js';
import { Engine } from '../../src/engine/engine.js';
import { native } from '../../src/engine/native.js';
import type { CreatePolicyRequest } from '../../src/engine/protocol.js';
import { freePort } from '../../src/engine/rank-place.js';
import type { TrainRequest } from '../../src/engine/types.js';
import { device } from './device.js';

const onGpu = device.startsWith('cuda');
const local = { host: '127.0.0.1', address: '127.0.0.1', interface: '', prefix: 'test' };
const folder = mkdtempSync(join(tmpdir(), 'troupe-nccl-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const lossModule = fileURLToPath(
  new URL('../../build/js/learning/losses/policy-gradient.js', import.meta.url),
);

const policy: CreatePolicyRequest = {
  name: 'policy',
  model: 'model',
  parameters: { kind: 'full' },
  trainable: true,
  optimizer: { betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01 },
  seed: 0,
};

/** Two calls of two groups. */
const request: TrainRequest = {
  policy: 'policy',
  calls: [0, 1].map((group) => ({
    prompt: Int32Array.of(1, 2, 3 + group),
    response: Int32Array.of(5, 6, 7, 8),
    rolloutLogprobs: new Float32Array(4).fill(-3),
    temperature: 1,
    advantage: 1 - 3 * group,
    weight: 0.25,
    group,
  })),
  groups: ['generator', 'aggregator'],
  mismatchOnly: [],
  loss: { module: lossModule, options: {} },
  reference: false,
  learningRate: 1e-3,
  clipNorm: 1,
  microBatchRows: 100,
  update: true,
};

/** Two steps in bfloat16, with masters of their own, and a checkpoint between them. */
async function steps(isRank: boolean) {
  await using engine = new Engine();
  if (isRank) {
    const port = await freePort();
    await engine.send('join', {
      ...local,
      port,
      rank: 0,
      size: 1,
      serve: true,
      timeoutSeconds: 20,
      localRank: 0,
    });
  }
  const rollout = { cacheBytes: 1 << 20, maxBatch: 1, prefillTokens: 1, seed: 0, deterministic: false };
  const model = join(packageRoot(), 'models', 'troupe-0.3m');
  await engine.send('loadModel', { name: 'model', folder: model, dtype: 'bfloat16', device, rollout });
  await engine.send('createPolicy', policy);
  const first = await engine.send('train', request);
  const file = join(folder, `${isRank}.safetensors`);
  await engine.send('savePolicy', { policy: 'policy', file });
  const second = await engine.send('train', request);
  await engine.send('restorePolicy', { policy: 'policy', file });
  const again = await engine.send('train', request);
  const { traffic } = await engine.send('statistics', null);
  return { norms: [first, second, again].map(({ gradients }) => gradients.totalNorm), traffic };
}

it('trains in a group of one rank as without a group', async () => {
  expect(native().nccl).toBe(onGpu);
  const alone = await steps(false);
  const ranked = await steps(true);
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
    const process = spawn('node', [child, scenario, JSON.stringify(options)]);
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
