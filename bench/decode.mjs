/**
 * The rollout engine alone: 32 sequences decode 128 tokens each after 4 shared prompts of 64, at the 135 M shape in
 * bf16 with random weights. Prints the time of a decode step and tokens a second, the best and the median of a few
 * rounds, because neighbours on the machine only ever slow it down. Needs `npm run build`.
 */
import { parseArgs } from 'node:util';
import { native } from '../build/js/engine/native.js';
import { completionRequest } from './random-policy.mjs';

const { values } = parseArgs({
  options: {
    adapters: { type: 'string', default: '0' },
    rank: { type: 'string', default: '16' },
    sequences: { type: 'string', default: '32' },
    'prompt-tokens': { type: 'string', default: '64' },
    'max-tokens': { type: 'string', default: '128' },
    rounds: { type: 'string', default: '3' },
    dtype: { type: 'string', default: 'bfloat16' },
    deterministic: { type: 'boolean', default: false },
    shape: { type: 'string', default: '135m' },
  },
});
const [adapters, rank, sequences, promptTokens, maxTokens, rounds] = [
  values.adapters,
  values.rank,
  values.sequences,
  values['prompt-tokens'],
  values['max-tokens'],
  values.rounds,
].map(Number);

const SIZES = {
  '135m': {
    hiddenSize: 576,
    layers: 30,
    heads: 9,
    kvHeads: 3,
    intermediateSize: 1536,
    vocabularySize: 49152,
  },
  // To try the benchmark out.
  tiny: { hiddenSize: 128, layers: 2, heads: 2, kvHeads: 1, intermediateSize: 256, vocabularySize: 512 },
};
if (SIZES[values.shape] === undefined) throw new Error(`--shape is ${values.shape}; it takes 135m or tiny`);

const config = {
  ...SIZES[values.shape],
  headDim: 64,
  maxPositions: 8192,
  rmsNormEps: 1e-5,
  tiedEmbeddings: true,
  qkvBias: false,
  outputBias: false,
  mlpBias: false,
  qkNorm: false,
  inverseFrequencies: Float64Array.from({ length: 32 }, (_, i) => 100000 ** (-i / 32)),
  ropeScaling: 1,
};

const addon = native();
const base = addon.createBase(config, values.dtype, 'cpu', false);
addon.initialize(base, 1, 0.02);
const targets = ['q', 'k', 'v', 'o', 'gate', 'up', 'down'];
const policies =
  adapters === 0
    ? [addon.createPolicy(config, base)]
    : Array.from({ length: adapters }, (_, i) => {
        const options = { rank, alpha: rank, targets };
        const adapter = addon.createAdapter(config, options, values.dtype, 'cpu');
        addon.initialize(adapter, i, 0.02);
        return addon.createPolicy(config, base, adapter, options);
      });
const engine = addon.createRolloutEngine(config, {
  cacheBytes: 2 ** 31,
  maxBatch: sequences,
  prefillTokens: 2048,
  seed: 1,
  deterministic: values.deterministic,
});

const milliseconds = [];
for (let round = 0; round < rounds; round++) {
  for (let i = 0; i < sequences; i++) {
    const token = (_, t) => (t * 37 + (i & 3) * 1001) % config.vocabularySize;
    const prompt = Int32Array.from({ length: promptTokens }, token);
    const request = completionRequest(policies[i % policies.length], i, prompt, maxTokens);
    engine.submit({ ...request, counter: [round, i, 0, 0, 0] });
  }
  engine.step(); // admits and prefills
  const begin = performance.now();
  let steps = 0;
  while (!engine.idle) {
    engine.step();
    steps++;
  }
  milliseconds.push((performance.now() - begin) / steps);
  engine.clearCache(true);
}
milliseconds.sort((a, b) => a - b);
const row = (name, ms) =>
  `${name}: ${ms.toFixed(1)} ms a step, ${((1000 * sequences) / ms).toFixed(0)} tokens/s`;
console.log(
  `${sequences} sequences, ${promptTokens} + ${maxTokens} tokens, ${values.dtype}, ${adapters} adapters` +
    `${values.deterministic ? ', deterministic' : ''}, ${addon.threads()} threads`,
);
console.log(row('best  ', milliseconds[0]));
console.log(row('median', milliseconds[milliseconds.length >> 1]));
