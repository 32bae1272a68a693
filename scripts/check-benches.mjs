/**
 * Runs every benchmark at a tiny shape, so that none breaks unseen: what it prints is no measurement. Not run here: those
 * that need TRL (grpo.mjs), a GPU (gpu/) or libraries that are no dependency (algebra.mjs). Needs `npm run build`.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
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
  'stages.mjs': ['--shape', 'tiny', '--sequences', '4', '--prompt', '8', '--length', '16'],
  'ranks.mjs': [
    ...['--model', 'troupe-0.3m', '--rounds', '1', '--results', results, '--set', 'model.dtype=float32'],
    ...['--set', 'workflow.prompts=small', '--problems', '2'],
  ],
  'code-grading.mjs': ['--problems', '2', '--tests', '2', '--rounds', '1', '--results', results],
};

let failed = 0;
for (const [file, options] of Object.entries(BENCHES)) {
  const started = performance.now();
  const result = run(process.execPath, [join(bench, file), ...options], { cwd: results });
  console.log(
    `bench/${file}: ${result.ok ? 'runs' : 'FAILS'} (${Math.round((performance.now() - started) / 1000)} s)`,
  );
  if (!result.ok) {
    failed += 1;
    console.log(`${result.stdout}\n${result.stderr}`);
  }
}
rmSync(results, { recursive: true });
process.exitCode = failed > 0 ? 1 : 0;
