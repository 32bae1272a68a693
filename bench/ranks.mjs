/**
 * What a second rank is worth: steps of Voting on SmolLM2-135M-Instruct by one rank of one thread and by two of one
 * thread each, in turn, on this machine (docs/distributed.md).
 *
 *     node bench/ranks.mjs [--ranks 2] [--rounds 2] [--set KEY=VALUE …] [--model NAME] [--results FOLDER]
 *
 * Each is `troupe train` itself with OMP_NUM_THREADS=1, LoRA, problems of the arithmetic task that both runs sample alike.
 * Times are rank 0's from the stream `timings`, medians over all steps but each run's first; where neighbours use the
 * cores, processor seconds and waiting say what a quiet machine would take. Needs `npm run build`, and a core for every rank.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { streamPath } from '../build/js/streams/run-streams.js';
import { readStream } from '../build/js/streams/stream-reader.js';

const here = dirname(fileURLToPath(import.meta.url));
const main = join(here, '..', 'build', 'js', 'cli', 'main.js');
const { values: options } = parseArgs({
  options: {
    ranks: { type: 'string', default: '2' },
    rounds: { type: 'string', default: '2' },
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
  'rollout.promptsPerStep=8',
  'rollout.episodesPerPrompt=4',
  'rollout.sampling.maxTokens=32',
  'learning.skipZeroAdvantage=false',
  'evaluation.every=0',
  'evaluation.problems=1',
  'evaluation.greedy=false',
  'checkpoints.every=0',
  'checkpoints.keepBest=false',
  ...options.set,
].flatMap((setting) => ['--set', setting]);

/** The steps' timings, the first left out. */
function steps(ranks) {
  const folder = mkdtempSync(join(tmpdir(), 'troupe-ranks-'));
  try {
    const run = join(folder, 'run');
    const launch = ranks > 1 ? ['--ranks', String(ranks)] : [];
    execFileSync(process.execPath, [main, 'train', '--run', run, ...launch, ...settings], {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: { ...process.env, OMP_NUM_THREADS: '1' },
    });
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
const sizes = [1, Number(options.ranks)];
const measured = new Map(sizes.map((size) => [size, []]));
for (let round = 0; round < Number(options.rounds); round++)
  for (const size of sizes) measured.get(size).push(...steps(size));

const rows = sizes.map((ranks) => ({
  ranks,
  steps: measured.get(ranks).length,
  ...Object.fromEntries(COLUMNS.map((column) => [column, median(measured.get(ranks), column)])),
}));
const [one, several] = rows;
const result = {
  settings: settings.filter((part) => part !== '--set'),
  rows,
  speed: one.total_seconds / several.total_seconds,
};
mkdirSync(options.results, { recursive: true });
writeFileSync(join(options.results, 'ranks.json'), `${JSON.stringify(result, undefined, 2)}\n`);
const line = (cells) => `| ${cells.join(' | ')} |`;
const shown = ['ranks', 'steps', ...COLUMNS];
const quiet = one.processor_seconds / (several.processor_seconds + several.waiting_seconds);
console.log(
  [
    line(shown),
    line(shown.map(() => '---')),
    ...rows.map((row) =>
      line(shown.map((name) => (Number.isInteger(row[name]) ? row[name] : row[name].toFixed(3)))),
    ),
    `\n${sizes[1]} ranks: ${result.speed.toFixed(2)} × the speed of one, ${quiet.toFixed(2)} × by processor time.`,
  ].join('\n'),
);
