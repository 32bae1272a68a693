/**
 * GRPO steps of Troupe and of TRL on the same machine, in turn, with the same model and the same response lengths:
 *
 *     node bench/grpo.mjs grpo-step|grpo-mixed [--steps 3] [--rounds 1] [--threads N] [--only troupe|trl]
 *         [--compute bfloat16|float32]
 *
 * Each side is a process of its own (trl_grpo.py, troupe-step.mjs) that prints JSON; this one draws the lengths,
 * measures the machine's rates, and writes bench/results/CASE.json and CASE.md. The first step of each process
 * warms up and is not counted.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const here = dirname(fileURLToPath(import.meta.url));

const CASES = {
  'grpo-step': { promptTokens: 64, longest: 128, lengthOf: () => 128 },
  'grpo-mixed': { promptTokens: 192, longest: 256, lengthOf: (draw) => geometric(draw, 64, 256) },
};
const PROMPTS = 4;
const SAMPLES = 8;

/** Number of trials up to the first success, with the mean given, cut at `longest`. */
function geometric(draw, mean, longest) {
  return Math.min(longest, 1 + Math.floor(Math.log(1 - draw()) / Math.log(1 - 1 / mean)));
}

/** Uniform in [0, 1), the same in every run: Park and Miller's generator. */
function uniform(seed) {
  let state = seed;
  return () => {
    state = (state * 48271) % 2147483647;
    return state / 2147483647;
  };
}

/** Standard output of a process; its standard error is shown. Rejects where it fails. */
function output(command, args, threads) {
  return new Promise((resolve, reject) => {
    const environment = {
      ...process.env,
      OMP_NUM_THREADS: String(threads),
      MKL_NUM_THREADS: String(threads),
    };
    const child = spawn(command, args, { env: environment, stdio: ['ignore', 'pipe', 'inherit'] });
    let text = '';
    child.stdout.on('data', (chunk) => {
      text += chunk;
    });
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (code === 0) resolve(text);
      else reject(new Error(`${command} ${args[0]} ended with ${signal ?? code}`));
    });
  });
}

/** Other lines than the last may be a library's logging. */
const lastJson = (text) => JSON.parse(text.trimEnd().split('\n').at(-1));

const sum = (values) => values.reduce((total, value) => total + value, 0);
const mean = (values) => sum(values) / values.length;
function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** One side's processes together: medians over all counted steps. */
function summarise(results) {
  const steps = results.flatMap((result) => result.steps);
  const seen = mean(results.flatMap((result) => result.tokens_seen));
  const seconds = median(steps.map((step) => step.seconds));
  return {
    seconds,
    generation: median(steps.map((step) => step.generation)),
    training: median(steps.map((step) => step.training)),
    slowest: Math.max(...steps.map((step) => step.seconds)),
    fastest: Math.min(...steps.map((step) => step.seconds)),
    steps: steps.length,
    tokens_seen: seen,
    tokens_computed: mean(results.flatMap((result) => result.tokens_computed)),
    tokens_per_second: seen / seconds,
    peak_bytes: Math.max(...results.map((result) => result.peak_bytes)),
  };
}

