/**
 * How far `troupe plan` is off: real steps on this CPU beside what is planned for them, part by part.
 *
 *     node bench/plan.mjs [--results FOLDER] [CASE …]
 *
 * Each case makes real steps, and then plans one from what the command measures of the engine (`--device cpu`), with
 * the real one's responses. Of the three steps after the first the one of median time counts; of the embedded models, whose
 * rollouts are mostly JavaScript and take half as long once it is compiled, of the fifteen after the ninth. Cases of two ranks are two processes that share the cores and meet over gloo. Models but the embedded ones have random weights, which nearly never end a
 * response early; calls of advantage zero are trained too. Memory is the most that tensors of 64 KiB and more took
 * (native/memory), during the rollout with the cache beside them, which is what the plan counts. Voting of 135M with LoRA (one and two ranks) and of
 * 0.3M were looked at while the probes were made; the other cases were held out. Needs `npm run build`, and a machine that
 * does nothing else.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { loadRunConfig } from '../build/js/config/load.js';
import { packageRoot } from '../build/js/config/package.js';
import { readModelConfig } from '../build/js/engine/configuration.js';
import { Engine } from '../build/js/engine/engine.js';
import { native } from '../build/js/engine/native.js';
import { writeRandomModel } from '../build/js/engine/random-model.js';
import { freePort } from '../build/js/engine/rank-place.js';
import { Ranks } from '../build/js/engine/ranks.js';
import { Tokenizer } from '../build/js/engine/tokenizer.js';
import { chatTokenizer } from '../build/js/learning/chat.js';
import { measureCpu } from '../build/js/learning/plan/measured-cpu.js';
import { planStep } from '../build/js/learning/plan/planned-calls.js';
import { configJson } from '../build/js/learning/plan/probe-model.js';
import { planOnCpu } from '../build/js/learning/plan/step-plan.js';
import { stepWork } from '../build/js/learning/plan/step-work.js';
import { CPU_LEVELS } from '../build/js/learning/plan/tree-rows.js';
import { setUp } from '../build/js/learning/setup.js';
import { runStep } from '../build/js/learning/steps.js';

const common = [
  'task.name=arithmetic',
  'learning.skipZeroAdvantage=false',
  'model.device=cpu',
  'rollout.promptsPerStep=2',
  'rollout.episodesPerPrompt=4',
];
const bf16 = 'model.dtype=bfloat16';
const fp32 = 'model.dtype=float32';
const lora = 'policies.defaults.parameters=lora';
const shared = 'policies.sharing=shared';
const tokens = (count) => `rollout.sampling.maxTokens=${count}`;
const workflow = (name) => `workflow.name=${name}`;
const CASES = {
  'single, 135M, full, bf16': ['smollm2-135m', bf16, workflow('single'), tokens(96)],
  'voting, 135M, LoRA, bf16': ['smollm2-135m', bf16, workflow('voting'), lora, tokens(64)],
  'voting, 135M, full, shared, fp32': ['smollm2-135m', fp32, workflow('voting'), shared, tokens(48)],
  'voting, 135M, LoRA, bf16, 2 ranks': [
    ...['smollm2-135m', bf16, workflow('voting'), lora, tokens(64)],
    'rollout.promptsPerStep=4',
  ],
  'eval-opt, 135M, LoRA, bf16': ['smollm2-135m', bf16, workflow('eval-opt'), lora, tokens(48)],
  'orch-workers, 135M, LoRA, fp32': ['smollm2-135m', fp32, workflow('orch-workers'), lora, tokens(32)],
  'voting, 135M, LoRA, shared, bf16': ['smollm2-135m', bf16, workflow('voting'), lora, shared, tokens(64)],
  'voting, 135M, full, shared, fp32, 2 ranks': [
    ...['smollm2-135m', fp32, workflow('voting'), shared, tokens(32)],
    'rollout.promptsPerStep=4',
  ],
  'voting, 0.3M embedded, full, fp32': [
    ...['troupe-0.3m', fp32, workflow('voting'), tokens(24)],
    ...['rollout.promptsPerStep=16', 'rollout.episodesPerPrompt=8'],
  ],
  'eval-opt, 1M embedded, full, fp32, 2 ranks': [
    ...['troupe-1m', fp32, workflow('eval-opt'), tokens(24)],
    ...['rollout.promptsPerStep=16', 'rollout.episodesPerPrompt=8'],
  ],
  'voting, 0.6B, LoRA, bf16': ['qwen3-0.6b', bf16, workflow('voting'), lora, tokens(32)],
};
/** To try the benchmark out: by name only. */
const TINY = {
  tiny: ['troupe-0.3m', workflow('voting'), tokens(8)],
  'tiny, 2 ranks': ['troupe-0.3m', workflow('voting'), tokens(8)],
};
const caseOf = (name) => CASES[name] ?? TINY[name];
/** Real steps: those that meet code and shapes for the first times, and an odd number that count. */
const stepsOf = (name) =>
  caseOf(name)[0].startsWith('troupe-') ? { first: 9, counted: 15 } : { first: 1, counted: 3 };
