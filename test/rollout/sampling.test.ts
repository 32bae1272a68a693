/** Samples follow the model's distribution, belong to their counter alone, and end where they should. */
import { describe, expect, test } from 'vitest';
import { native, type RolloutRequest } from '../../src/engine/native.js';
import type { NativePolicy } from '../../src/engine/native-model.js';
import { needs } from '../needs.js';
import { device, nextLogprobs, request, run, text, tinyConfig } from './tiny.js';
import { useWorkshop } from './use-workshop.js';

const config = tinyConfig();
const vocabulary = config.vocabularySize;

const workshop = useWorkshop();

/** Filters as transformers applies them, on the log-probabilities at the sampling temperature. */
function filtered(logprobs: number[], { topK = 0, topP = 1, minP = 0 }: Partial<RolloutRequest>): number[] {
  const order = logprobs.map((_, id) => id).sort((a, b) => (logprobs[b] as number) - (logprobs[a] as number));
  let kept = topK > 0 ? order.slice(0, topK) : order;
  const weight = (id: number) => Math.exp(logprobs[id] as number);
  let mass = kept.reduce((total, id) => total + weight(id), 0);
  let seen = 0;
  kept = kept.filter((id) => {
    const keep = seen < topP * mass;
    seen += weight(id);
    return keep;
  });
  kept = kept.filter((id) => weight(id) >= minP * weight(order[0] as number));
  mass = kept.reduce((total, id) => total + weight(id), 0);
  return logprobs.map((_, id) => (kept.includes(id) ? weight(id) / mass : 0));
}

describe('chi-square of 6,000 samples against the filtered softmax', () => {
  const cases: Partial<RolloutRequest>[] = [
    { temperature: 1 },
    { temperature: 0.6 },
    { temperature: 1, topK: 5 },
    { temperature: 1.3, topP: 0.8 },
    { temperature: 1, minP: 0.1 },
    { temperature: 1.5, topK: 12, topP: 0.7, minP: 0.05 },
  ];
  test.each(cases)('%o', (sampling) => {
    const policy = workshop.policy(config, 'float32', 3);
    const engine = workshop.engine(config, { maxBatch: 6000 });
    const prompt = text(9, 12);
    const samples = 6000;
    const results = run(
      engine,
      Array.from({ length: samples }, (_, i) =>
        request(policy, prompt, { ...sampling, maxTokens: 1, counter: [0, i, 0, 0, 0] }),
      ),
    );
    const logprobs = nextLogprobs(policy, prompt, vocabulary, sampling.temperature as number);
    const expected = filtered(logprobs, sampling);
    const seen = new Array<number>(vocabulary).fill(0);
    for (const result of results) {
      const id = result.ids[0] as number;
      seen[id] = (seen[id] as number) + 1;
      // The log-probability is of the full softmax, whatever the filters.
      expect(Math.abs((result.logprobs[0] as number) - (logprobs[id] as number))).toBeLessThan(1e-4);
    }
    let statistic = 0;
    let cells = 0;
    let rareSeen = 0;
    let rareExpected = 0;
    for (const [id, p] of expected.entries()) {
      const count = seen[id] as number;
      if (p === 0) expect(count).toBe(0);
      else if (p * samples < 5) {
        rareSeen += count;
        rareExpected += p * samples;
      } else {
        statistic += (count - p * samples) ** 2 / (p * samples);
        cells++;
      }
    }
    if (rareExpected >= 5) {
      statistic += (rareSeen - rareExpected) ** 2 / rareExpected;
      cells++;
    }
    expect(cells).toBeGreaterThan(2);
    // Wilson and Hilferty: chi-square's cube root is nearly normal; 4 standard deviations, with a fixed seed.
    const freedom = cells - 1;
    const z = ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / Math.sqrt(2 / (9 * freedom));
    expect(z).toBeLessThan(4);
    // A sampler that repeated itself would fit too well.
    expect(z).toBeGreaterThan(-4);
  });
});

test('consecutive tokens of one call are independent draws: positions have their own numbers', () => {
  const policy = workshop.policy(config, 'float32', 3);
  const engine = workshop.engine(config);
  const calls = Array.from({ length: 40 }, (_, i) =>
    request(policy, text(9, 12), { counter: [0, 0, 0, 0, i] }),
  );
  const distinct = new Set(run(engine, calls).map((result) => result.ids.join(' ')));
  expect(distinct.size).toBe(40);
});

function crowd(policy: NativePolicy, size = 37): RolloutRequest[] {
  return Array.from({ length: size }, (_, i) =>
    request(policy, text(i % 5, 5 + (i % 11) * 7), { maxTokens: 3 + (i % 13), counter: [9, i, 0, 0, 0] }),
  );
}

test('a call draws the same tokens alone and in a crowd', () => {
  const policy = workshop.policy(config, 'float64');
  const target = { counter: [4, 2, 1, 0, 1] as const, maxTokens: 40, temperature: 0.9 };
  const prompt = text(2, 33);
  const [alone] = run(workshop.engine(config), [request(policy, prompt, target)]);
  const engine = workshop.engine(config, { maxBatch: 16, prefillTokens: 50 });
  const crowded = run(engine, [...crowd(policy), request(policy, prompt, target)]).at(-1);
  expect(crowded?.ids).toEqual(alone?.ids);
  const [otherSeed] = run(workshop.engine(config, { seed: 8 }), [request(policy, prompt, target)]);
  expect(otherSeed?.ids).not.toEqual(alone?.ids);
});

