/**
 * How far `troupe plan` is off: real steps on this CPU beside what is planned for them from its measured rates.
 *
 *     node bench/plan.mjs [--results FOLDER] [CASE …]
 *
 * Cases of two ranks are two processes that share the cores and meet over gloo.
 *
 * Models have random weights, which nearly never end a response early, so that every response has its longest length;
 * calls of advantage zero are trained too. The second and third step count. Memory is the most that tensors of 64 KiB
 * and more took (native/memory), which is what the plan counts. Needs `npm run build`.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { loadRunConfig } from '../build/js/config/load.js';
import { readModelConfig } from '../build/js/engine/configuration.js';
import { Engine } from '../build/js/engine/engine.js';
import { native } from '../build/js/engine/native.js';
import { writeRandomModel } from '../build/js/engine/random-model.js';
import { freePort } from '../build/js/engine/rank-place.js';
import { Ranks } from '../build/js/engine/ranks.js';
import { Tokenizer } from '../build/js/engine/tokenizer.js';
import { chatTokenizer } from '../build/js/learning/chat.js';
import { measuredCpu } from '../build/js/learning/plan/measured-cpu.js';
import { planStep } from '../build/js/learning/plan/planned-calls.js';
import { planOnDevice } from '../build/js/learning/plan/step-plan.js';
import { stepWork } from '../build/js/learning/plan/step-work.js';
import { setUp } from '../build/js/learning/setup.js';
import { runStep } from '../build/js/learning/steps.js';

const common = [
  'task.name=arithmetic',
  'learning.skipZeroAdvantage=false',
  'model.device=cpu',
  'rollout.promptsPerStep=2',
  'rollout.episodesPerPrompt=4',
];
const CASES = {
  'single, 135M, full, bf16': [
    'smollm2-135m',
    'model.dtype=bfloat16',
    'workflow.name=single',
    'rollout.sampling.maxTokens=96',
  ],
  'voting, 135M, LoRA r16, bf16': [
    'smollm2-135m',
    'model.dtype=bfloat16',
    'workflow.name=voting',
    'policies.defaults.parameters=lora',
    'rollout.sampling.maxTokens=64',
  ],
  'voting, 135M, full, shared, fp32': [
    'smollm2-135m',
    'model.dtype=float32',
    'workflow.name=voting',
    'policies.sharing=shared',
    'rollout.sampling.maxTokens=48',
  ],
  'voting, 0.6B, LoRA r16, bf16': [
    'qwen3-0.6b',
    'model.dtype=bfloat16',
    'workflow.name=voting',
    'policies.defaults.parameters=lora',
    'rollout.sampling.maxTokens=48',
  ],
};

const two = (name) => `${name}, 2 ranks`;
for (const name of ['voting, 135M, LoRA r16, bf16', 'voting, 135M, full, shared, fp32'])
  CASES[two(name)] = [...CASES[name], 'rollout.promptsPerStep=4'];

/** To try the benchmark out: by name only. */
const TINY = { tiny: ['troupe-0.3m', 'workflow.name=voting', 'rollout.sampling.maxTokens=8'] };
TINY[two('tiny')] = TINY.tiny;
const ranksOf = (name) => (name.endsWith(', 2 ranks') ? 2 : 1);

const caseOf = (name) => CASES[name] ?? TINY[name];

async function measure(name, [shape, ...settings], { rank, port, device }) {
  const folder = mkdtempSync(join(tmpdir(), 'troupe-plan-'));
  const size = ranksOf(name);
  const engine = new Engine({ threads: availableParallelism() / size });
  try {
    const model = join(folder, 'model');
    writeRandomModel(shape, model, { seed: 1, dtype: 'bfloat16' });
    native().releaseMemory();
    const { config } = loadRunConfig('default', [...common, ...settings, `model.path=${model}`]);
    const dtype = config.model.dtype;
    const step = await planStep(config, chatTokenizer(Tokenizer.load(model)), { devices: size });
    const plan = planOnDevice(stepWork(readModelConfig(model), config, step), device, dtype);
    const place = {
      rank,
      size,
      localRank: rank,
      localSize: size,
      host: '127.0.0.1',
      port,
      serve: rank === 0,
    };
    const started = { ...place, prefix: 'plan', restarts: 0, maxRestarts: 0 };
    const ranks = await Ranks.join(engine, started, { timeoutSeconds: 60 });
    const trainer = await setUp(engine, config, { trainable: true, ranks });
    const exchanged = async () => (await engine.send('statistics', null)).traffic ?? NO_TRAFFIC;
    const measured = [];
    for (let i = 0; i < 3; i++) {
      const before = await exchanged();
      const started = performance.now();
      const record = await runStep(trainer, i, { onEpisodes: () => {} });
      const seconds = (performance.now() - started) / 1000;
      const after = await exchanged();
      const exchange = {
        exchange: after.seconds - before.seconds,
        exchangedBytes: after.bytes - before.bytes,
      };
      measured.push({ seconds, ...timesOf(record), ...exchange });
    }
    await trainer.task.close();
    const { cacheTokens } = await engine.send('statistics', null);
    await ranks.leave();
    const memory = native().memory().peak;
    const part = (prefix) =>
      plan.phases.filter((one) => prefix.test(one.name)).reduce((sum, one) => sum + one.seconds, 0);
    const real = measured[1].seconds < measured[2].seconds ? measured[1] : measured[2];
    return {
      case: name,
      rates: { flops: device.flops[dtype], bandwidth: device.bandwidth, links: device.links },
      planned: {
        seconds: plan.seconds,
        rollout: part(/prefill|decode/),
        training: part(/training|update|exchange/),
        exchangedBytes: plan.exchanged.bytes,
        cacheTokens: plan.cacheTokens.planned,
        bytes: plan.memory.peak,
        parts: plan.memory.parts,
        phases: plan.phases,
      },
      measured: { ...real, bytes: memory, cacheTokens },
    };
  } finally {
    await engine.close();
    rmSync(folder, { recursive: true });
  }
}

