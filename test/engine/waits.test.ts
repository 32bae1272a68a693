/**
 * How often an update, and a step of the rollout, waits for its device and copies to it: counted on the CUDA kernels'
 * emulation, and no place does so uncounted.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { packageRoot } from '../../src/config/package.js';
import type { LossFunction } from '../../src/engine/loss.js';
import { train } from '../../src/engine/training.js';
import { counts, useEmulation } from '../kernels/counting.js';
import { request, text, tinyConfig, Workshop } from '../rollout/tiny.js';
import { policyState, trainCalls, trainRequest, turn } from './tiny-training.js';

useEmulation();
const workshop = new Workshop();
afterEach(() => workshop.dispose());

const loss: LossFunction = ({ logprobs, oldLogprobs, advantages, weights }) =>
  logprobs.sub(oldLogprobs).exp().mul(advantages).mul(weights).sum().neg();

/** Of a whole update of 12 calls in micro-batches of at most `rows` rows; and how many those were. */
async function update(rows: number, lora: boolean) {
  const policy = policyState(workshop, {
    dtype: 'bfloat16',
    ...(lora && { parameters: { kind: 'lora', rank: 4, alpha: 8, targets: ['q', 'v', 'down'] } }),
  });
  let microBatches = 0;
  const counted: LossFunction = (inputs, options) => {
    microBatches += 1;
    return loss(inputs, options);
  };
  const request = trainRequest(
    trainCalls(12, () => 10, 6),
    { clipNorm: 1, microBatchRows: rows },
  );
  const work = () => train(policy, request, counted, turn);
  await work(); // buffers, moments and tables are set up
  microBatches = 0;
  return { ...(await counts(work)), microBatches };
}

test.each([false, true])('a micro-batch waits four times and uploads twice, adapters: %s', async (lora) => {
  const whole = await update(10_000, lora);
  const parts = await update(60, lora);
  expect(whole.microBatches).toBe(1);
  expect(parts.microBatches).toBeGreaterThan(2);
  const each = (parts.waits - whole.waits) / (parts.microBatches - 1);
  // For the loss's inputs, in one copy, and for the loss, log-probabilities and entropies.
  expect(each).toBe(4);
  // Statistics, which decide about clipping, and the optimizer's step with what it measured.
  expect(whole.waits - each).toBe(2);
  // The plan, and what the loss reads of the calls.
  const uploads = (parts.uploads - whole.uploads) / (parts.microBatches - 1);
  expect(uploads).toBe(2);
  // Where the parameters lie, for the statistics and for the step.
  expect(whole.uploads - uploads).toBe(2);
});

test.each([1, 2])(
  'a step that decodes for policies on %i bases waits once, and uploads once for each',
  async (bases) => {
    const config = tinyConfig();
    const policies = Array.from({ length: bases }, (_, i) => workshop.policy(config, 'bfloat16', 3 + i));
    const engine = workshop.engine(config);
    for (let i = 0; i < 4; i++) {
      const policy = policies[i % bases];
      if (policy !== undefined) engine.submit(request(policy, text(i, 9 + i), { maxTokens: 12 }));
    }
    for (let step = 0; step < 3; step++) engine.step(); // prompts, and what is made once
    for (let step = 0; step < 6; step++) {
      const { waits, uploads } = await counts(() => engine.step());
      expect([waits, uploads]).toEqual([1, bases]);
    }
    // The first of them at most was launched one by one.
    expect(engine.statistics().replayedSteps).toBeGreaterThanOrEqual(5 * bases);
  },
);

const folder = join(packageRoot(), 'native');
const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) =>
  /\.(cc|h|cu)$/.test(name),
);
/** Native files of which a line, its comment aside, has what the pattern says. */
const having = (pattern: RegExp) =>
  files.filter((name) =>
    readFileSync(join(folder, name), 'utf8')
      .split('\n')
      .some((line) => pattern.test(line.replace(/\/\/.*/, ''))),
  );

test('no native file copies to the host or waits but by way of kernels/waits', () => {
  expect(files).toContain(join('kernels', 'waits.cc'));
  // kernels/upload copies from pinned memory.
  const waiting =
    /\.item<|\.item\(|\.cpu\(\)|\.to\((at|c10|torch)::kCPU|\.to\((device|options)|synchronize\(|cudaMemcpy|is_nonzero\(|\.equal\(/;
  const here = [join('kernels', 'waits.cc'), join('kernels', 'upload.cc')];
  expect(having(waiting).filter((name) => !here.includes(name))).toEqual([]);
});

test('no native file copies from the host but by way of kernels/upload and kernels/waits', () => {
  // Tensors of the host's memory that may come to a device later.
  const made = /at::tensor\(|from_blob\(|scalar_tensor\(|pin_memory|pinned_memory/;
  expect(having(made).sort()).toEqual([
    join('distributed', 'process_group.cc'), // bytes that stay on the host
    join('io', 'safetensors.cc'), // files, whose values are copied when a model is loaded
    join('kernels', 'cpu_rollout.cc'), // the CPU's own cache
    join('kernels', 'upload.cc'),
    join('kernels', 'waits.cc'), // where copies to the host go
    join('model', 'policy.cc'), // rotary tables, by to_device
  ]);
  const moved = /\.to\([^()]*\bdevice|\.to\([\w.]+\.device\(\)|\.(cuda|pin_memory)\(\)/;
  expect(having(moved).sort()).toEqual([
    join('kernels', 'upload.cc'),
    join('kernels', 'waits.cc'),
    join('training', 'optimizer.cc'), // gradients, which lie where the parameters do
  ]);
});
