/**
 * What each stage of a step launches on a GPU, how often it waits for it, and the bytes that it moves: counted, on the CUDA
 * kernels' emulation, and set beside the rates that `troupe plan` takes for a device (src/learning/plan/devices.ts). Needs no
 * GPU, and measures no time.
 *
 *     node bench/stages.mjs [--shape 4b] [--parameters r16] [--sequences 16] [--prompt 128] [--calls 2] [--length 512]
 *       [--groups 2] [--rows 1024] [--device h100] [--kernels]
 *
 * Shapes and PARAMETERS as in gpu/troupe.mjs. Rollout: so many sequences after prompts that share nothing. Training: so many
 * calls of `length` tokens, half of them response, that share nothing, in turn in one of the groups; in micro-batches of at
 * most `rows` rows, or in one. Models of one and of two layers are run; what the second adds stands for every further one.
 * `--kernels` prints each stage's operators and kernels.
 *
 * Bytes: of an operator of ATen, those of its operands and results; of a kernel, those that it really reads and writes, each
 * once (native/kernels/cuda/emulation/accesses.h), for which the addon is built once more, in build/counting. Flash attention
 * and cuBLAS are operators here: what they keep to themselves is not seen, nor is what they read twice. `least`: what comes into
 * the stage and what has to be there after it, each once, nothing between its kernels.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { native } from '../build/js/engine/native.js';
import { train } from '../build/js/engine/training.js';
import { builtInLoss } from '../build/js/learning/losses.js';
import { findDevice } from '../build/js/learning/plan/devices.js';
import { findLibtorch } from '../scripts/libtorch.mjs';
import { buildCounting } from '../scripts/native.mjs';
import { completionRequest, makePolicy, randomTokens, shapeNamed } from './random-policy.mjs';

const { values: options } = parseArgs({
  options: {
    shape: { type: 'string', default: '4b' },
    parameters: { type: 'string', default: 'r16' },
    sequences: { type: 'string', default: '16' },
    prompt: { type: 'string', default: '128' },
    calls: { type: 'string', default: '2' },
    length: { type: 'string', default: '512' },
    groups: { type: 'string', default: '2' },
    rows: { type: 'string' },
    device: { type: 'string', default: 'h100' },
    kernels: { type: 'boolean', default: false },
    layers: { type: 'string' },
  },
});
const root = dirname(dirname(fileURLToPath(import.meta.url)));
const STAGES = ['forward', 'backward', 'statistics', 'optimizer', 'prefill', 'decode', 'sampler'];

/** Everything that is counted goes to the stage that `enter` named last, by operator or kernel. */
class Counter {
  stages = {};
  #stage;
  #waits;

  constructor(addon) {
    this.addon = addon;
    const operators = JSON.parse(readFileSync(new URL('../test/kernels/operators.json', import.meta.url)));
    this.silent = new RegExp(operators.silent);
    this.waiting = new RegExp(operators.waiting);
    this.kernels = addon.kernels('emulated');
  }

