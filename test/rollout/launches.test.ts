/** What a decode step launches, and how often it waits and uploads, on the CUDA kernels' emulation. */
import { afterEach, expect, test } from 'vitest';
import { native, type RolloutRequest } from '../../src/engine/native.js';
import type { AdapterConfig } from '../../src/engine/native-model.js';
import { type Counts, counts, useEmulation } from '../kernels/counting.js';
import { request, text, tinyConfig, Workshop } from './tiny.js';

useEmulation();
const workshop = new Workshop();
afterEach(() => workshop.dispose());

const lora: AdapterConfig = { rank: 16, alpha: 16, targets: ['q', 'k', 'v', 'o', 'gate', 'up', 'down'] };

/**
 * Of one step in which `sequences` sequences decode after prompts of `prompt` tokens and on, of `adapters` policies (0: the
 * base itself).
 */
async function decodeStep(
  layers: number,
  sequences: number,
  adapters: number,
  prompt = 9,
  sampling: Partial<RolloutRequest> = {},
): Promise<Counts> {
  // Tensor-core attention and adapters take their own way from these sizes on.
  const config = tinyConfig({ layers, headDim: 64, hiddenSize: 64, heads: 4 });
  const base = workshop.base(config, 'bfloat16', 1, adapters === 0);
  const policies =
    adapters === 0
      ? [workshop.keep(native().createPolicy(config, base))]
      : Array.from({ length: adapters }, (_, i) =>
          workshop.keep(
            native().createPolicy(config, base, workshop.adapter(config, lora, 'bfloat16', 3 + i), lora),
          ),
        );
  const engine = workshop.engine(config, { recordSteps: false });
  for (let i = 0; i < sequences; i++) {
    const policy = policies[i % policies.length];
    if (policy !== undefined)
      engine.submit(request(policy, text(i, prompt + i), { maxTokens: 8, ...sampling }));
  }
  // Prompts, what is made once, and each sequence's copy of the page that its prompt ends in.
  for (let step = 0; step < 4; step++) engine.step();
  expect(engine.statistics().waiting).toBe(0);
  return counts(() => engine.step());
}

test.each([
  [0, 9],
  [2, 11], // the goal is 12: one more at the products of o and down, none at those whose results another kernel took before
])(
  'with %i adapters a decode step takes %i launches a layer, waits once and uploads once',
  async (adapters, launches) => {
    const perLayer: number[] = [];
    for (const sequences of [4, 9]) {
      const one = await decodeStep(1, sequences, adapters);
      const two = await decodeStep(2, sequences, adapters);
      expect([one.waits, two.waits]).toEqual([1, 1]);
      expect([one.uploads, two.uploads]).toEqual([1, 1]);
      perLayer.push(two.launches - one.launches);
    }
    const [layer = 0, ofMore] = perLayer;
    expect(layer).toBe(launches);
    expect(ofMore).toBe(layer);
  },
);

test('sequences of more than 384 tokens take one launch more a layer: their attention has parts to merge', async () => {
  const layer = async (prompt: number) =>
    (await decodeStep(2, 1, 0, prompt)).launches - (await decodeStep(1, 1, 0, prompt)).launches;
  // A prompt, three decode steps, and the one that is counted: it reads as many tokens as the prompt has, and four more.
  expect(await layer(384 - 4)).toBe(9);
  expect(await layer(385 - 4)).toBe(10);
});

test('draws are one launch, and one more where some of them filter; greedy ones never do', async () => {
  const launches = async (sampling: Partial<RolloutRequest>) =>
    (await decodeStep(1, 4, 0, 9, sampling)).launches;
  const plain = await launches({});
  for (const filter of [{ topK: 5 }, { topP: 0.9 }, { minP: 0.1 }])
    expect(await launches(filter)).toBe(plain + 1);
  expect(await launches({ temperature: 0, topP: 0.9 })).toBe(plain);
});