const NO_TRAFFIC = { seconds: 0, bytes: 0 };

function timesOf({ rolloutSeconds, trainSeconds, updates }) {
  const sum = (key) => updates.reduce((total, { result }) => total + result[key], 0);
  return {
    rollout: rolloutSeconds,
    training: trainSeconds,
    forward: sum('forwardSeconds'),
    backward: sum('backwardSeconds'),
    statistics: sum('statisticsSeconds'),
    optimizer: sum('optimizerSeconds'),
  };
}

function table(rows) {
  const line = (cells) => `| ${cells.join(' | ')} |`;
  const percent = (planned, real) => `${(100 * (planned / real - 1)).toFixed(0)} %`;
  const head = [
    'case',
    'step s, measured',
    'planned',
    'off by',
    'rollout',
    'planned',
    'training',
    'planned',
    'GB',
    'planned',
    'off by',
    'MB exchanged',
    'planned',
    'tokens of the cache',
    'planned',
  ];
  const body = rows.map(({ case: name, planned, measured }) => [
    name,
    measured.seconds.toFixed(2),
    planned.seconds.toFixed(2),
    percent(planned.seconds, measured.seconds),
    measured.rollout.toFixed(2),
    planned.rollout.toFixed(2),
    measured.training.toFixed(2),
    planned.training.toFixed(2),
    (measured.bytes / 1e9).toFixed(2),
    (planned.bytes / 1e9).toFixed(2),
    percent(planned.bytes, measured.bytes),
    (measured.exchangedBytes / 1e6).toFixed(1),
    (planned.exchangedBytes / 1e6).toFixed(1),
    measured.cacheTokens,
    planned.cacheTokens,
  ]);
  return [line(head), line(head.map(() => '---')), ...body.map(line)].join('\n');
}

const { values: options, positionals: chosen } = parseArgs({
  allowPositionals: true,
  options: {
    one: { type: 'string' },
    place: { type: 'string', default: '' },
    rates: { type: 'string' },
    results: { type: 'string', default: join(dirname(fileURLToPath(import.meta.url)), 'results') },
  },
});
/** What a program of this file prints last, as JSON. */
function child(args, ranks) {
  const threads = String(availableParallelism() / ranks);
  const started = spawn(process.execPath, [process.argv[1], ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, OMP_NUM_THREADS: threads },
  });
  let out = '';
  started.stdout.on('data', (data) => {
    out += data;
  });
  return once(started, 'close').then(([code]) => {
    if (code !== 0) throw new Error(`${args.join(' ')}: exit code ${code}`);
    return JSON.parse(out.trimEnd().split('\n').at(-1));
  });
}

const dtypeOf = (name) =>
  caseOf(name)
    .find((setting) => setting.startsWith('model.dtype='))
    ?.slice(12) ?? 'float32';

/** A process for each rank and case: peaks of memory do not mix. */
async function run(name) {
  const ranks = ranksOf(name);
  const device = await child(['--rates', `${dtypeOf(name)} ${ranks}`], ranks);
  const port = await freePort();
  const place = (rank) => JSON.stringify({ rank, port, device });
  const started = Array.from({ length: ranks }, (_, rank) =>
    child(['--one', name, '--place', place(rank)], ranks),
  );
  const [first] = await Promise.all(started);
  return first;
}

if (options.rates !== undefined) {
  const [dtype, ranks] = options.rates.split(' ');
  console.log(JSON.stringify(await measuredCpu(dtype, Number(ranks))));
} else if (options.one !== undefined) {
  console.log(JSON.stringify(await measure(options.one, caseOf(options.one), JSON.parse(options.place))));
} else {
  const rows = [];
  for (const name of chosen.length > 0 ? chosen : Object.keys(CASES)) {
    if (caseOf(name) === undefined)
      throw new Error(`there is no case "${name}": ${Object.keys(CASES).join('; ')}`);
    rows.push(await run(name));
    // What is measured is not lost with what comes after it.
    console.error(table(rows.slice(-1)).split('\n').at(-1));
  }
  mkdirSync(options.results, { recursive: true });
  writeFileSync(join(options.results, 'plan.json'), `${JSON.stringify(rows, undefined, 2)}\n`);
  console.log(table(rows));
}
