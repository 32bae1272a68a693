/** Fails if what a run trained does not come out of it, or not into another one; or if what does not fit is taken. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { RunInput } from '../../src/config/schema.js';
import { native } from '../../src/engine/native.js';
import { openSafetensors } from '../../src/engine/safetensors.js';
import { checkRun } from '../../src/learning/check-run.js';
import { exportPolicy } from '../../src/learning/export-policy.js';
import { listCheckpoints, policyFile } from '../../src/runs/checkpoint.js';
import { smallConfig, trainedRun } from './trained-run.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-start-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const warn = () => {};
const lora = { rank: 2, alpha: 4, targets: ['q' as const, 'v' as const] };
/** The generator trains an adapter, the aggregator all parameters. */
const policies = (
  generator: object = {},
  aggregator: object = {},
  learningRate = 0.01,
): RunInput['policies'] => ({
  sharing: 'isolated',
  defaults: { learningRate },
  overrides: { generator: { parameters: 'lora', lora, ...generator }, aggregator },
});

let run = '';
const adapter = join(folder, 'adapter');
const merged = join(folder, 'merged');
beforeAll(async () => {
  const checkpoints = { every: 1, keep: 2 };
  run = (await trainedRun({ policies: policies(), evaluation: { every: 1, problems: 3 }, checkpoints }))
    .folder;
  const path = { run, checkpoint: 1, policy: 'generator' };
  await exportPolicy(path, { adapter, merged, dtype: 'bfloat16', warn });
});

/** A policy's parameters in the checkpoint of a step. */
function parameters(of: string, step: number, policy: string): Float32Array {
  const checkpoint = listCheckpoints(of).find((one) => one.step === step);
  const saved = openSafetensors(policyFile(checkpoint?.folder ?? '', policy));
  try {
    const tensor = saved.tensor('master');
    const values = Float32Array.from(native().read(tensor) as Float32Array);
    tensor.dispose();
    return values;
  } finally {
    saved.dispose();
  }
}

describe('a policy starts', () => {
  it("from an adapter's folder, and from another run's policy", async () => {
    const starts = policies({ start: adapter }, { start: `${run}@2:aggregator` }, 0);
    const next = await trainedRun({ steps: 1, policies: starts });
    expect(parameters(next.folder, 1, 'generator')).toEqual(parameters(run, 1, 'generator'));
    expect(parameters(next.folder, 1, 'aggregator')).toEqual(parameters(run, 2, 'aggregator'));
    expect(parameters(run, 1, 'generator')).not.toEqual(parameters(run, 2, 'generator'));
  });

  it('and stays there if it is frozen', async () => {
    const texts = async (generator: object) => {
      const { rows } = await trainedRun({ steps: 1, policies: policies({ freeze: true, ...generator }) });
      return rows('calls').flatMap(({ role, rollout_logprob }) =>
        role === 'generator' ? [rollout_logprob] : [],
      );
    };
    expect(await texts({ start: `${run}:generator` })).not.toEqual(await texts({}));
  });
});

describe('what does not fit is said before the run:', () => {
  const check = (generator: object, aggregator: object = {}, over: RunInput = {}) =>
    checkRun(smallConfig({ policies: policies(generator, aggregator), ...over }), { trainable: true });

  it.each<[string, () => Promise<unknown>, RegExp]>([
    [
      'rank',
      () => check({ start: adapter, lora: { ...lora, rank: 3 } }),
      /adapter: has rank 2; that of policy generator is 3\. Set policies\.overrides\.generator\.lora to \{ rank: 2, alpha: 4, targets: \[q, v\] \}/,
    ],
    [
      'alpha',
      () => check({ start: `${run}:generator`, lora: { ...lora, alpha: 1 } }),
      /policy generator: has alpha 4; that of policy generator is 1/,
    ],
    [
      'targets',
      () => check({ start: adapter, lora: { ...lora, targets: ['q'] } }),
      /has targets q, v; that of policy generator is q\./,
    ],
    [
      'kind',
      () => check({}, { start: adapter }),
      /is an adapter, but policy aggregator trains all parameters\. Set policies\.overrides\.aggregator\.parameters to lora/,
    ],
    [
      'kind of a run',
      () => check({ start: `${run}:aggregator` }),
      /policy aggregator: is all parameters, but policy generator trains an adapter/,
    ],
    [
      'model',
      () => check({ start: `${run}:generator` }, {}, { model: { path: 'troupe-1m' } }),
      /was trained on troupe-0\.3m, which is another model than troupe-1m \(hiddenSize 64 there, 128 here\)/,
    ],
    [
      'nothing there',
      () => check({ start: 'none' }),
      /policy generator: start is "none", where there is neither an adapter nor a run/,
    ],
    [
      'several policies',
      () => check({ start: run }),
      /has the policies generator, aggregator\. Name one with start: RUN:POLICY/,
    ],
    ['no such policy', () => check({ start: `${run}:generater` }), /no policy is named "generater"/],
    [
      'no such step',
      () => check({ start: `${run}@7:generator` }),
      /has no such checkpoint; there are those of steps 1, 2/,
    ],
  ])('%s', async (_what, action, message) => {
    await expect(action()).rejects.toThrow(message);
  });

  it('another base of the same shape is a warning', async () => {
    const other = join(folder, 'other');
    mkdirSync(other);
    const config = JSON.parse(readFileSync(join(adapter, 'adapter_config.json'), 'utf8')) as object;
    writeFileSync(
      join(other, 'adapter_config.json'),
      JSON.stringify({ ...config, base_model_name_or_path: 'org/Else' }),
    );
    const { warnings } = await check({ start: other });
    expect(warnings).toEqual([
      expect.stringMatching(/was trained on org\/Else; here it is put on .*troupe-0\.3m/),
    ]);
    expect((await check({ start: adapter })).warnings).toEqual([]);
  });
});

describe('an exported policy', () => {
  it('says what it is', () => {
    const readme = readFileSync(join(adapter, 'README.md'), 'utf8');
    for (const part of [
      /^---\nlibrary_name: peft\n/,
      /\| base model \| .*troupe-0\.3m \|/,
      /\| role \| generator \|/,
      /\| workflow \| voting \|/,
      /\| accuracy \| of the workflow: [\d.]+ % of 3 held-out problems \([\d.]+ % before training\) \|/,
      /\| run \| .*, step 1, policy generator \|/,
      /LoRA, rank 2, alpha 4, on q, v/,
      /```yaml\nseed: 0\n/,
    ]) {
      expect(readme).toMatch(part);
    }
    expect(readFileSync(join(merged, 'README.md'), 'utf8')).toContain('library_name: transformers');
    const config = JSON.parse(readFileSync(join(merged, 'config.json'), 'utf8')) as Record<string, unknown>;
    expect(config.dtype ?? config.torch_dtype).toBe('bfloat16');
  });

  it('of all parameters has no adapter', async () => {
    const path = { run, checkpoint: 'best' as const, policy: 'aggregator' };
    await expect(exportPolicy(path, { adapter: join(folder, 'x'), warn })).rejects.toThrow(
      /policy aggregator trains all parameters: it has no adapter\. Export the whole model with --merged/,
    );
  });
});
