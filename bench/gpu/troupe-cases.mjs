/**
 * The cases of troupe.mjs. Each takes what it is run `on`, { device, microBatchRows }, and what its name says behind colons, and
 * gives the fields of its row.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { native } from '../../build/js/engine/native.js';
import { train } from '../../build/js/engine/training.js';
import { builtInLoss } from '../../build/js/learning/losses.js';
import { completionRequest, makePolicy, randomTokens, shapeNamed } from '../random-policy.mjs';

const LENGTH = 512;
const PROMPT = 256;
const STEPS = JSON.parse(readFileSync(new URL('steps.json', import.meta.url), 'utf8'));
export const addon = native();
const lossRequest = await builtInLoss('grpo');
const { default: loss } = await import(lossRequest.module);

export const seconds = () => performance.now() / 1000;
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const call = (name, overload, ...args) => addon.call(`aten::${name}`, overload, args);
/** Waits for the device: a read of one number. */
function synchronize(tensor) {
  const one = call('narrow', '', call('reshape', '', tensor, [-1]), 0, 0, 1);
  addon.read(call('to', 'dtype', one, 'float32', false, false));
}

/** A model with one trained policy; every case has a process of its own. */
function setUp(on, shape, parameters) {
  const config = shapeNamed(shape);
  return { config, policy: makePolicy(config, parameters, on.device) };
}

/** A call as the training step wants it; log-probabilities of sampling are those of a uniform guess. */
function trainCall(config, prompt, response, group, logprobs) {
  return {
    prompt,
    response,
    rolloutLogprobs: logprobs ?? new Float32Array(response.length).fill(-Math.log(config.vocabularySize)),
    temperature: 1,
    advantage: Math.random() - 0.5,
    group,
  };
}

async function update(on, policy, calls, groups, method = 'exact') {
  const tokens = calls.reduce((sum, { response }) => sum + response.length, 0);
  const started = seconds();
  const result = await train(
    policy,
    {
      policy: 'policy',
      calls: calls.map((one) => ({ ...one, weight: 1 / tokens })),
      mismatchOnly: [],
      groups,
      loss: lossRequest,
      reference: false,
      learningRate: 1e-6,
      clipNorm: 1,
      microBatchRows: on.microBatchRows,
      update: true,
      statistics: { method, sketch: { replicates: 4, size: 'auto', seed: 0 } },
    },
    loss,
    async () => {},
  );
  synchronize(policy.trained.master());
  if (result.skipped !== undefined || !(result.gradients.totalNorm > 0))
    throw new Error(`the step was not applied: ${result.skipped}`);
  return { ...result, seconds: seconds() - started };
}

/**
 * Floating-point operations of an update: 2 for each weight and row forward, as many for the gradient of the input, as
 * many again for that of the weight where it trains; the head over response tokens alone; attention: 4 D for each
 * query, head and key forward, 8 backward (10 with the recomputation of flash attention, not counted).
 */
function flops(config, { rows, entries, keys, full }) {
  const {
    hiddenSize: h,
    intermediateSize: i,
    layers,
    heads,
    kvHeads,
    headDim: d,
    vocabularySize: v,
  } = config;
  const layer = h * (heads + 2 * kvHeads) * d + heads * d * h + 3 * h * i;
  const passes = full ? 6 : 4;
  return passes * (layers * layer * rows + v * h * entries) + 12 * layers * heads * d * keys;
}

/** What the device holds for this process now: its allocator keeps the most that was ever in use. */
function deviceBytes({ device }) {
  if (!device.startsWith('cuda')) return { peak_bytes: addon.deviceMemory('cpu').peak };
  const memory = addon.deviceMemory?.(device);
  if (memory !== undefined) return { peak_bytes: memory.peak };
  const mib = execFileSync('nvidia-smi', ['--query-gpu=memory.used', '--format=csv,noheader,nounits'], {
    encoding: 'utf8',
  });
  return { reserved_bytes: Number(mib.split('\n')[0]) * 2 ** 20 };
}

function rates({ device }) {
  const small = device === 'cpu';
  const side = small ? 1024 : 8192;
  const bytes = small ? 2 ** 28 : 2 ** 32;
  const make = (shape) =>
    call(
      'normal_',
      '',
      addon.call('aten::empty', 'memory_format', [shape, 'bfloat16', null, device]),
      0,
      1,
      null,
    );
  const a = make([side, side]);
  const b = make([side, side]);
  const from = make([bytes / 2]);
  const to = make([bytes / 2]);
  const timed = (work, result) => {
    work();
    synchronize(result);
    const times = Array.from({ length: 3 }, () => {
      const started = seconds();
      for (let i = 0; i < 5; i++) work();
      synchronize(result);
      return (seconds() - started) / 5;
    });
    return Math.min(...times);
  };
  const product = timed(() => call('mm', 'out', a, b, to_(a)), to_(a));
  const copy = timed(() => call('copy_', '', to, from, false), to);
  return { gemm_flops: (2 * side ** 3) / product, copy_bytes: (2 * bytes) / copy };
}
let product_;
const to_ = (like) => (product_ ??= call('empty_like', '', like));