const ranksOf = (name) => (name.endsWith(', 2 ranks') ? 2 : 1);

/** The embedded model of that name, or one of random weights in a folder that lasts as long as the case. */
function modelOf(shape, temporary) {
  if (shape.startsWith('troupe-')) return join(packageRoot(), 'models', shape);
  const folder = join(temporary, shape);
  if (!existsSync(folder)) writeRandomModel(shape, folder, { seed: 1, dtype: 'bfloat16' });
  return folder;
}

function configOf(name, folder) {
  const [, ...settings] = caseOf(name);
  return loadRunConfig('default', [...common, ...settings, `model.path=${folder}`]).config;
}

/** Steps of a rank. */
async function real({ name, folder, rank, port }) {
  const config = configOf(name, folder);
  const size = ranksOf(name);
  const engine = new Engine({ threads: availableParallelism() / size });
  try {
    const place = {
      rank,
      size,
      localRank: rank,
      localSize: size,
      host: '127.0.0.1',
      port,
      serve: rank === 0,
    };
    const started = { ...place, prefix: 'plan', restarts: 0, maxRestarts: 0, nccl: false };
    const ranks = await Ranks.join(engine, started, { timeoutSeconds: 60 });
    const trainer = await setUp(engine, config, { trainable: true, ranks });
    const exchanged = async () => (await engine.send('statistics', null)).traffic ?? NO_TRAFFIC;
    const memory = watchMemory(engine);
    const measured = [];
    const { first, counted } = stepsOf(name);
    for (let i = 0; i < first + counted; i++) {
      const before = await exchanged();
      memory.begin();
      const started = performance.now();
      const record = await runStep(trainer, i, { onEpisodes: () => {} });
      const seconds = (performance.now() - started) / 1000;
      const after = await exchanged();
      const exchange = after.seconds - before.seconds;
      measured.push({
        seconds,
        ...timesOf(record, exchange),
        exchangedBytes: after.bytes - before.bytes,
        responses: responsesOf(record, size),
        ...memory.taken(),
      });
    }
    await trainer.task.close();
    const { cacheTokens } = await engine.send('statistics', null);
    await ranks.leave();
    const all = measured.map(({ seconds }) => seconds);
    const inOrder = measured.slice(first).sort((a, b) => a.seconds - b.seconds);
    return { ...inOrder[counted >> 1], all, cacheTokens };
  } finally {
    await engine.close();
  }
}

/** What the first rank's roles said, in about the order in which a step asks them: turn by turn. */
function responsesOf({ episodes }, ranks) {
  const own = episodes.filter(({ problemIndex }) => problemIndex % ranks === 0);
  const calls = own.flatMap(({ calls }) => calls).sort((a, b) => a.turn - b.turn);
  const responses = {};
  for (const { role, completion } of calls) {
    responses[role] ??= [];
    responses[role].push([...completion.ids]);
  }
  return responses;
}

/** Most bytes of a step's rollout, tensors and cache, and of all; the cache's memory is no tensor's of the allocator. */
function watchMemory(engine) {
  let rollout = 0;
  const begin = () => {
    rollout = 0;
    native().resetPeakMemory('cpu');
  };
  const send = engine.send.bind(engine);
  engine.send = async (command, ...rest) => {
    // A rollout ends with it.
    if (command === 'clearCache') {
      const { cacheBytes } = await send('statistics', null);
      rollout = Math.max(rollout, native().deviceMemory('cpu').used + cacheBytes);
    }
    return await send(command, ...rest);
  };
  const taken = () => ({
    bytes: Math.max(rollout, native().deviceMemory('cpu').peak),
    rolloutBytes: rollout,
  });
  return { begin, taken };
}

const NO_TRAFFIC = { seconds: 0, bytes: 0 };

function timesOf({ rolloutSeconds, trainSeconds, updates }, exchange) {
  const sum = (key) => updates.reduce((total, { result }) => total + result[key], 0);
  const parts = {
    forward: sum('forwardSeconds'),
    backward: sum('backwardSeconds'),
    statistics: sum('statisticsSeconds'),
    optimizer: sum('optimizerSeconds'),
    exchange,
  };
  const rest = trainSeconds - Object.values(parts).reduce((total, seconds) => total + seconds);
  return { rollout: rolloutSeconds, ...parts, rest };
}

const PARTS = {
  rollout: /^(rollout|episodes|messages|prefill|decode|packing)/,
  forward: /^forward/,
  backward: /^backward/,
  statistics: /^statistics/,
  optimizer: /^optimizer/,
  exchange: /^(exchange|records)/,
  rest: /^accumulators/,
};

