/**
 * Two updates and a checkpoint between them on a device, run by nccl.gpu.test.ts: node nccl-child.mjs DEVICE FOLDER [PORT].
 * With a port it does so as the only rank of a group, by NCCL if TROUPE_NCCL is 1 or, once the model is loaded, "later". Prints the gradients' norms and what was exchanged as JSON.
 */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { packageRoot } from '../../build/js/config/package.js';
import { Engine } from '../../build/js/engine/engine.js';

const [device, folder, port] = process.argv.slice(2);
const lossModule = fileURLToPath(
  new URL('../../build/js/learning/losses/policy-gradient.js', import.meta.url),
);

const policy = {
  name: 'policy',
  model: 'model',
  parameters: { kind: 'full' },
  trainable: true,
  optimizer: { betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01 },
  seed: 0,
};

/** Two calls of two groups. */
const request = {
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

const engine = new Engine();
if (port !== undefined) {
  const local = { host: '127.0.0.1', address: '127.0.0.1', interface: '', prefix: 'test', localRank: 0 };
  const nccl = process.env.TROUPE_NCCL === '1';
  const group = { ...local, port: Number(port), nccl, rank: 0, size: 1, serve: true, timeoutSeconds: 20 };
  await engine.send('join', group);
}
const rollout = { cacheBytes: 1 << 20, maxBatch: 1, prefillTokens: 1, seed: 0, deterministic: false };
const model = join(packageRoot(), 'models', 'troupe-0.3m');
await engine.send('loadModel', { name: 'model', folder: model, dtype: 'bfloat16', device, rollout });
if (process.env.TROUPE_NCCL === 'later') console.error(await engine.send('takeNccl', { device }));
await engine.send('createPolicy', policy);
const first = await engine.send('train', request);
console.error('first update');
const file = join(folder, `${port ?? 'alone'}.safetensors`);
await engine.send('savePolicy', { policy: 'policy', file });
console.error('saved');
const second = await engine.send('train', request);
await engine.send('restorePolicy', { policy: 'policy', file });
console.error('restored');
const again = await engine.send('train', request);
const { traffic } = await engine.send('statistics', null);
const norms = [first, second, again].map(({ gradients }) => gradients.totalNorm);
console.log(JSON.stringify({ norms, traffic }));
if (port !== undefined) await engine.send('leave', { together: true });
console.error('left');
await engine.close();
