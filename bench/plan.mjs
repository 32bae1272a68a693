/**
 * How far `troupe plan` is off: real steps on this CPU beside what is planned for them from its measured rates.
 *
 *     node bench/plan.mjs [--results FOLDER] [CASE …]
 *
 * Models have random weights, which nearly never end a response early, so that every response has its longest length;
 * calls of advantage zero are trained too. The second and third step count. Memory is the most that tensors of 64 KiB
 * and more took (native/memory), which is what the plan counts. Needs `npm run build`.
 */

import { execFileSync } from 'node:child_process';
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
import { Tokenizer } from '../build/js/engine/tokenizer.js';
import { chatTokenizer } from '../build/js/learning/chat.js';
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

/** To try the benchmark out: by name only. */
const TINY = { tiny: ['troupe-0.3m', 'workflow.name=voting', 'rollout.sampling.maxTokens=8'] };

const caseOf = (name) => CASES[name] ?? TINY[name];

async function measure(name, [shape, ...settings]) {
  const folder = mkdtempSync(join(tmpdir(), 'troupe-plan-'));
  const engine = new Engine({ threads: availableParallelism() });
  try {
    const model = join(folder, 'model');
    writeRandomModel(shape, model, { seed: 1, dtype: 'bfloat16' });
    native().releaseMemory();
    const { config } = loadRunConfig('default', [...common, ...settings, `model.path=${model}`]);
    const dtype = config.model.dtype;
    const device = await engine.send('measureRates', { dtype });
    const step = await planStep(config, chatTokenizer(Tokenizer.load(model)));
    const plan = planOnDevice(stepWork(readModelConfig(model), config, step), device, dtype);
    const trainer = await setUp(engine, config, { trainable: true });
    const measured = [];
    for (let i = 0; i < 3; i++) {
      const started = performance.now();
      const record = await runStep(trainer, i, { onEpisodes: () => {} });
      measured.push({ seconds: (performance.now() - started) / 1000, ...timesOf(record) });
    }
    await trainer.task.close();
    const memory = native().memory().peak;
    const part = (prefix) =>
      plan.phases.filter((one) => prefix.test(one.name)).reduce((sum, one) => sum + one.seconds, 0);
    const real = measured[1].seconds < measured[2].seconds ? measured[1] : measured[2];
    return {
      case: name,
      rates: { flops: device.flops[dtype], bandwidth: device.bandwidth },
      planned: {
        seconds: plan.seconds,
        rollout: part(/prefill|decode/),
        training: part(/training|update/),
        bytes: plan.memory.peak,
        parts: plan.memory.parts,
        phases: plan.phases,
      },
      measured: { ...real, bytes: memory },
    };
  } finally {
    await engine.close();
    rmSync(folder, { recursive: true });
  }
}

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
  ]);
  return [line(head), line(head.map(() => '---')), ...body.map(line)].join('\n');
}

const { values: options, positionals: chosen } = parseArgs({
  allowPositionals: true,
  options: {
    one: { type: 'string' },
    results: { type: 'string', default: join(dirname(fileURLToPath(import.meta.url)), 'results') },
  },
});
if (options.one !== undefined) {
  console.log(JSON.stringify(await measure(options.one, caseOf(options.one))));
} else {
  // A process for each: peaks of memory do not mix.
  const rows = (chosen.length > 0 ? chosen : Object.keys(CASES)).map((name) => {
    if (caseOf(name) === undefined)
      throw new Error(`there is no case "${name}": ${Object.keys(CASES).join('; ')}`);
    const out = execFileSync(process.execPath, [process.argv[1], '--one', name], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, OMP_NUM_THREADS: String(availableParallelism()) },
    });
    return JSON.parse(out.trimEnd().split('\n').at(-1));
  });
  mkdirSync(options.results, { recursive: true });
  writeFileSync(join(options.results, 'plan.json'), `${JSON.stringify(rows, undefined, 2)}\n`);
  console.log(table(rows));
}