async function planned({ name, folder, responses }) {
  const config = configOf(name, folder);
  const size = ranksOf(name);
  const chat = chatTokenizer(Tokenizer.load(folder));
  const given = Object.entries(responses).map(([role, all]) => [
    role,
    all.map((ids) => Int32Array.from(ids)),
  ]);
  const step = await planStep(config, chat, {
    devices: size,
    responses: () => Object.fromEntries(given),
    clock: () => performance.now() / 1000,
  });
  const shape = readModelConfig(folder);
  const work = stepWork(shape, config, step, CPU_LEVELS);
  const started = performance.now();
  const model = { json: configJson(folder), layers: shape.layers, folder };
  const machine = await measureCpu(config, model, { step, work }, size);
  const measuring = (performance.now() - started) / 1000;
  const plan = planOnCpu(work, machine);
  const part = (pattern) =>
    plan.phases.filter((one) => pattern.test(one.name)).reduce((sum, one) => sum + one.seconds, 0);
  return {
    measuring,
    seconds: plan.seconds,
    ...Object.fromEntries(Object.entries(PARTS).map(([key, pattern]) => [key, part(pattern)])),
    exchangedBytes: plan.exchanged.bytes,
    cacheTokens: plan.cacheTokens.planned,
    bytes: plan.memory.peak,
    memory: plan.memory.parts,
    phases: plan.phases,
    machine,
  };
}

function table(rows) {
  const line = (cells) => `| ${cells.join(' | ')} |`;
  const percent = (plan, measured) =>
    `${plan < measured ? '−' : '+'}${Math.abs(100 * (plan / measured - 1)).toFixed(0)} %`;
  const parts = Object.keys(PARTS);
  const head = [
    'case',
    'GB',
    'planned',
    's a step',
    'planned',
    ...parts,
    'MB exchanged',
    'tokens of the cache',
  ];
  const body = rows.map(({ case: name, planned: plan, measured }) => {
    const both = (key, digits, unit = 1) =>
      `${(measured[key] / unit).toFixed(digits)} / ${(plan[key] / unit).toFixed(digits)}`;
    return [
      name,
      (measured.bytes / 1e9).toFixed(2),
      `${(plan.bytes / 1e9).toFixed(2)} (${percent(plan.bytes, measured.bytes)})`,
      measured.seconds.toFixed(2),
      `${plan.seconds.toFixed(2)} (${percent(plan.seconds, measured.seconds)})`,
      ...parts.map((key) => both(key, 2)),
      both('exchangedBytes', 1, 1e6),
      both('cacheTokens', 0),
    ];
  });
  return [line(head), line(head.map(() => '---')), ...body.map(line)].join('\n');
}

const { values: options, positionals: chosen } = parseArgs({
  allowPositionals: true,
  options: {
    real: { type: 'string' },
    plan: { type: 'string' },
    results: { type: 'string', default: join(dirname(fileURLToPath(import.meta.url)), 'results') },
  },
});

/** What a program of this file prints last, as JSON. A process for each rank and case: peaks of memory do not mix. */
function child(what, argument, ranks) {
  const threads = String(availableParallelism() / ranks);
  const started = spawn(process.execPath, [process.argv[1], what, JSON.stringify(argument)], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, OMP_NUM_THREADS: threads },
  });
  let out = '';
  started.stdout.on('data', (data) => {
    out += data;
  });
  return once(started, 'close').then(([code]) => {
    if (code !== 0) throw new Error(`${what}: exit code ${code}`);
    return JSON.parse(out.trimEnd().split('\n').at(-1));
  });
}

async function run(name, temporary) {
  const ranks = ranksOf(name);
  const folder = modelOf(caseOf(name)[0], temporary);
  const port = await freePort();
  const [measured] = await Promise.all(
    Array.from({ length: ranks }, (_, rank) => child('--real', { name, folder, rank, port }, ranks)),
  );
  const { responses, ...rest } = measured;
  return { case: name, measured: rest, planned: await child('--plan', { name, folder, responses }, ranks) };
}

if (options.real !== undefined) {
  console.log(JSON.stringify(await real(JSON.parse(options.real))));
} else if (options.plan !== undefined) {
  console.log(JSON.stringify(await planned(JSON.parse(options.plan))));
} else {
  const temporary = mkdtempSync(join(tmpdir(), 'troupe-plan-'));
  const rows = [];
  try {
    for (const name of chosen.length > 0 ? chosen : Object.keys(CASES)) {
      if (caseOf(name) === undefined)
        throw new Error(`there is no case "${name}": ${Object.keys(CASES).join('; ')}`);
      rows.push(await run(name, temporary));
      // What is measured is not lost with what comes after it.
      console.error(table(rows.slice(-1)).split('\n').at(-1));
      mkdirSync(options.results, { recursive: true });
      writeFileSync(join(options.results, 'plan.json'), `${JSON.stringify(rows, undefined, 2)}\n`);
    }
  } finally {
    rmSync(temporary, { recursive: true });
  }
  console.log(table(rows));
}