  /** `undefined`: what follows is not counted. */
  enter(stage) {
    const operators = this.addon.countOperators(stage !== undefined);
    const kernels = this.addon.takeAccesses();
    const waits = this.kernels.waits;
    if (this.#stage !== undefined) this.#add(operators, kernels, waits - this.#waits);
    this.#stage = stage;
    this.#waits = waits;
  }

  #add(operators, kernels, waits) {
    const row = (stage, name) => {
      this.stages[stage] ??= {};
      this.stages[stage][name] ??= { launches: 0, waits: 0, bytes: 0, operations: 0 };
      return this.stages[stage][name];
    };
    for (const [name, { calls, bytes, operations }] of Object.entries(operators)) {
      if (this.waiting.test(name)) row(this.#stage, name).waits += calls;
      if (this.silent.test(name)) continue;
      const to = row(this.#stage, name);
      to.launches += calls;
      to.bytes += bytes;
      to.operations += operations;
    }
    for (const [name, { launches, bytes }] of Object.entries(kernels)) {
      const to = row(name === 'draw_tokens' && this.#stage === 'decode' ? 'sampler' : this.#stage, name);
      to.launches += launches;
      to.bytes += bytes;
    }
    row(this.#stage, 'waits').waits += waits;
  }
}

/** The second update is counted. */
async function training(counter, policy, config) {
  const request = await builtInLoss('grpo');
  const { default: loss } = await import(request.module);
  const half = Number(options.length) / 2;
  const groups = Array.from({ length: Number(options.groups) }, (_, k) => `group ${k}`);
  const calls = Array.from({ length: Number(options.calls) }, (_, i) => ({
    prompt: randomTokens(config, half),
    response: randomTokens(config, half),
    rolloutLogprobs: new Float32Array(half).fill(-Math.log(config.vocabularySize)),
    temperature: 1,
    advantage: 0.5 - (i % 2),
    weight: 1 / half,
    group: i % groups.length,
  }));
  let counted = false;
  const enter = (stage) => counted && counter.enter(stage);
  const begins = (stage, name) => {
    const own = policy[name].bind(policy);
    policy[name] = (...given) => {
      enter(stage);
      return own(...given);
    };
  };
  begins('statistics', 'gram');
  begins('optimizer', 'step');
  const update = () => {
    enter('forward');
    return train(
      policy,
      {
        policy: 'policy',
        calls,
        mismatchOnly: [],
        groups,
        loss: request,
        reference: false,
        learningRate: 1e-6,
        clipNorm: 1e-9, // always clipped: whether it is must not depend on the layers
        microBatchRows: Number(options.rows ?? 2 * half * calls.length),
        update: true,
        statistics: { method: 'exact', sketch: { replicates: 4, size: 'auto', seed: 0 } },
      },
      (...given) => {
        enter('backward');
        return loss(...given);
      },
      async () => enter('forward'),
    );
  };
  await update(); // buffers, moments and tables are set up
  counted = true;
  const { skipped } = await update();
  enter(undefined);
  counted = false;
  if (skipped !== undefined) throw new Error(`the step was not applied: ${skipped}`);
}

/** The step that reads the prompts, and the third one after it. */
function rollout(counter, policy, config, addon) {
  const [sequences, prompt] = [Number(options.sequences), Number(options.prompt)];
  const engine = addon.createRolloutEngine(config, {
    cacheBytes: 4 * config.layers * config.kvHeads * config.headDim * sequences * (prompt + 64),
    maxBatch: sequences,
    prefillTokens: sequences * prompt,
    seed: 1,
    deterministic: false,
    recordSteps: false,
    runAhead: false,
  });
  for (let id = 0; id < sequences; id++) {
    engine.submit(completionRequest(policy.native, id, randomTokens(config, prompt), 8));
  }
  counter.enter('prefill');
  engine.step();
  counter.enter(undefined);
  if (engine.statistics().waiting > 0) throw new Error('the prompts did not fit into one step');
  for (let step = 0; step < 2; step++) engine.step();
  counter.enter('decode');
  engine.step();
  counter.enter(undefined);
  engine.dispose();
}

/** A kernel whose bytes are known: where they are not found, nothing that is counted holds. */
function checkCounting(addon, kernels) {
  const [rows, size] = [33, 72];
  const gateUp = addon.call('aten::empty', 'memory_format', [[rows, 2 * size], 'bfloat16', null, 'cpu']);
  addon.call('aten::fill_', 'Scalar', [gateUp, 1]);
  addon.takeAccesses();
  kernels.swiglu(gateUp).dispose();
  gateUp.dispose();
  const { launches, bytes } = addon.takeAccesses().swiglu;
  if (launches === 1 && bytes === 3 * rows * size * 2) return;
  throw new Error(`SwiGLU moves ${3 * rows * size * 2} bytes in 1 launch, not ${bytes} in ${launches}`);
}

async function count(layers) {
  const addon = native();
  if (addon.takeAccesses === undefined) throw new Error('this addon does not count what kernels touch');
  addon.useKernels('emulated');
  const config = shapeNamed(options.shape, layers);
  const policy = makePolicy(config, options.parameters, 'cpu');
  const counter = new Counter(addon);
  checkCounting(addon, counter.kernels);
  rollout(counter, policy, config, addon);
  await training(counter, policy, config);
  return counter.stages;
}

/** Bytes that each stage must move at least: of its inputs and results. bf16 but for accumulators, masters and moments. */
function leastBytes(config) {
  const [sequences, prompt] = [options.sequences, options.prompt].map(Number);
  const rows = options.calls * options.length;
  const { hiddenSize, intermediateSize, layers, vocabularySize } = config;
  const [query, key] = [config.heads * config.headDim, config.kvHeads * config.headDim];
  const products = [
    [hiddenSize, query + 2 * key, 3],
    [query, hiddenSize, 1],
    [hiddenSize, 2 * intermediateSize, 2],
    [intermediateSize, hiddenSize, 1],
  ];
  const sum = (each) => layers * products.reduce((total, product) => total + each(...product), 0);
  const base = sum((inputs, outputs) => inputs * outputs) + vocabularySize * hiddenSize;
  const full = options.parameters === 'full';
  const rank = full ? 0 : Number(options.parameters.slice(1));
  const adapter = rank * sum((inputs, outputs, terms) => terms * inputs + outputs);
  const trained = full ? base : adapter;
  const weights = 2 * (base + adapter);
  const context = 4 * layers * key; // of a token
  const logits = 4 * vocabularySize * sequences;
  // What native/training/layer.cc's layer_bytes says is kept.
  const kept = 2 * rows * (layers * (2 * (hiddenSize + query + key + intermediateSize) + 7 * rank));
  const groups = Number(options.groups);
  return {
    trained,
    forward: weights + kept,
    backward: weights + kept + 4 * groups * trained,
    statistics: 4 * groups * trained,
    // Accumulators read, masters and moments read and written, weights written.
    optimizer: (4 * groups + 24 + 2) * trained,
    prefill: weights + context * sequences * prompt + logits,
    // The third step after the prompts: three tokens more, one of them its own.
    decode: weights + context * sequences * (prompt + 4) + logits,
    sampler: logits,
  };
}

/** Of a model of `layers` layers, from those of one and of two. */
function extended(one, two, layers) {
  const stages = {};
  for (const stage of STAGES) {
    stages[stage] = {};
    for (const name of new Set([...Object.keys(one[stage] ?? {}), ...Object.keys(two[stage] ?? {})])) {
      const [first, second] = [one, two].map((counts) => counts[stage]?.[name] ?? {});
      const value = (key) => {
        const [a, b] = [first[key] ?? 0, second[key] ?? 0];
        return a + (layers - 1) * (b - a);
      };
      const keys = ['launches', 'waits', 'bytes', 'operations'];
      stages[stage][name] = Object.fromEntries(keys.map((key) => [key, value(key)]));
    }
  }
  return stages;
}

async function main() {
  if (options.layers !== undefined) {
    process.stdout.write(JSON.stringify(await count(Number(options.layers))));
    return;
  }
  const device = findDevice(options.device);
  const config = shapeNamed(options.shape);
  const env = { ...process.env, TROUPE_PREBUILD: buildCounting(root, findLibtorch(root)) };
  const [one, two] = [1, 2].map((count) =>
    JSON.parse(
      execFileSync(process.execPath, [...process.argv.slice(1), '--layers', String(count)], {
        env,
        encoding: 'utf8',
        maxBuffer: 1 << 28,
        stdio: ['ignore', 'pipe', 'inherit'],
      }),
    ),
  );
  print(extended(one, two, config.layers), leastBytes(config), device);
}

function print(stages, least, device) {
  const line = (cells) => console.log(`| ${cells.join(' | ')} |`);
  const gigabytes = (bytes) => (bytes / 1e9).toPrecision(3);
  const ms = (seconds) => (1000 * seconds).toPrecision(3);
  const row = (name, { launches, waits, bytes, operations }, needed = '') =>
    line([
      ...[name, launches, waits, gigabytes(bytes), needed, (operations / 1e12).toPrecision(3)],
      ...[bytes / device.bandwidth, operations / device.flops.bfloat16, launches * device.launch].map(ms),
    ]);
  line([
    ...[
      'stage',
      'launches',
      'waits',
      'GB',
      'least',
      'TFLOP of products',
      `ms at ${device.bandwidth / 1e12} TB/s`,
    ],
    ...[`ms at ${device.flops.bfloat16 / 1e12} TFLOP/s`, `ms at ${device.launch * 1e6} µs a launch`],
  ]);
  line(new Array(9).fill('---'));
  for (const [stage, names] of Object.entries(stages)) {
    const total = { launches: 0, waits: 0, bytes: 0, operations: 0 };
    for (const counts of Object.values(names)) {
      for (const key of Object.keys(total)) total[key] += counts[key];
    }
    if (total.bytes < least[stage])
      throw new Error(`${stage}: ${total.bytes} bytes were counted, and ${least[stage]} have to be moved`);
    row(options.kernels ? `**${stage}**` : stage, total, gigabytes(least[stage]));
    if (!options.kernels) continue;
    const byBytes = Object.entries(names).sort(([, a], [, b]) => b.bytes - a.bytes);
    for (const [name, counts] of byBytes) row(name, counts);
  }
  console.log(`${least.trained} trained parameters in matrices`);
}

await main();
