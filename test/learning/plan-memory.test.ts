/** What a plan takes updates to compute and tensors to need against what an update computes and takes, and which copies there are. */
import { describe, expect, it } from 'vitest';
import { loadRunConfig } from '../../src/config/load.js';
import { nativeModelConfig, readModelConfig } from '../../src/engine/configuration.js';
import { Engine } from '../../src/engine/engine.js';
import { resolveModel } from '../../src/engine/model-catalogue.js';
import { native } from '../../src/engine/native.js';
import type { NativeModelConfig } from '../../src/engine/native-model.js';
import { SHAPES } from '../../src/engine/shapes.js';
import { Tokenizer } from '../../src/engine/tokenizer.js';
import type { TrainRequest } from '../../src/engine/types.js';
import { chatTokenizer } from '../../src/learning/chat.js';
import { openMethod } from '../../src/learning/method.js';
import { cpuBlock, totalOf } from '../../src/learning/plan/memory-need.js';
import { planStep } from '../../src/learning/plan/planned-calls.js';
import { estimatedTokenizer } from '../../src/learning/plan/planned-responses.js';
import { weightCopies } from '../../src/learning/plan/step-memory.js';
import { type PolicyWork, stepWork } from '../../src/learning/plan/step-work.js';
import { CPU_LEVELS, GPU_LEVELS } from '../../src/learning/plan/tree-rows.js';
import { loadModel, policyRequest } from '../../src/learning/setup.js';
import { adapterRanks } from '../../src/policies/routing.js';
import { request, run, tinyConfig, Workshop } from '../rollout/tiny.js';

const shape = (name: string) => nativeModelConfig(SHAPES[name], name);

describe('a block of the CPU', () => {
  it.each([2 ** 16, 70_001, 2 ** 20 + 1, 2 ** 21 - 1, 2 ** 21 + 1, 17_000_001])('of %i bytes', (bytes) => {
    const addon = native();
    const before = addon.deviceMemory('cpu').used;
    const tensor = addon.tensor(new Uint8Array(bytes), [bytes], 'uint8', 'cpu');
    expect(cpuBlock(bytes)).toBe(addon.deviceMemory('cpu').used - before);
    tensor.dispose();
  });
});

/** Not where all of the suite runs on other kernels than the CPU's own, of which these speak. */
const ownKernels = process.env.TROUPE_KERNELS === undefined;

/** A step of the embedded model, and an engine that has it. */
async function planned(settings: string[], responseTokens: number[]) {
  const { config } = loadRunConfig('default', settings);
  const folder = await resolveModel(config.model.path);
  const tokenizer = chatTokenizer(Tokenizer.load(folder), config.model.template);
  const step = await planStep(config, tokenizer, { responseTokens });
  const { policies, memory } = stepWork(
    readModelConfig(folder),
    config,
    step,
    ownKernels ? CPU_LEVELS : GPU_LEVELS,
  );
  const engine = new Engine();
  await loadModel(engine, config, folder, adapterRanks(policies.map(({ policy }) => policy)));
  /** Without a change. */
  const updateOf = async ({ policy, calls, groups }: PolicyWork, microBatchRows: number) => {
    await engine.send('createPolicy', { ...policyRequest(config, policy), trainable: true });
    const request: TrainRequest = {
      policy: policy.name,
      calls,
      groups: Array.from({ length: groups }, (_, k) => `${k}`),
      mismatchOnly: [],
      loss: (await openMethod(config)).loss.request,
      reference: false,
      learningRate: 0,
      clipNorm: 1,
      microBatchRows,
      update: true,
      statistics: { method: 'exact', sketch: { ...config.gradients.sketch, seed: 0 } },
    };
    return () => engine.send('train', request);
  };
  return { config, policies, memory, updateOf, [Symbol.asyncDispose]: () => engine[Symbol.asyncDispose]() };
}

describe('an update', () => {
  it.each(['voting', 'eval-opt', 'orch-workers'])(
    'of %s computes the rows that are planned',
    async (name) => {
      const settings = ['rollout.promptsPerStep=3', 'rollout.episodesPerPrompt=3', 'policies.sharing=shared'];
      const workflow = `workflow.name=${name}`;
      await using step = await planned([...settings, workflow, 'learning.microBatchRows=150'], [9, 14]);
      const [policy] = step.policies as [PolicyWork];
      expect(policy.batches.length).toBeGreaterThan(3);
      const update = await step.updateOf(policy, step.config.learning.microBatchRows);
      const { tokensComputed } = await update();
      expect(tokensComputed).toBe(policy.batches.reduce((sum, { rows }) => sum + rows, 0));
    },
  );
});

