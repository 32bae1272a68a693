/**
 * What role gradients cost: training steps of one voting batch (forward, backward, statistics, optimizer) with
 * statistics off, by role, and by role and slot, and the naive way, one backward pass for each group.
 *
 *     node bench/statistics.mjs [--shape smollm2-135m] [--parameters lora|full] [--rounds 5] [--threads N]
 *
 * LoRA is measured exactly, full parameters by sketches. The variants take turns in one process on one batch; each turn
 * is two steps, of which the second counts, since the first makes room for other groups. Off is the step with one
 * group, without the time of that group's own statistics. Needs `npm run build`.
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Engine } from '../build/js/engine/engine.js';
import { writeRandomModel } from '../build/js/engine/random-model.js';
import { SHAPES } from '../build/js/engine/shapes.js';
import { checkIdentity } from '../build/js/gradients/statistics.js';
import { builtInLoss } from '../build/js/learning/losses.js';
import { batchOf } from '../build/js/streams/batch.js';
import { gradientRows } from '../build/js/streams/gradient-rows.js';
import { TABLES } from '../build/js/streams/tables.js';

const { values: options } = parseArgs({
  options: {
    shape: { type: 'string', default: 'smollm2-135m' },
    parameters: { type: 'string', default: 'lora' },
    prompts: { type: 'string', default: 'own' },
    'micro-batch-rows': { type: 'string', default: '8192' },
    // Fewer layers of a shape that is too large: what a row costs in each stays as it is.
    layers: { type: 'string' },
    rounds: { type: 'string', default: '5' },
    threads: { type: 'string', default: String(availableParallelism()) },
    problems: { type: 'string', default: '4' },
    samples: { type: 'string', default: '4' },
    'prompt-tokens': { type: 'string', default: '64' },
    'response-tokens': { type: 'string', default: '96' },
    results: { type: 'string', default: join(dirname(fileURLToPath(import.meta.url)), 'results') },
  },
});
const number = (name) => Number(options[name]);
const SLOTS = 3;
const shared = options.prompts === 'shared';
const sketching = options.parameters === 'full';

/** One problem's calls: three voters on one prompt, and an aggregator that reads what they said. */
function batch(vocabulary) {
  const random = (length) => Int32Array.from({ length }, () => 2 + ((Math.random() * (vocabulary - 2)) | 0));
  const length = number('response-tokens');
  const instruction = random(16);
  const calls = [];
  for (let problem = 0; problem < number('problems'); problem++) {
    const prompt = random(number('prompt-tokens'));
    // Own prompts differ from their first token on, as where each voter has a persona: no slot shares rows.
    const promptOf = (slot) => (shared ? prompt : Int32Array.from([2 + slot, ...prompt.subarray(1)]));
    for (let sample = 0; sample < number('samples'); sample++) {
      const votes = Array.from({ length: SLOTS }, () => random(length));
      for (const [slot, response] of votes.entries())
        calls.push({ role: 'voter', slot, prompt: promptOf(slot), response });
      const all = Int32Array.from([instruction, prompt, ...votes].flatMap((part) => [...part]));
      calls.push({ role: 'aggregator', slot: 0, prompt: all, response: random(16) });
    }
  }
  const tokens = calls.reduce((sum, { response }) => sum + response.length, 0);
  return calls.map((call) => ({
    ...call,
    rolloutLogprobs: new Float32Array(call.response.length).fill(-Math.log(vocabulary)),
    temperature: 1,
    advantage: Math.random() - 0.5,
    weight: 1 / tokens,
  }));
}

const GROUPINGS = {
  off: { keys: [], nameOf: () => 'all' },
  role: { keys: ['role'], nameOf: ({ role }) => role },
  'role, slot': { keys: ['role', 'slot'], nameOf: ({ role, slot }) => `${role}/${slot}` },
};

/** Seconds of one step, and of its parts. `only`: the calls of one group, without an update. */
async function step(engine, calls, { keys, nameOf }, only) {
  const groups = [...new Set(calls.map(nameOf))];
  const chosen = only === undefined ? calls : calls.filter((call) => nameOf(call) === only);
  const started = performance.now();
  const result = await engine.send('train', {
    policy: 'policy',
    calls: chosen.map((call) => ({ ...call, group: only === undefined ? groups.indexOf(nameOf(call)) : 0 })),
    mismatchOnly: [],
    groups: only === undefined ? groups : [only],
    loss: await builtInLoss('grpo'),
    reference: false,
    learningRate: 1e-7,
    clipNorm: 1,
    microBatchRows: number('micro-batch-rows'),
    update: only === undefined,
    // One accumulator is exact without a sketch.
    statistics: {
      method: sketching && keys.length > 0 && only === undefined ? 'sketch' : 'exact',
      sketch: { replicates: 4, size: 'auto', seed: 0 },
    },
  });
  const trained = performance.now();
  if (result.skipped !== undefined) throw new Error(result.skipped);
  if (keys.length > 0 && only === undefined) rows(result, keys, groups);
  const ended = performance.now();
  return {
    seconds: (ended - started) / 1000,
    rows: (ended - trained) / 1000,
    forward: result.forwardSeconds,
    backward: result.backwardSeconds,
    statistics: result.statisticsSeconds,
    computed: result.tokensComputed,
    extra: result.extraRows,
  };
}