async function trainCase(on, shape, parameters, tokens) {
  const { config, policy } = setUp(on, shape, parameters);
  const sequences = Number(tokens) / LENGTH;
  const calls = Array.from({ length: sequences }, () =>
    trainCall(config, randomTokens(config, PROMPT), randomTokens(config, LENGTH - PROMPT), 0),
  );
  const results = [];
  for (let i = 0; i < 5; i++) results.push(await update(on, policy, calls, ['all']));
  const time = median(results.slice(2).map((result) => result.seconds));
  const work = flops(config, {
    rows: Number(tokens),
    entries: sequences * (LENGTH - PROMPT),
    keys: (sequences * LENGTH * LENGTH) / 2,
    full: parameters === 'full',
  });
  const last = results.at(-1);
  return {
    seconds: time,
    forward: last.forwardSeconds,
    backward: last.backwardSeconds,
    statistics: last.statisticsSeconds,
    optimizer: last.optimizerSeconds,
    tokens_per_second: Number(tokens) / time,
    flops_per_second: work / time,
    ...deviceBytes(on),
  };
}

/** The calls of a Voting step: three voters on one prompt, an aggregator that reads them. Groups as the run has them. */
function votingCalls(config, tasks) {
  const { episodes, voters, prompt, response, aggregator, decision } = STEPS.voting;
  const instructions = randomTokens(config, aggregator);
  const groups = [...Array.from({ length: voters }, (_, slot) => `voter/${slot}`), 'aggregator/0'];
  const calls = [];
  for (let task = 0; task < tasks; task++) {
    const question = randomTokens(config, prompt);
    for (let episode = 0; episode < episodes; episode++) {
      const votes = Array.from({ length: voters }, () => randomTokens(config, response));
      // Prompts that differ from their first token on, as where each role has a persona: no slot shares rows with another,
      // so that one group of all has the rows that a group for each has, wherever they are cut.
      const ofSlot = (slot) => Int32Array.from([1 + slot * tasks + task, ...question.subarray(1)]);
      votes.forEach((vote, slot) => {
        calls.push(trainCall(config, ofSlot(slot), vote, slot));
      });
      const read = [ofSlot(voters), ...votes, instructions];
      const all = Int32Array.from(read.flatMap((part) => [...part]));
      calls.push(trainCall(config, all, randomTokens(config, decision), voters));
    }
  }
  return { groups, calls };
}

async function observer(on, shape, parameters) {
  const { config, policy } = setUp(on, shape, parameters);
  const found = {};
  const { groups, calls } = votingCalls(config, 2);
  const asOne = calls.map((one) => ({ ...one, group: 0 }));
  for (const [name, bySlot, method] of [
    ['off', false, 'exact'],
    ['exact', true, 'exact'],
    ...(parameters === 'full' ? [['sketch', true, 'sketch']] : []),
  ]) {
    const step = bySlot ? [calls, groups] : [asOne, ['all']];
    const times = [];
    for (let i = 0; i < 4; i++) times.push(await update(on, policy, ...step, method));
    const last = times.at(-1);
    // Off is the step without the time of its one group's own statistics.
    const own = bySlot ? 0 : last.statisticsSeconds;
    found[name] = {
      seconds: median(times.slice(1).map((one) => one.seconds)) - own,
      rows: last.tokensComputed,
    };
  }
  const rows = Object.entries(found).map(([name, one]) => `${name}: ${one.rows}`);
  if (Object.values(found).some((one) => one.rows !== found.off.rows))
    throw new Error(`the steps to compare computed unlike numbers of rows (${rows.join(', ')})`);
  return { ...found, ...deviceBytes(on) };
}

/** An engine with a cache for the sequences given and 64 tokens more of each. */
function makeEngine({ measureProducts }, config, sequences, tokens) {
  const token = 4 * config.layers * config.kvHeads * config.headDim;
  return addon.createRolloutEngine(config, {
    cacheBytes: token * sequences * (tokens + 64),
    maxBatch: sequences,
    prefillTokens: 16384,
    seed: 1,
    deterministic: false,
    measureProducts,
  });
}

/** What this process has measured of recorded steps' products. */
function measuredProducts({ device }) {
  const kernels = addon.kernels(device.startsWith('cuda') ? 'cuda' : 'cpu');
  const products = kernels.measuredProducts();
  kernels.dispose();
  return products;
}

