/** How often an update, and a step of the rollout, waits for its device: counted on the CUDA kernels' emulation, and no place waits uncounted. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { packageRoot } from '../../src/config/package.js';
import type { LossFunction } from '../../src/engine/loss.js';
import type { AdapterConfig } from '../../src/engine/native-model.js';
import { PolicyState } from '../../src/engine/policy-state.js';
import { train } from '../../src/engine/training.js';
import type { TrainCall } from '../../src/engine/types.js';
import { counts, useEmulation } from '../kernels/counting.js';
import { request, text, tinyConfig, Workshop } from '../rollout/tiny.js';

useEmulation();
const workshop = new Workshop();
afterEach(() => workshop.dispose());

const loss: LossFunction = ({ logprobs, oldLogprobs, advantages, weights }) =>
  logprobs.sub(oldLogprobs).exp().mul(advantages).mul(weights).sum().neg();

/** Of a whole update of 12 calls in micro-batches of at most `rows` rows; and how many those were. */
async function update(rows: number, lora: boolean) {
  const config = tinyConfig();
  const adapter: AdapterConfig = { rank: 4, alpha: 8, targets: ['q', 'v', 'down'] };
  const base = workshop.base(config, 'bfloat16', 5, !lora);
  const policy = new PolicyState(
    {
      name: 'p',
      model: 'm',
      parameters: lora ? { kind: 'lora', ...adapter } : { kind: 'full' },
      trainable: true,
      optimizer: { betas: [0.9, 0.99], eps: 1e-8, weightDecay: 0 },
      seed: 1,
    },
    config,
    base,
    'cpu',
    () => {
      throw new Error('no KL term asks for a reference');
    },
  );
  const calls = Array.from(
    { length: 12 },
    (_, i): TrainCall => ({
      prompt: Int32Array.from(text(i, 10)),
      response: Int32Array.from(text(50 + i, 6)),
      rolloutLogprobs: new Float32Array(6),
      temperature: 1,
      advantage: i % 2 === 0 ? 1 : -0.5,
      weight: 0.1,
      group: i % 2,
    }),
  );
  let microBatches = 0;
  const counted: LossFunction = (inputs, options) => {
    microBatches += 1;
    return loss(inputs, options);
  };
  const request = {
    policy: 'p',
    calls,
    groups: ['a', 'b'],
    mismatchOnly: [],
    loss: { module: '', options: {} },
    reference: false,
    learningRate: 1e-3,
    clipNorm: 1,
    microBatchRows: rows,
    update: true,
  };
  const work = () => train(policy, request, counted, () => Promise.resolve());
  await work(); // buffers, moments and tables are set up
  microBatches = 0;
  const { waits } = await counts(work);
  return { waits, microBatches };
}

test.each([false, true])('a micro-batch waits at most ten times, adapters: %s', async (lora) => {
  const whole = await update(10_000, lora);
  const parts = await update(60, lora);
  expect(whole.microBatches).toBe(1);
  expect(parts.microBatches).toBeGreaterThan(2);
  const each = (parts.waits - whole.waits) / (parts.microBatches - 1);
  expect(each).toBeGreaterThan(0); // or nothing was counted
  expect(each).toBeLessThanOrEqual(10);
  // Statistics, which decide about clipping, and the optimizer's step with what it measured.
  expect(whole.waits - each).toBe(2);
});

test.each([1, 2])('a step that decodes for policies on %i bases waits once', async (bases) => {
  const config = tinyConfig();
  const policies = Array.from({ length: bases }, (_, i) => workshop.policy(config, 'bfloat16', 3 + i));
  const engine = workshop.engine(config);
  for (let i = 0; i < 4; i++) {
    const policy = policies[i % bases];
    if (policy !== undefined) engine.submit(request(policy, text(i, 9 + i), { maxTokens: 12 }));
  }
  for (let step = 0; step < 3; step++) engine.step(); // prompts, and what is made once
  for (let step = 0; step < 6; step++) expect((await counts(() => engine.step())).waits).toBe(1);
  // The first of them at most was launched one by one.
  expect(engine.statistics().replayedSteps).toBeGreaterThanOrEqual(5 * bases);
});

test('no native file copies to the host or waits but by way of kernels/waits', () => {
  const folder = join(packageRoot(), 'native');
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) =>
    /\.(cc|h|cu)$/.test(name),
  );
  expect(files).toContain(join('kernels', 'waits.cc'));
  // kernels/upload copies from pinned memory.
  const waiting =
    /\.item<|\.item\(|\.cpu\(\)|\.to\((at|c10|torch)::kCPU|\.to\((device|options)|synchronize\(|cudaMemcpy|is_nonzero\(|\.equal\(/;
  const found = files.filter(
    (name) =>
      ![join('kernels', 'waits.cc'), join('kernels', 'upload.cc')].includes(name) &&
      readFileSync(join(folder, name), 'utf8')
        .split('\n')
        .some((line) => waiting.test(line.replace(/\/\/.*/, ''))),
  );
  expect(found).toEqual([]);
});