function table(report) {
  const { machine, sides } = report;
  const number = (value, digits = 1) => value.toFixed(digits);
  const rows = Object.values(sides).map(({ program, summary }) => {
    const ratio =
      sides.trl === undefined ? '' : `${number(sides.trl.summary.seconds / summary.seconds, 2)} ×`;
    return [
      program,
      `${number(summary.seconds)} (${number(summary.fastest)} to ${number(summary.slowest)})`,
      number(summary.generation),
      number(summary.training),
      Math.round(summary.tokens_seen),
      Math.round(summary.tokens_computed),
      number(summary.tokens_per_second, 0),
      `${number(summary.peak_bytes / 2 ** 30)} GiB`,
      ratio,
    ];
  });
  const head = [
    'program',
    's / step (range)',
    'generation s',
    'training s',
    'tokens seen',
    'tokens computed',
    'tokens / s',
    'peak memory',
    'speed',
  ];
  const line = (cells) => `| ${cells.join(' | ')} |`;
  return [
    `# ${report.case}`,
    '',
    `${PROMPTS} prompts × ${SAMPLES} samples, ${report.prompt_tokens} prompt tokens, ` +
      `responses of ${report.shortest} to ${report.longest} tokens (mean ${number(report.mean_length)}), ` +
      `${report.shape}, full parameters in ${report.compute}, AdamW. Medians over ${report.steps} steps in each of ` +
      `${report.rounds} processes of each program, taken in turn.`,
    '',
    line(head),
    line(head.map(() => '---')),
    ...rows.map(line),
    '',
    `Machine: ${machine.processor}, ${machine.threads} threads, ${machine.cpu_capability}; ` +
      `bf16 GEMM ${number(machine.bf16_gemm_flops / 1e9, 0)} GFLOP/s, ` +
      `fp32 GEMM ${number(machine.fp32_gemm_flops / 1e9, 0)} GFLOP/s, ` +
      `memory ${number(machine.read_bandwidth_bytes / 1e9)} GB/s. ${report.date}.`,
    '',
  ].join('\n');
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      steps: { type: 'string', default: '3' },
      rounds: { type: 'string', default: '1' },
      threads: { type: 'string', default: String(availableParallelism()) },
      only: { type: 'string' },
      compute: { type: 'string', default: 'bfloat16' },
      shape: { type: 'string', default: 'smollm2-135m' },
      'micro-batch': { type: 'string', default: '8' },
      results: { type: 'string', default: join(here, 'results') },
    },
  });
  const name = positionals[0] ?? '';
  const setting = CASES[name];
  if (setting === undefined) throw new Error(`give one of ${Object.keys(CASES).join(', ')}`);
  const [steps, rounds, threads] = [values.steps, values.rounds, values.threads].map(Number);

  const folder = mkdtempSync(join(tmpdir(), 'troupe-bench-'));
  try {
    const peers = (await output(join(here, 'peers', 'setup.sh'), [], threads)).trim();
    const python = join(peers, 'bin', 'python');
    const model = join(folder, 'model');
    await output(python, [join(here, 'peers', 'make_model.py'), model, '--shape', values.shape], threads);
    const draw = uniform(20260101);
    const lengths = Array.from({ length: steps + 1 }, () => {
      return Array.from({ length: PROMPTS * SAMPLES }, () => setting.lengthOf(draw));
    });
    const lengthsFile = join(folder, 'lengths.json');
    writeFileSync(lengthsFile, JSON.stringify(lengths));
    const common = ['--model', model, '--lengths', lengthsFile, '--prompts', PROMPTS, '--samples', SAMPLES];
    const sizes = [
      '--prompt-tokens',
      setting.promptTokens,
      '--threads',
      threads,
      '--compute',
      values.compute,
    ];
    const args = [...common, ...sizes].map(String);

    const machine = lastJson(
      await output(python, [join(here, 'peers', 'machine.py'), '--threads', threads], threads),
    );
    const trl = [join(here, 'peers', 'trl_grpo.py'), ...args, '--micro-batch', values['micro-batch']];
    const commands = {
      trl: [python, trl],
      troupe: [process.execPath, [join(here, 'troupe-step.mjs'), ...args]],
    };
    const chosen = Object.keys(commands).filter((side) => values.only === undefined || side === values.only);
    const results = Object.fromEntries(chosen.map((side) => [side, []]));
    for (let round = 0; round < rounds; round += 1) {
      for (const side of chosen) results[side].push(lastJson(await output(...commands[side], threads)));
    }

    const counted = lengths.slice(1).flat();
    const report = {
      case: name,
      date: new Date().toISOString().slice(0, 10),
      shape: values.shape,
      compute: values.compute,
      prompt_tokens: setting.promptTokens,
      shortest: Math.min(...counted),
      longest: Math.max(...counted),
      mean_length: mean(counted),
      steps,
      rounds,
      machine: { processor: cpus()[0]?.model, ...machine },
      sides: Object.fromEntries(
        chosen.map((side) => [
          side,
          { program: results[side][0].program, summary: summarise(results[side]), processes: results[side] },
        ]),
      ),
    };
    if (!existsSync(values.results)) mkdirSync(values.results, { recursive: true });
    writeFileSync(join(values.results, `${name}.json`), `${JSON.stringify(report, undefined, 2)}\n`);
    writeFileSync(join(values.results, `${name}.md`), table(report));
    process.stdout.write(table(report));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

main().catch((error) => {
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
});