let requests = 0;
/** Completions of exactly `tokens` tokens, in the order of the prompts; `atStep` sees each step's end. */
function complete(engine, policy, prompts, tokens, atStep = () => {}) {
  const first = requests;
  for (const prompt of prompts) {
    engine.submit(completionRequest(policy.native, requests++, prompt, tokens));
  }
  const results = new Array(prompts.length);
  while (!engine.idle) {
    for (const result of engine.step()) {
      if (result.finish !== 'length') throw new Error(result.error ?? result.finish);
      results[result.id - first] = result;
    }
    atStep(engine.statistics());
  }
  return results;
}

function decode(on, shape, sequences, promptTokens = PROMPT, parameters = 'r16') {
  const { config, policy } = setUp(on, shape, parameters);
  const count = Number(sequences);
  const engine = makeEngine(on, config, count, Number(promptTokens) + 64);
  const prompts = Array.from({ length: count }, () => randomTokens(config, Number(promptTokens)));
  const tokens = 64;
  const round = () => {
    // Steps that decode every sequence and prefill nothing.
    const ends = [];
    complete(engine, policy, prompts, tokens, ({ running, waiting }) => {
      if (running === count && waiting === 0) ends.push(seconds());
    });
    const steady = ends.slice(8);
    return (steady.at(-1) - steady[0]) / (steady.length - 1);
  };
  round();
  const step = round();
  const {
    hiddenSize: h,
    intermediateSize: i,
    layers,
    heads,
    kvHeads,
    headDim: d,
    vocabularySize: v,
  } = config;
  const weights = 2 * (layers * (h * (heads + 2 * kvHeads) * d + heads * d * h + 3 * h * i) + v * h);
  const context = Number(promptTokens) + 8 + (tokens - 8) / 2;
  const cache = 4 * layers * kvHeads * d * context * count;
  return {
    step_seconds: step,
    tokens_per_second: count / step,
    bytes_a_step: weights + cache,
    replayed_steps: engine.statistics().replayedSteps,
    products: measuredProducts(on),
    ...deviceBytes(on),
  };
}

async function whole(on, step) {
  await step();
  const measured = [await step(), await step()];
  const time = Math.min(...measured.map((one) => one.seconds));
  return { ...measured.find((one) => one.seconds === time), ...deviceBytes(on) };
}

async function grpo(on, shape, parameters, prompts) {
  const { config, policy } = setUp(on, shape, parameters);
  const { episodes, prompt, response } = STEPS.grpo;
  const engine = makeEngine(on, config, Number(prompts) * episodes, prompt + response);
  return whole(on, async () => {
    const started = seconds();
    const questions = Array.from({ length: Number(prompts) }, () => randomTokens(config, prompt));
    const asked = questions.flatMap((question) => new Array(episodes).fill(question));
    const results = complete(engine, policy, asked, response);
    const generated = seconds();
    const calls = results.map(({ ids, logprobs }, k) => trainCall(config, asked[k], ids, 0, logprobs));
    const result = await update(on, policy, calls, ['generator/0']);
    return stepRow(started, generated, result);
  });
}

async function voting(on, shape, parameters, tasks) {
  const { config, policy } = setUp(on, shape, parameters);
  const { episodes, voters, prompt, response, aggregator, decision } = STEPS.voting;
  const longest = prompt + voters * response + aggregator + decision;
  const engine = makeEngine(on, config, Number(tasks) * episodes * voters, longest);
  const instructions = randomTokens(config, aggregator);
  const groups = [...Array.from({ length: voters }, (_, slot) => `voter/${slot}`), 'aggregator/0'];
  return whole(on, async () => {
    const started = seconds();
    const questions = Array.from({ length: Number(tasks) }, () => randomTokens(config, prompt));
    const asked = questions.flatMap((question) => new Array(episodes * voters).fill(question));
    const votes = complete(engine, policy, asked, response);
    const read = Array.from({ length: votes.length / voters }, (_, episode) => {
      const its = votes.slice(episode * voters, (episode + 1) * voters).map(({ ids }) => ids);
      return Int32Array.from([asked[episode * voters], ...its, instructions].flatMap((part) => [...part]));
    });
    const decisions = complete(engine, policy, read, decision);
    const generated = seconds();
    const calls = [
      ...votes.map(({ ids, logprobs }, k) => trainCall(config, asked[k], ids, k % voters, logprobs)),
      ...decisions.map(({ ids, logprobs }, k) => trainCall(config, read[k], ids, voters, logprobs)),
    ];
    const result = await update(on, policy, calls, groups);
    return stepRow(started, generated, result);
  });
}

function stepRow(started, generated, result) {
  const ended = seconds();
  return {
    seconds: ended - started,
    generation: generated - started,
    training: ended - generated,
    statistics: result.statisticsSeconds,
    tokens_seen: result.tokensSeen,
    tokens_computed: result.tokensComputed,
  };
}

export const CASES = { rates, train: trainCase, observer, decode, grpo, voting };
