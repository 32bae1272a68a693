/** A run whose model's folder holds another model than before: it does not go on, and whoever reads its policies hears of it. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { packageRoot } from '../../src/config/package.js';
import { command } from '../cli/troupe.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-other-model-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const model = join(folder, 'model');
const run = join(folder, 'run');
const settings = [
  `model.path=${model}`,
  'task.name=arithmetic',
  'policies.sharing=shared',
  'policies.defaults.parameters=lora',
  'rollout.promptsPerStep=1',
  'rollout.episodesPerPrompt=2',
  'rollout.sampling.maxTokens=2',
  'evaluation.every=0',
  'evaluation.problems=1',
  'evaluation.greedy=false',
].flatMap((setting) => ['--set', setting]);

test('of the same name and shape', async () => {
  cpSync(join(packageRoot(), 'models/troupe-0.3m'), model, { recursive: true, dereference: true });
  expect((await command(['train', '--run', run, '--set', 'steps=1', ...settings])).status).toBe(0);
  const resumed = (...options: string[]) =>
    command(['train', '--resume', run, '--set', 'steps=2', ...options]);
  const readers = [
    ['eval', run],
    ['generate', run, '--prompt', '1+1', '--max-tokens', '1'],
    ['export', run, '--adapter', join(folder, 'adapter')],
    ['eval', join(folder, 'single.yaml'), '--role', `generator=${run}`],
    ['config', join(folder, 'started.yaml')],
  ];

  const yaml = `model: { path: ${model} }\npolicies: { sharing: shared`;
  const begins = `, defaults: { parameters: lora, start: ${run} } }\n`;
  writeFileSync(join(folder, 'started.yaml'), `${yaml}${begins}`);
  const small = 'rollout: { sampling: { maxTokens: 1 } }\nevaluation: { problems: 1, greedy: false }\n';
  writeFileSync(join(folder, 'single.yaml'), `workflow: { name: single }\n${yaml} }\n${small}`);

  const weights = join(model, 'model.safetensors');
  const bytes = readFileSync(weights);
  const others = Buffer.from(bytes);
  others.fill(0, bytes.length / 2);
  writeFileSync(weights, others);
  const refused = await resumed();
  expect(refused.status).toBe(1);
  expect(refused.stderr).toContain(
    `${model}: the model is another one than when the run began: model.safetensors. Put back what was there`,
  );
  const warning = `${model} is another model than ${run} was trained on: model.safetensors`;
  for (const reader of readers) {
    const { status, stderr } = await command(reader);
    expect({ reader, status }).toEqual({ reader, status: 0 });
    expect(stderr).toContain(warning);
  }

  cpSync(model, join(folder, 'other/model'), { recursive: true });
  writeFileSync(weights, bytes);
  for (const reader of readers) expect((await command(reader)).stderr).not.toContain('another model');
  // One that is refused when it is named leaves the run with its own.
  const named = await resumed('--set', `model.path=${join(folder, 'other/model')}`);
  expect(named.stderr).toContain(`${folder}/other/model: the model is another one than when the run began`);
  expect((await resumed()).status).toBe(0);
  // What is no part of it may come and go.
  writeFileSync(join(model, 'eval_results.json'), '{}');
  // Elsewhere it is the same.
  cpSync(model, join(folder, 'elsewhere/model'), { recursive: true });
  rmSync(model, { recursive: true });
  const moved = await resumed('--set', `model.path=${join(folder, 'elsewhere/model')}`);
  expect(moved.stderr).not.toContain('another');
  expect(moved.status).toBe(0);
});
