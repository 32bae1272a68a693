/**
 * What a second rank is worth: steps of Voting on SmolLM2-135M-Instruct by one rank of one thread and by two of one
 * thread each, in turn, on this machine (docs/distributed.md). Beside them the most that any division can reach here: as
 * many runs of one rank at the same time, each with its part of the problems, which never wait for each other.
 *
 *     node bench/ranks.mjs [--ranks 2] [--problems 8] [--episodes 4] [--rounds 2] [--set KEY=VALUE …] [--model NAME]
 *         [--results FOLDER]
 *
 * Each is `troupe train` itself with OMP_NUM_THREADS=1, LoRA, problems of the arithmetic task that both runs sample alike.
 * Times are rank 0's from the stream `timings`, medians over all steps but each run's first. Needs `npm run build`, and a
 * core for every rank that nobody else uses.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { streamPath } from '../build/js/streams/stream-files.js';
import { readStream } from '../build/js/streams/stream-reader.js';

const here = dirname(fileURLToPath(import.meta.url));
const main = join(here, '..', 'build', 'js', 'cli', 'main.js');
const { values: options } = parseArgs({
  options: {
    ranks: { type: 'string', default: '2' },
    rounds: { type: 'string', default: '2' },
    problems: { type: 'string', default: '8' },
    episodes: { type: 'string', default: '4' },
    model: { type: 'string', default: 'smollm2-135m' },
    set: { type: 'string', multiple: true, default: [] },
    results: { type: 'string', default: join(here, 'results') },
  },
});

const settings = [
  'steps=3',
  `model.path=${options.model}`,
  'model.dtype=bfloat16',
  'task.name=arithmetic',
  'task.style=words',
  'workflow.name=voting',
  'workflow.prompts=short',
  'policies.sharing=isolated',
  'policies.defaults.parameters=lora',
  'rollout.sampling.maxTokens=32',
  'learning.skipZeroAdvantage=false',
  'evaluation.every=0',
  'evaluation.problems=1',
  'evaluation.greedy=false',
  'checkpoints.every=0',
  'checkpoints.keepBest=false',
  ...options.set,
];

const problems = Number(options.problems);
const episodes = Number(options.episodes);

/** The steps' timings of a run of `count` problems a step, the first left out. */
async function steps(ranks, count, seed = 0) {
  const folder = mkdtempSync(join(tmpdir(), 'troupe-ranks-'));
  try {
    const run = join(folder, 'run');
    const launch = ranks > 1 ? ['--ranks', String(ranks)] : [];
    const size = [`rollout.promptsPerStep=${count}`, `rollout.episodesPerPrompt=${episodes}`, `seed=${seed}`];
    const set = [...settings, ...size].flatMap((setting) => ['--set', setting]);
    const child = spawn(process.execPath, [main, 'train', '--run', run, ...launch, ...set], {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: { ...process.env, OMP_NUM_THREADS: '1' },
    });
    const [code] = await once(child, 'exit');
    if (code !== 0) throw new Error(`troupe train ended with ${code}`);
    const rows = readStream(streamPath(run, 'timings')).table.toArray();
    return rows.slice(1).map((row) => ({ ...row.toJSON() }));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function median(rows, column) {
  const values = rows.map((row) => Number(row[column])).sort((a, b) => a - b);
  return (values[(values.length - 1) >> 1] + values[values.length >> 1]) / 2;
}

const COLUMNS = [
  'total_seconds',
  'processor_seconds',
  'rollout_seconds',
  'forward_seconds',
  'backward_seconds',
  'optimizer_seconds',
  'statistics_seconds',
  'communication_seconds',
  'waiting_seconds',
  'communication_bytes',
  'decode_tokens',
  'problems_taken_over',
  'taken_over_seconds',
];
const count = Number(options.ranks);
if (problems % count !== 0) throw new Error(`--problems ${problems} does not divide among ${count}`);
/** Each side's name, and how it makes its steps. */
const sides = {
  'one rank': () => steps(1, problems),
  [`${count} ranks`]: () => steps(count, problems),
  [`${count} runs apart`]: async () => {
    const apart = Array.from({ length: count }, (_, i) => steps(1, problems / count, i));
    return (await Promise.all(apart)).flat();
  },
};
const measured = new Map(Object.keys(sides).map((name) => [name, []]));
for (let round = 0; round < Number(options.rounds); round++)
  for (const [name, make] of Object.entries(sides)) measured.get(name).push(...(await make()));

const rows = [...measured].map(([side, its]) => ({
  side,
  steps: its.length,
  ...Object.fromEntries(COLUMNS.map((column) => [column, median(its, column)])),
}));
const [one, several, apart] = rows;
const result = {
  settings: [...settings, `rollout.promptsPerStep=${problems}`, `rollout.episodesPerPrompt=${episodes}`],
  rows,
  speed: one.total_seconds / several.total_seconds,
  ceiling: one.total_seconds / apart.total_seconds,
};
mkdirSync(options.results, { recursive: true });
const file = join(options.results, `ranks-${problems}x${episodes}.json`);
writeFileSync(file, `${JSON.stringify(result, undefined, 2)}\n`);
const line = (cells) => `| ${cells.join(' | ')} |`;
const shown = ['side', 'steps', ...COLUMNS];
const cell = (value) => (typeof value === 'string' || Number.isInteger(value) ? value : value.toFixed(3));
console.log(
  [
    line(shown),
    line(shown.map(() => '---')),
    ...rows.map((row) => line(shown.map((name) => cell(row[name])))),
    `\n${several.side}: ${result.speed.toFixed(2)} × the speed of one; ${apart.side}: ${result.ceiling.toFixed(2)} ×.`,
  ].join('\n'),
);
