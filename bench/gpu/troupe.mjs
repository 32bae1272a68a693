/**
 * Troupe at published shapes with random weights, on one GPU; the cases are those of peer.py:
 *
 *     node bench/gpu/troupe.mjs CASE... [--out FILE] [--device cuda:0] [--until SECONDS] [--usual-products]
 *
 *     rates                            what products and copies of this device allow
 *     train:SHAPE:PARAMETERS:TOKENS    forward, backward, statistics and AdamW over sequences of 512 tokens
 *     observer:SHAPE:PARAMETERS        one voting batch, gradients measured by role and slot, and as one group
 *     decode:SHAPE:SEQUENCES[:PROMPT[:PARAMETERS]]   decode steps after prompts of 256 tokens, or PROMPT, with r16
 *     grpo:SHAPE:PARAMETERS:PROMPTS    a whole step: samples, random rewards, one update
 *     voting:SHAPE:PARAMETERS:TASKS    the same of the Voting workflow (steps.json beside this file)
 *
 * With --usual-products no product of a recorded step is measured. A row of decoding says what was: `products`, microseconds.
 *
 * SHAPE is 0.6b, 1.7b, 4b (Qwen3) or tiny, PARAMETERS full, r16, r64 …. Everything runs in this process through the
 * engine's own parts, without weights on disk. Each row is written as it is measured: one JSON object a line.
 */
import { execFileSync } from 'node:child_process';
import { appendFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { addon, CASES, seconds } from './troupe-cases.mjs';

const { values: options, positionals: cases } = parseArgs({
  allowPositionals: true,
  options: {
    out: { type: 'string' },
    device: { type: 'string', default: 'cuda:0' },
    until: { type: 'string', default: 'Infinity' },
    'usual-products': { type: 'boolean', default: false },
    'micro-batch-rows': { type: 'string', default: '8192' },
  },
});
const { device } = options;

function write(row) {
  const line = `${JSON.stringify(row)}\n`;
  process.stdout.write(line);
  if (options.out !== undefined) appendFileSync(options.out, line);
}

const on = {
  device,
  microBatchRows: Number(options['micro-batch-rows']),
  measureProducts: !options['usual-products'],
};

async function main() {
  const [one] = cases;
  if (cases.length === 1) {
    const [name, ...rest] = one.split(':');
    if (CASES[name] === undefined)
      throw new Error(`there is no case "${name}": ${Object.keys(CASES).join(', ')}`);
    write({
      program: 'Troupe',
      libtorch: addon.torchVersion,
      case: one,
      device,
      ...(await CASES[name](on, ...rest)),
    });
    return;
  }
  // A process for each: what one leaves on the device is no other's.
  const started = seconds();
  for (const name of cases) {
    const left = Number(options.until) - (seconds() - started);
    if (left < 3) {
      write({ program: 'Troupe', case: name, device, error: 'not run: no time left' });
      continue;
    }
    const args = process.argv.slice(1).filter((argument) => !cases.includes(argument));
    try {
      execFileSync(process.execPath, [...args, name], {
        stdio: ['ignore', 'inherit', 'pipe'],
        encoding: 'utf8',
        ...(left === Number.POSITIVE_INFINITY ? {} : { timeout: Math.ceil(left * 1000) }),
      });
    } catch (error) {
      const why =
        error.code === 'ETIMEDOUT' ? 'stopped: no time left' : String(error.stderr ?? error).slice(-600);
      write({ program: 'Troupe', case: name, device, error: why });
    }
  }
}

await main();