describe.runIf(ownKernels)('an update on a CPU', () => {
  // Many short runs, in trees of which the threads have few: attention's partial sums are a fifth of all.
  it('takes the memory that is planned', { timeout: 60_000 }, async () => {
    const settings = ['rollout.promptsPerStep=4', 'rollout.episodesPerPrompt=16'];
    await using step = await planned(['workflow.name=single', ...settings], [16]);
    const [policy] = step.policies;
    if (policy === undefined || policy.batches.length !== 1) throw new Error('one policy, one micro-batch');
    const update = await step.updateOf(policy, Number.MAX_SAFE_INTEGER);
    // The first one makes the optimizer's moments.
    await update();
    const { used } = native().deviceMemory('cpu');
    native().resetPeakMemory('cpu');
    await update();
    const ratio = totalOf(step.memory.cpu.training, cpuBlock) / (native().deviceMemory('cpu').peak - used);
    expect(ratio).toBeGreaterThan(0.93);
    expect(ratio).toBeLessThan(1.07);
  });
});

describe('copies of weights for decoding', () => {
  const decoding = async (model: NativeModelConfig, settings: string[]) => {
    const { config } = loadRunConfig('default', [...settings, 'rollout.promptsPerStep=2']);
    const step = await planStep(config, estimatedTokenizer);
    return stepWork(model, config, step, CPU_LEVELS).memory.cpu.decoding;
  };
  /** Of a processor that lays all weights out again. */
  const copies = async (name: string, settings: string[]) => {
    const weights = await decoding(shape(name), settings);
    const { held, rollout } = weightCopies(weights, ({ outputs, inputs }) => 2 * outputs * inputs);
    return { held: totalOf(held, Math.ceil), rollout: totalOf(rollout, Math.ceil) };
  };
  const lora = 'policies.defaults.parameters=lora';

  // 440,401,920 weights in the layers of 0.6B and 155,582,464 in its head.
  const all = 2 * (440_401_920 + 155_582_464);

  it('of a model below adapters stay', async () => {
    expect(await copies('qwen3-0.6b', [lora, 'model.dtype=bfloat16'])).toEqual({ held: all, rollout: 0 });
  });

  it('of policies that train are gone when they do, and there are as many as 2 GiB allow', async () => {
    // A second one would take 1.2 GB beside the 1.2 GB of the first and 1.2 of weights.
    expect(await copies('qwen3-0.6b', ['model.dtype=bfloat16'])).toEqual({ held: 0, rollout: all });
    expect(await copies('qwen3-4b', [lora, 'model.dtype=bfloat16'])).toEqual({ held: 0, rollout: 0 });
  });

  it('are none where the processor makes none', async () => {
    const weights = await decoding(shape('qwen3-0.6b'), [lora]);
    expect(weightCopies(weights, () => 0)).toEqual({ held: [], rollout: [] });
  });

  it.runIf(ownKernels)('of bf16 are made wherever the processor multiplies bf16, with AMX or without', () => {
    const bytes = native().packedBytes('cpu', 'bfloat16', 128, 64, true);
    expect(bytes).toBe(native().bf16Kernels() && process.arch === 'x64' ? 2 * 128 * 64 : 0);
  });

  // What is laid out again depends on the processor: with AMX bf16 is, with AVX2 alone float32 in panels, large ones too.
  it.each(['bfloat16', 'float32', 'float64'] as const)(
    'in %s are those that an engine makes',
    async (dtype) => {
      const model = tinyConfig({
        hiddenSize: 256,
        heads: 8,
        headDim: 32,
        intermediateSize: 1000,
        vocabularySize: 1500,
      });
      const workshop = new Workshop();
      const policy = workshop.policy(model, dtype);
      const used = (packedBytes: number) => {
        const engine = workshop.engine(model, { packedBytes });
        run(engine, [request(policy, [1, 2, 3])]);
        const { used: bytes } = native().deviceMemory('cpu');
        engine.dispose();
        return bytes;
      };
      const made = used(2 ** 31) - used(1);
      const weights = await decoding(model, [`model.dtype=${dtype}`]);
      const packedBytes = native().packedBytes;
      const { rollout } = weightCopies({ ...weights, trained: 1 }, (weight) =>
        packedBytes('cpu', weight.dtype, weight.outputs, weight.inputs, weight.head),
      );
      expect(totalOf(rollout, cpuBlock)).toBe(made);
      workshop.dispose();
    },
  );
});