/** What a run does with the statistics: rows of the stream's tables. */
function rows(result, keys, groups) {
  const words = { roles: ['voter', 'aggregator'], policies: ['policy'] };
  checkIdentity(result.gradients, 'policy');
  const { gradients, pairs } = gradientRows({
    step: 0,
    update: 0,
    policy: 'policy',
    updates: 1,
    statistics: result.gradients,
    groups: groups.map((name) => {
      const [role, slot] = name.split('/');
      return { role, slot: keys.includes('slot') ? Number(slot) : null, turn: null };
    }),
    masses: groups.map(() => ({ calls: 1, tokens: 1, advantage: 1, weight: 1, zeroCalls: 0 })),
  });
  batchOf(TABLES.gradients, gradients, words);
  batchOf(TABLES.gradient_pairs, pairs, words);
}

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

async function measure(engine, calls) {
  const found = { off: [], role: [], 'role, slot': [], naive: [], 'naive, split': [] };
  const names = Object.keys(GROUPINGS);
  for (let round = 0; round < number('rounds'); round++) {
    for (let turn = 0; turn < names.length; turn++) {
      const name = names[(turn + round) % names.length];
      await step(engine, calls, GROUPINGS[name]);
      found[name].push(await step(engine, calls, GROUPINGS[name]));
    }
    found['naive, split'].push(await splitByGroup(engine, calls, GROUPINGS['role, slot']));
  }
  for (const [round, off] of found.off.entries()) {
    off.seconds -= off.statistics;
    // A graph that is kept: one forward pass, and a backward pass over all of it for each role.
    const others = off.seconds - off.forward - off.backward;
    found.naive.push({ ...off, seconds: off.forward + 2 * off.backward + others });
    found['naive, split'][round].seconds += others;
  }
  return found;
}

/** One forward and one backward pass for each group, over its own calls; no optimizer step. */
async function splitByGroup(engine, calls, grouping) {
  const parts = [];
  for (const name of new Set(calls.map(grouping.nameOf)))
    parts.push(await step(engine, calls, grouping, name));
  const sum = (key) => parts.reduce((total, part) => total + part[key], 0);
  return {
    seconds: sum('forward') + sum('backward'),
    computed: sum('computed'),
    extra: 0,
    statistics: 0,
    rows: 0,
  };
}

function tableOf(found) {
  const base = found.off;
  const computed = base[0].computed;
  const line = (cells) => `| ${cells.join(' | ')} |`;
  const describe = ([name, steps]) => {
    const ratio = median(steps.map(({ seconds }, i) => seconds / base[i].seconds));
    const share = (steps[0].computed - computed) / computed;
    return [
      name,
      median(steps.map(({ seconds }) => seconds)).toFixed(2),
      `${(100 * (ratio - 1)).toFixed(1)} %`,
      steps[0].computed,
      `${(100 * share).toFixed(1)} %`,
      `${(100 * (ratio / (1 + share) - 1)).toFixed(1)} %`,
      median(steps.map(({ statistics }) => statistics)).toFixed(3),
      median(steps.map((one) => one.rows)).toFixed(3),
    ];
  };
  const head = [
    'gradients by',
    's / step',
    'over off',
    'token rows',
    'extra rows',
    'over off, by row',
    'of it: statistics s',
    'table rows s',
  ];
  return [
    line(head),
    line(head.map(() => '---')),
    ...Object.entries(found).map((entry) => line(describe(entry))),
  ].join('\n');
}

const folder = mkdtempSync(join(tmpdir(), 'troupe-statistics-'));
process.env.OMP_NUM_THREADS = options.threads;
const engine = new Engine({ threads: number('threads') });
try {
  if (options.layers !== undefined) SHAPES[options.shape].num_hidden_layers = number('layers');
  writeRandomModel(options.shape, join(folder, 'model'), { seed: 0, dtype: 'bfloat16' });
  const { vocabularySize } = await engine.send('loadModel', {
    name: 'model',
    folder: join(folder, 'model'),
    dtype: 'bfloat16',
    device: 'cpu',
    rollout: { cacheBytes: 2 ** 20, maxBatch: 8, prefillTokens: 256, seed: 0, deterministic: false },
  });
  const { trainable } = await engine.send('createPolicy', {
    name: 'policy',
    model: 'model',
    parameters: sketching
      ? { kind: 'full' }
      : { kind: 'lora', rank: 16, alpha: 32, targets: ['q', 'k', 'v', 'o', 'gate', 'up', 'down'] },
    trainable: true,
    optimizer: { betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0 },
    seed: 0,
  });
  const calls = batch(vocabularySize);
  const found = await measure(engine, calls);
  const title = `${options.shape}${options.layers === undefined ? '' : `, ${options.layers} layers`}, ${sketching ? 'full parameters, sketched' : 'LoRA of rank 16, exact'}: ${trainable} parameters, ${calls.length} calls, ${options.threads} threads, ${cpus()[0]?.model}`;
  const text = `${title}\n\n${tableOf(found)}\n`;
  console.log(text);
  if (!existsSync(options.results)) mkdirSync(options.results, { recursive: true });
  const file = join(options.results, `statistics-${options.parameters}-${options.shape}`);
  writeFileSync(`${file}.md`, text);
  writeFileSync(`${file}.json`, `${JSON.stringify({ title, found }, undefined, 2)}\n`);
} finally {
  await engine.close();
  rmSync(folder, { recursive: true, force: true });
}
