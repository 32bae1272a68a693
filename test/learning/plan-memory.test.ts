/** What a plan takes tensors to need against what the allocator gives and an update takes, and which copies there are. */
import { describe, expect, it } from 'vitest';
import { loadRunConfig } from '../../src/config/load.js';
import { nativeModelConfig, readModelConfig } from '../../src/engine/configuration.js';
import { Engine } from '../../src/engine/engine.js';
import { resolveModel } from '../../src/engine/model-catalogue.js';
import { native } from '../../src/engine/native.js';
import { SHAPES } from '../../src/engine/shapes.js';
import { Tokenizer } from '../../src/engine/tokenizer.js';
import type { TrainRequest } from '../../src/engine/types.js';
import { chatTokenizer } from '../../src/learning/chat.js';
import { openMethod } from '../../src/learning/method.js';
import { cpuBlock, totalOf } from '../../src/learning/plan/memory-need.js';
import { planStep } from '../../src/learning/plan/planned-calls.js';
import { estimatedTokenizer } from '../../src/learning/plan/planned-responses.js';
import { stepWork } from '../../src/learning/plan/step-work.js';
import { loadModel, policyRequest } from '../../src/learning/setup.js';

const shape = (name: string) => nativeModelConfig(SHAPES[name], name);

describe('a block of the CPU', () => {
  it.each([2 ** 16, 70_001, 2 ** 20 + 1, 2 ** 21 - 1, 2 ** 21 + 1, 17_000_001])('of %i bytes', (bytes) => {
    const addon = native();
    const before = addon.memory().used;
    const tensor = addon.tensor(new Uint8Array(bytes), [bytes], 'uint8', 'cpu');
    expect(cpuBlock(bytes)).toBe(addon.memory().used - before);
    tensor.dispose();
  });
});

describe('an update on a CPU', () => {
  // Many short runs, in trees of which the threads have few: attention's partial sums are a fifth of all.
  it('takes the memory that is planned', { timeout: 60_000 }, async () => {
    const { config } = loadRunConfig('default', [
      'workflow.name=single',
      'rollout.promptsPerStep=4',
      'rollout.episodesPerPrompt=16',
    ]);
    const folder = await resolveModel(config.model.path);
    const step = await planStep(config, chatTokenizer(Tokenizer.load(folder), config.model.template), {
      responseTokens: [16],
    });
    const work = stepWork(readModelConfig(folder), config, step);
    const [update] = work.policies;
    if (update === undefined || update.batches.length !== 1) throw new Error('one policy, one micro-batch');
    const { policy, calls } = update;
    await using engine = new Engine();
    await loadModel(engine, config, folder);
    await engine.send('createPolicy', { ...policyRequest(config, policy), trainable: true });
    const request: TrainRequest = {
      policy: policy.name,
      calls,
      groups: ['all'],
      mismatchOnly: [],
      loss: (await openMethod(config)).loss.request,
      reference: false,
      learningRate: 0,
      clipNorm: 1,
      microBatchRows: Number.MAX_SAFE_INTEGER,
      update: true,
      statistics: { method: 'exact', sketch: { ...config.gradients.sketch, seed: 0 } },
    };
    // The first one makes the optimizer's moments.
    await engine.send('train', request);
    const { used } = native().memory();
    native().resetPeakMemory('cpu');
    await engine.send('train', request);
    const ratio = totalOf(work.memory.cpu.training, cpuBlock) / (native().memory().peak - used);
    expect(ratio).toBeGreaterThan(0.93);
    expect(ratio).toBeLessThan(1.07);
  });
});

describe('copies of weights for decoding', () => {
  const copies = async (name: string, settings: string[]) => {
    const { config } = loadRunConfig('default', [...settings, 'rollout.promptsPerStep=2']);
    const step = await planStep(config, estimatedTokenizer);
    const { held, rollout } = stepWork(shape(name), config, step).memory.cpu;
    const of = (needs: typeof held) =>
      needs.flatMap(({ tensors }) => tensors).reduce((sum, { bytes, count }) => sum + bytes * count, 0);
    return { held: of(held), rollout: of(rollout) };
  };
  const lora = 'policies.defaults.parameters=lora';
  // 440,401,920 weights in the layers of 0.6B and 155,582,464 in its head; 106,168,320 in the layers of 135M.

  it('of a model below adapters stay', async () => {
    const all = 2 * (440_401_920 + 155_582_464);
    expect(await copies('qwen3-0.6b', [lora, 'model.dtype=bfloat16'])).toEqual({ held: all, rollout: 0 });
  });

  it('of float32 lack the head', async () => {
    const layers = 4 * 106_168_320;
    expect(await copies('smollm2-135m', [lora, 'model.dtype=float32'])).toEqual({ held: layers, rollout: 0 });
  });

  it('of float32 have a head up to 1 MiB', async () => {
    const json = { ...SHAPES['smollm2-135m'], vocab_size: 400 };
    const { config } = loadRunConfig('default', [lora, 'model.dtype=float32', 'rollout.promptsPerStep=2']);
    const step = await planStep(config, estimatedTokenizer);
    const { held } = stepWork(nativeModelConfig(json, 'few tokens'), config, step).memory.cpu;
    expect(totalOf(held, Math.ceil)).toBe(4 * (106_168_320 + 400 * 576));
  });

  it('of policies that train are gone when they do, and there are as many as 2 GiB allow', async () => {
    const all = 2 * (440_401_920 + 155_582_464);
    // A second one would take 1.2 GB beside the 1.2 GB of the first and 1.2 of weights.
    expect(await copies('qwen3-0.6b', ['model.dtype=bfloat16'])).toEqual({ held: 0, rollout: all });
    expect(await copies('qwen3-4b', [lora, 'model.dtype=bfloat16'])).toEqual({ held: 0, rollout: 0 });
    expect(await copies('smollm2-135m', ['model.dtype=float64'])).toEqual({ held: 0, rollout: 0 });
  });
});
