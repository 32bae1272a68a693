/**
 * GRPO steps of Troupe on its engine, timed: samples of every prompt, advantages from random rewards, one update
 * of all parameters with AdamW, fp32 masters under bf16 weights (`--compute float32`: fp32 alone), gradients
 * measured by role as in every run.
 * Prints JSON like peers/trl_grpo.py; started by grpo.mjs. Needs `npm run build`.
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Engine } from '../build/js/engine/engine.js';
import { builtInLoss } from '../build/js/learning/losses.js';

const { values } = parseArgs({
  options: {
    model: { type: 'string' },
    lengths: { type: 'string' },
    prompts: { type: 'string' },
    samples: { type: 'string' },
    'prompt-tokens': { type: 'string' },
    threads: { type: 'string' },
    compute: { type: 'string' },
    warmup: { type: 'string', default: '1' },
    'micro-batch-rows': { type: 'string', default: '8192' },
  },
});
const lengths = JSON.parse(readFileSync(values.lengths, 'utf8'));
const [prompts, samples, promptTokens, threads, warmup, microBatchRows] = [
  values.prompts,
  values.samples,
  values['prompt-tokens'],
  values.threads,
  values.warmup,
  values['micro-batch-rows'],
].map(Number);

const engine = new Engine({ threads });
const { vocabularySize } = await engine.send('loadModel', {
  name: 'model',
  folder: values.model,
  dtype: values.compute,
  device: 'cpu',
  rollout: { cacheBytes: 2 ** 30, maxBatch: 256, prefillTokens: 2048, seed: 0, deterministic: false },
});
const { trainable } = await engine.send('createPolicy', {
  name: 'policy',
  model: 'model',
  parameters: { kind: 'full' },
  trainable: true,
  optimizer: { betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0 },
  seed: 0,
});
const loss = await builtInLoss('grpo');

/** Tokens 0 and 1 are the end and the padding of the model's tokenizer. */
const randomPrompt = () =>
  Int32Array.from({ length: promptTokens }, () => 2 + ((Math.random() * (vocabularySize - 2)) | 0));

/** (reward − mean) / standard deviation of the samples of one prompt. */
function advantages(rewards) {
  const mean = rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length;
  const squares = rewards.reduce((sum, reward) => sum + (reward - mean) ** 2, 0);
  return rewards.map((reward) => (reward - mean) / (Math.sqrt(squares / (rewards.length - 1)) + 1e-6));
}

/** Samples that end after exactly the lengths given, in the order prompt by prompt. */
function generate(step, questions) {
  return Promise.all(
    lengths[step].map((maxTokens, sequence) => {
      return engine.complete({
        policy: 'policy',
        prompt: questions[Math.floor(sequence / samples)],
        sampling: { temperature: 1, topK: 0, topP: 1, minP: 0, maxTokens, stop: [] },
        counter: [step, sequence, 0, 0, 0],
        ignoreStop: true,
      });
    }),
  );
}

function train(questions, completions) {
  const tokens = completions.reduce((sum, { ids }) => sum + ids.length, 0);
  const pressure = questions.flatMap(() => advantages(Array.from({ length: samples }, () => Math.random())));
  return engine.send('train', {
    policy: 'policy',
    calls: completions.map(({ ids, logprobs }, sequence) => ({
      prompt: questions[Math.floor(sequence / samples)],
      response: ids,
      rolloutLogprobs: logprobs,
      temperature: 1,
      advantage: pressure[sequence],
      weight: 1 / tokens,
      group: 0,
    })),
    mismatchOnly: [],
    groups: ['generator'],
    loss,
    reference: false,
    learningRate: 1e-6,
    clipNorm: 1,
    microBatchRows,
    update: true,
  });
}

const steps = [];
for (const [step, forced] of lengths.entries()) {
  const questions = Array.from({ length: prompts }, randomPrompt);
  const start = performance.now();
  const completions = await generate(step, questions);
  const generated = performance.now();
  const result = await train(questions, completions);
  const end = performance.now();
  if (completions.some(({ ids }, sequence) => ids.length !== forced[sequence])) {
    throw new Error('the responses do not have the lengths that were asked for');
  }
  if (result.skipped !== undefined || !(result.gradients.totalNorm > 0))
    throw new Error('the step was not applied');
  steps.push({
    seconds: (end - start) / 1000,
    generation: (generated - start) / 1000,
    training: (end - generated) / 1000,
    forward: result.forwardSeconds,
    backward: result.backwardSeconds,
    optimizer: result.optimizerSeconds,
    tokens_seen: result.tokensSeen,
    tokens_computed: result.tokensComputed,
  });
}
const { peakMemory } = await engine.send('statistics', null);
const { libtorch } = await engine.send('describe', null);
await engine.close();
const counted = steps.slice(warmup);
console.log(
  JSON.stringify({
    program: 'Troupe',
    versions: { libtorch, node: process.versions.node },
    weights: values.compute === 'float32' ? 'float32' : 'bfloat16 with float32 masters',
    threads,
    parameters: trainable,
    steps: counted,
    peak_bytes: peakMemory,
    tokens_seen: counted.map((step) => step.tokens_seen),
    tokens_computed: counted.map((step) => step.tokens_computed),
  }),
);
