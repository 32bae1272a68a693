/** What a decode step launches, and how often it waits and uploads, on the CUDA kernels' emulation. */
import { afterEach, expect, test } from 'vitest';
import { native, type RolloutRequest } from '../../src/engine/native.js';
import type { AdapterConfig } from '../../src/engine/native-model.js';
import { type Counts, counts, useEmulation } from '../kernels/counting.js';
import { request, run, text, tinyConfig, Workshop } from './tiny.js';

useEmulation();
const workshop = new Workshop();
afterEach(() => workshop.dispose());

interface Decode {
  sequences: number;
  /** Policies, each with an adapter of its own; 0: the base itself. */
  adapters: number;
  rank?: number;
  /** Tokens of the shortest of nine prompts; others have up to 8 more. */
  prompt?: number;
  hiddenSize?: number;
  sampling?: Partial<RolloutRequest>;
}

/** Of one step in which all sequences decode. */
async function decodeStep(
  layers: number,
  { sequences, adapters, rank = 16, prompt = 2, hiddenSize = 128, sampling = {} }: Decode,
): Promise<Counts> {
  const lora: AdapterConfig = {
    rank,
    alpha: 16,
    targets: ['q', 'k', 'v', 'o', 'gate', 'up', 'down'],
  };
  // Tensor-core attention and adapters take their own way from these sizes on.
  const config = tinyConfig({ layers, headDim: 64, hiddenSize, heads: 4 });
  const base = adapters === 0 ? workshop.base(config, 'bfloat16') : workshop.frozenBase(config, 'bfloat16');
  const policies =
    adapters === 0
      ? [workshop.keep(native().createPolicy(config, base))]
      : Array.from({ length: adapters }, (_, i) =>
          workshop.keep(
            native().createPolicy(config, base, workshop.adapter(config, lora, 'bfloat16', 3 + i), lora),
          ),
        );
  const engine = workshop.engine(config, {
    recordSteps: false,
    runAhead: false,
    maxBatch: sequences,
  });
  for (let i = 0; i < sequences; i++) {
    const policy = policies[i % policies.length];
    if (policy !== undefined)
      engine.submit(request(policy, text(i % 9, prompt + (i % 9)), { maxTokens: 8, ...sampling }));
  }
  // Prompts, what is made once, and each sequence's copy of the page that its prompt ends in.
  for (let step = 0; step < 4; step++) engine.step();
  expect(engine.statistics()).toMatchObject({ waiting: 0, running: sequences });
  return counts(() => engine.step());
}

async function launchesOfLayer(decode: Decode): Promise<number> {
  const one = await decodeStep(1, decode);
  const two = await decodeStep(2, decode);
  expect([one.waits, two.waits]).toEqual([1, 1]);
  expect([one.uploads, two.uploads]).toEqual([1, 1]);
  return two.launches - one.launches;
}

test.each([
  { adapters: 0, sequences: 4, launches: 9 },
  { adapters: 0, sequences: 9, launches: 9 },
  // The goal is 12. What follows each product takes the adapters' part of it along.
  { adapters: 2, sequences: 4, launches: 9 },
  { adapters: 2, sequences: 9, launches: 9 },
  { adapters: 2, sequences: 256, rank: 32, launches: 9 },
  { adapters: 1, sequences: 1024, rank: 16, launches: 9 },
  // Ranks above 32, or a stream whose width is no multiple of 128: one more at the products of o and down.
  { adapters: 2, sequences: 256, rank: 64, launches: 11 },
  { adapters: 2, sequences: 130, rank: 128, launches: 11 },
  { adapters: 2, sequences: 9, hiddenSize: 64, launches: 11 },
])(
  'a decode step takes so many launches a layer, waits once and uploads once: %o',
  async ({ launches, ...decode }) => {
    expect(await launchesOfLayer(decode)).toBe(launches);
  },
);

test('sequences of more than 384 tokens take one launch more a layer: their attention has parts to merge', async () => {
  // A prompt, three decode steps, and the one that is counted: it reads as many tokens as the prompt has, and four more.
  expect(await launchesOfLayer({ sequences: 1, adapters: 0, prompt: 384 - 4 })).toBe(9);
  expect(await launchesOfLayer({ sequences: 1, adapters: 0, prompt: 385 - 4 })).toBe(10);
});

test('the pages that sequences share with their prompts are copied by one upload and one launch a step', async () => {
  const config = tinyConfig();
  const engine = workshop.engine(config, { recordSteps: false, runAhead: false });
  const policy = workshop.policy(config, 'float32');
  // Eight samples of each of eight prompts, none of which ends where a page does.
  const samples = (round: number) =>
    Array.from({ length: 64 }, (_, i) =>
      request(policy, text(i % 8, 17 + (i % 8)), { maxTokens: 4, counter: [round, i, 0, 0, 0] }),
    );
  run(engine, samples(0)); // what is made once
  for (const one of samples(1)) engine.submit(one);
  engine.step(); // the prompts' last tokens
  const [first, second] = [await counts(() => engine.step()), await counts(() => engine.step())];
  expect(second).toMatchObject({ waits: 1, uploads: 1 });
  expect(first).toEqual({ launches: second.launches + 1, waits: 1, uploads: 2 });
});

test('draws are one launch, and one more where some of them filter; greedy ones never do', async () => {
  const launches = async (sampling: Partial<RolloutRequest>) =>
    (await decodeStep(1, { sequences: 4, adapters: 0, sampling })).launches;
  const plain = await launches({});
  for (const filter of [{ topK: 5 }, { topP: 0.9 }, { minP: 0.1 }])
    expect(await launches(filter)).toBe(plain + 1);
  expect(await launches({ temperature: 0, topP: 0.9 })).toBe(plain);
});