// On a GPU, and so on its emulation, runs are not deterministic in this sense; they are refused (src/engine/deterministic.ts).
const onProcessor = test.runIf(device === 'cpu' && process.env.TROUPE_KERNELS === undefined);

onProcessor.for(['bfloat16', 'float32'] as const)(
  'deterministic: bit for bit whatever the batch, %s',
  (dtype, context) => {
    needs('processor kernels')(context);
    // Widths at which products by row count are known to differ.
    const wide = tinyConfig({ hiddenSize: 320, intermediateSize: 1024, heads: 5, kvHeads: 1, headDim: 64 });
    const base = workshop.base(wide, dtype, 6, false);
    const options = { rank: 8, alpha: 8, targets: ['q' as const, 'down' as const] };
    const adapter = workshop.adapter(wide, options, dtype, 5);
    const policy = workshop.keep(native().createPolicy(wide, base, adapter, options));
    const other = workshop.keep(native().createPolicy(wide, base));
    const target = { counter: [4, 2, 1, 0, 1] as const, maxTokens: 20 };
    const prompt = [...text(2, 33), 1];
    const page = 2 * 64 * 32 * (dtype === 'bfloat16' ? 2 : 4) * 2;
    const [alone] = run(workshop.engine(wide, { deterministic: true }), [request(policy, prompt, target)]);
    for (const limits of [
      { maxBatch: 64, prefillTokens: 512 },
      { maxBatch: 9, prefillTokens: 20 },
      { maxBatch: 40, prefillTokens: 30, cacheBytes: 14 * page },
    ]) {
      const engine = workshop.engine(wide, { deterministic: true, ...limits });
      const shared = request(policy, prompt.slice(0, 20), { counter: [5, 0, 0, 0, 0], maxTokens: 4 });
      const crowded = run(engine, [
        ...crowd(policy, 20),
        ...crowd(other, 13),
        shared,
        request(policy, prompt, target),
      ]).at(-1);
      expect(crowded?.ids).toEqual(alone?.ids);
      expect(crowded?.logprobs).toEqual(alone?.logprobs);
    }
  },
);

test('deterministic: requests are admitted in the order of their counters', () => {
  const policy = workshop.policy(config, 'float32');
  const order = (shuffle: number[]) => {
    const engine = workshop.engine(config, { deterministic: true, maxBatch: 1 });
    const calls = shuffle.map((episode) =>
      request(policy, [1, 2, 3], { counter: [0, episode, 0, 0, 0], id: episode }),
    );
    for (const call of calls) engine.submit(call);
    const ids: number[] = [];
    while (!engine.idle) for (const result of engine.step()) ids.push(result.id);
    return ids;
  };
  expect(order([3, 1, 4, 2])).toEqual([1, 2, 3, 4]);
});

describe('ends', () => {
  test('a stop token ends the response and stays in it; ignoreStop runs to the limit', () => {
    const policy = workshop.policy(config, 'float32');
    const engine = workshop.engine(config);
    const everything = Int32Array.from({ length: vocabulary }, (_, id) => id);
    const prompt = text(1, 9);
    const [free] = run(engine, [request(policy, prompt, { counter: [1, 1, 1, 1, 1], maxTokens: 20 })]);
    const ids = free?.ids ?? new Int32Array();
    const stop = ids[6] as number;
    const where = ids.indexOf(stop);
    const [stopped, forced, first] = run(engine, [
      request(policy, prompt, { counter: [1, 1, 1, 1, 1], maxTokens: 20, stopTokens: Int32Array.of(stop) }),
      request(policy, prompt, {
        counter: [1, 1, 1, 1, 1],
        maxTokens: 20,
        stopTokens: everything,
        ignoreStop: true,
      }),
      request(policy, prompt, { maxTokens: 20, stopTokens: everything }),
    ]);
    expect(stopped).toMatchObject({ finish: 'stop', ids: ids.slice(0, where + 1) });
    expect(stopped?.logprobs.length).toBe(where + 1);
    expect(forced).toMatchObject({ finish: 'length', ids });
    expect(first).toMatchObject({ finish: 'stop' });
    expect(first?.ids.length).toBe(1);
  });

  // Every token is two bytes, so strings of odd length cross or split tokens.
  const spelled = Array.from(
    { length: vocabulary },
    (_, id) => `${String.fromCharCode(97 + (id % 5))}${String.fromCharCode(65 + id)}`,
  );
  const tokenBytes = Buffer.from(spelled.join(''), 'latin1');
  const tokenOffsets = Int32Array.from({ length: vocabulary + 1 }, (_, id) => 2 * id);

  test.each([
    [0, 2],
    [3, 4],
    [5, 3],
    [6, 7],
    [1, 1],
  ])('a stop string from byte %i, %i bytes long, ends with the token that completes it', (from, length) => {
    const policy = workshop.policy(config, 'float32');
    const engine = workshop.engine(config, { tokenBytes, tokenOffsets });
    const prompt = text(1, 9);
    const counter = [2, 2, 2, 2, 2] as const;
    const [free] = run(engine, [request(policy, prompt, { counter, maxTokens: 20 })]);
    const bytes = Array.from(free?.ids ?? [], (id) => spelled[id]).join('');
    const stop = bytes.slice(from, from + length);
    const end = bytes.indexOf(stop) + length;
    const [stopped] = run(engine, [
      request(policy, prompt, { counter, maxTokens: 20, stopStrings: ['never there', stop] }),
    ]);
    expect(stopped?.finish).toBe('stop');
    expect(stopped?.ids.length).toBe(Math.ceil(end / 2));
  });
});
