/**
 * Runs every benchmark at a tiny shape, so that none breaks unseen: what it prints is no measurement. Not run here: those
 * that need TRL (grpo.mjs) or libraries that are no dependency (algebra.mjs). The script for GPUs runs its tables on the CPU.
 * Needs `npm run build`.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from './process.mjs';

const bench = join(dirname(fileURLToPath(import.meta.url)), '..', 'bench');
const models = join(bench, '..', 'models');
const results = mkdtempSync(join(tmpdir(), 'troupe-benches-'));
const texts = join(results, 'texts.jsonl');
writeFileSync(texts, `${JSON.stringify({ question: '1+2', answer: '3' })}\n`);
const BENCHES = {
  'kernels.mjs': ['--tiny'],
  'decode.mjs': [
    ...['--shape', 'tiny', '--sequences', '4', '--prompt-tokens', '8', '--max-tokens', '4', '--rounds', '1'],
    ...['--adapters', '2', '--rank', '4'],
  ],
  'statistics.mjs': [
    ...[
      '--shape',
      'troupe-0.3m',
      '--rounds',
      '1',
      '--problems',
      '1',
      '--samples',
      '2',
      '--prompt-tokens',
      '4',
    ],
    ...['--response-tokens', '4', '--results', results],
  ],
  'data-files.mjs': ['--tiny'],
  'tokenization.mjs': [join(models, 'troupe-0.3m'), texts],
  'serving.mjs': ['--tiny'],
  'plan.mjs': ['--results', results, 'tiny', 'tiny, 2 ranks'],
  'plan-gpu.mjs': [],
  'rows.mjs': ['--problems', '2', '--episodes', '2', '--response-tokens', '8', '--limits', '128'],
  'stages.mjs': ['--shape', 'tiny', '--sequences', '4', '--prompt', '8', '--length', '16'],
  'ranks.mjs': [
    ...['--model', 'troupe-0.3m', '--rounds', '1', '--results', results, '--set', 'model.dtype=float32'],
    ...['--set', 'workflow.prompts=small', '--problems', '2'],
  ],
  'code-grading.mjs': ['--problems', '2', '--tests', '2', '--rounds', '1', '--results', results],
};

let failed = 0;
function report(file, started, messages) {
  const seconds = Math.round((performance.now() - started) / 1000);
  console.log(`bench/${file}: ${messages === '' ? 'runs' : 'FAILS'} (${seconds} s)`);
  if (messages === '') return;
  failed += 1;
  console.log(messages);
}

/** On the CPU: every case has its row, one that cannot run ends nothing, and what no time is left for is named. */
function runGpuScript() {
  const started = performance.now();
  const out = join(results, 'gpu');
  const own = ['rates', 'train:tiny:r16:1024', 'no-case', 'decode:tiny:4:32:r8', 'observer:tiny:full'];
  own.push('grpo:tiny:full:1', 'voting:tiny:r16:1');
  const peers = ['no-case', 'train:tiny:full:1024'];
  const choices = { CASES: own.join(' '), PEER_CASES: peers.join(' '), PARTS: 'troupe peer', DEVICE: 'cpu' };
  const script = (folder, more) =>
    run('bash', [join(bench, 'gpu', 'run.sh'), folder], { env: { ...process.env, ...choices, ...more } });
  const result = script(out, {});
  const { stdout: short } = script(join(results, 'gpu-short'), { LIMIT: '1' });
  const rowsOf = (name) => {
    const file = join(out, name);
    const text = existsSync(file) ? readFileSync(file, 'utf8') : '';
    return text
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line));
  };
  const names = (rows) => rows.map((row) => row.case).join(' ');
  const troupe = rowsOf('troupe.jsonl');
  const complete =
    result.ok && names(troupe) === choices.CASES && names(rowsOf('peer.jsonl')) === choices.PEER_CASES;
  const wrong = troupe.filter((row) => (row.error === undefined) === (row.case === 'no-case'));
  const named = [`CASES="${choices.CASES}"`, `PEER_CASES="${choices.PEER_CASES}"`].every((text) =>
    short.includes(text),
  );
  const messages =
    complete && named && wrong.length === 0 ? '' : `${result.stdout}\n${result.stderr}\n${short}`;
  report('gpu/run.sh', started, messages);
}

for (const [file, options] of Object.entries(BENCHES)) {
  const started = performance.now();
  const result = run(process.execPath, [join(bench, file), ...options], { cwd: results });
  report(file, started, result.ok ? '' : `${result.stdout}\n${result.stderr}`);
}
runGpuScript();
rmSync(results, { recursive: true });
process.exitCode = failed > 0 ? 1 : 0;
