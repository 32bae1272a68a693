/**
 * Whole runs on the CUDA kernels' emulation, or under `npm run test:gpu` on a GPU, record what the CPU's kernels do: the same
 * samples, and in float64 the same numbers, so that no fault passes for rounding. float64 decodes without recorded steps; in
 * float32 there are some.
 */
import { afterEach, test } from 'vitest';
import type { RunInput } from '../../src/config/schema.js';
import { native } from '../../src/engine/native.js';
import { device } from '../rollout/tiny.js';
import { expectSameRun, trainOn } from './rank-runs.js';

const useKernels = (name: string) =>
  (native() as unknown as { useKernels(name: string): void }).useKernels(name);
afterEach(() => useKernels(process.env.TROUPE_KERNELS ?? ''));

async function expectSameOnBoth(
  over: RunInput,
  dtype: 'float32' | 'float64',
  tolerance: number,
): Promise<void> {
  const trainWith = async (kernels: string, device: string, dtype: 'float32' | 'float64') => {
    useKernels(kernels);
    return await trainOn(1, { ...over, model: { dtype, device }, deterministic: false });
  };
  const expected = await trainWith('cpu', 'cpu', dtype);
  const found = await trainWith(device === 'cpu' ? 'emulated' : '', device, dtype);
  const exact = dtype === 'float64' ? expected : await trainWith('cpu', 'cpu', 'float64');
  expectSameRun(found, expected, tolerance, exact);
}

const small = { promptsPerStep: 2, episodesPerPrompt: 4 };
const adapters: RunInput = {
  workflow: { name: 'orch-workers', prompts: 'small' },
  policies: {
    sharing: { orchestrator: 'plan', worker: 'work', synthesizer: 'work' },
    defaults: { parameters: 'lora', lora: { rank: 6 }, learningRate: 2e-3 },
    overrides: { plan: { lora: { rank: 4, targets: ['q', 'v', 'down'] } } },
  },
  rollout: { ...small, sampling: { maxTokens: 10 } },
  learning: { kl: { coefficient: 0.1 } },
};

const runs: Record<string, RunInput> = {
  'two adapters on one base, of a rank that is no multiple of 4 and on some matrices': {
    ...adapters,
    learning: { kl: { coefficient: 0.1 }, miniBatches: 2 },
  },
  'a base for each role, many small micro-batches, rounds, samples that filter': {
    workflow: { name: 'eval-opt', prompts: 'small', options: { rounds: 4 } },
    policies: { sharing: 'isolated', defaults: { clipNorm: 0.05 } },
    rollout: {
      ...small,
      sampling: { temperature: 1.5, topK: 9, topP: 0.95, minP: 0.01, maxTokens: 6 },
      prefillTokens: 7,
      maxBatch: 5,
    },
    learning: { microBatchRows: 48, entropy: 0.01 },
  },
  'roles of one gradient that interventions change': {
    policies: { sharing: 'shared' },
    interventions: { defaults: { damping: 0.3, slots: 'root' }, balance: 'conflicts' },
    learning: { kl: { coefficient: 0.1, reference: 'average' } },
  },
  'sketched gradients': { policies: { sharing: 'shared' }, gradients: { method: 'sketch' } },
};

test.each(Object.entries(runs))('in float64: %s', async (_, over) => {
  await expectSameOnBoth(over, 'float64', 1e-6);
});

test('in float32, by recorded steps: two adapters on one base', async () => {
  await expectSameOnBoth(adapters, 'float32', 1e-3);
});
