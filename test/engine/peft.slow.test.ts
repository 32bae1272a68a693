/** What `troupe export` writes, loaded by transformers and PEFT themselves: the same log-probabilities. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, expect, it } from 'vitest';
import { packageRoot } from '../../src/config/package.js';
import { exportPolicy } from '../../src/learning/export-policy.js';
import { golden, json, troupe } from '../cli/troupe.js';
import { trainedRun } from '../learning/trained-run.js';
import { needs, pythonPath } from '../needs.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-peft-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
beforeEach(needs('peft'));

const ids = [
  [1, 5, 9, 20, 33, 7],
  [4, 4, 8, 15, 16, 23, 42],
];

it('an adapter and the merged model of a run', async () => {
  const lora = { rank: 4, alpha: 8 };
  const { folder: run } = await trainedRun({
    policies: { sharing: 'shared', defaults: { parameters: 'lora', learningRate: 0.02, lora } },
  });
  const folders = {
    adapter: join(folder, 'adapter'),
    merged: join(folder, 'merged'),
    sharded: join(folder, 'sharded'),
  };
  const { status, stderr } = troupe([
    'export',
    run,
    '--adapter',
    folders.adapter,
    '--merged',
    folders.merged,
  ]);
  expect(status, stderr).toBe(0);
  const last = { run, checkpoint: 'last', policy: undefined } as const;
  await exportPolicy(last, { merged: folders.sharded, shardBytes: 200_000, warn: () => {} });
  expect(readdirSync(folders.sharded).filter((name) => name.endsWith('.safetensors')).length).toBeGreaterThan(
    2,
  );
  const file = join(folder, 'ids.json');
  writeFileSync(file, JSON.stringify(ids));
  const ours = (await json<{ logprobs: number[][] }>(['score', run, '--ids', file])).logprobs;
  const base = (await json<{ logprobs: number[][] }>(['score', 'troupe-0.3m', '--ids', file])).logprobs;
  const asked = spawnSync(pythonPath, [golden('peft_logprobs.py')], {
    input: JSON.stringify({ ids, folders }),
    encoding: 'utf8',
  });
  expect(asked.status, asked.stderr).toBe(0);
  const theirs = JSON.parse(asked.stdout) as Record<string, number[][]>;
  const distance = (a: number[][], b: number[][]) =>
    Math.max(...a.flat().map((value, i) => Math.abs(value - (b.flat()[i] ?? Number.NaN))));
  expect(distance(ours, base)).toBeGreaterThan(0.01);
  expect(distance(theirs.adapter ?? [], ours)).toBeLessThan(1e-4);
  expect(distance(theirs.merged ?? [], ours)).toBeLessThan(1e-4);
  expect(theirs.sharded).toEqual(theirs.merged);
  const page = readFileSync(join(packageRoot(), 'docs', 'policies.md'), 'utf8');
  const [, shown = ''] = page.match(/```python\n(.*?)```/s) ?? [];
  const code = shown.replace('"ADAPTER"', '"adapter"').replace('"MERGED"', '"merged"');
  const loaded = spawnSync(pythonPath, ['-c', `${code}print(model.config.model_type)`], {
    cwd: folder,
    encoding: 'utf8',
  });
  expect(loaded.status, loaded.stderr).toBe(0);
  expect(loaded.stdout.trim()).not.toBe('');
});
