/**
 * Adapters in PEFT's layout, read, written and merged, against the log-probabilities that PEFT gave (test/golden/models.py);
 * and folders that are damaged, or that PEFT would compute in another way.
 */
import {
  copyFileSync,
  cpSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readPeftConfig } from '../../src/engine/adapters.js';
import { native } from '../../src/engine/native.js';
import type { CreatePolicyRequest, StartingParameters } from '../../src/engine/protocol.js';
import { openSafetensors, saveSafetensors } from '../../src/engine/safetensors.js';
import { scope } from '../../src/engine/scope.js';
import { Session } from '../../src/engine/session.js';
import { Tensor } from '../../src/engine/tensor.js';
import { golden as goldenFolder } from '../cli/troupe.js';
import { golden } from '../model/support.js';

const MODEL = goldenFolder('models/qwen3-tied');
const model = golden('qwen3-tied');
const lora = model.adapter ?? { rank: 0, alpha: 0, targets: [] };
const expected = Array.from(model.expected.get('lora.logprobs')?.data ?? []);

const folder = mkdtempSync(join(tmpdir(), 'troupe-adapters-'));
const adapter = join(folder, 'adapter');
const CONFIG = {
  peft_type: 'LORA',
  task_type: 'CAUSAL_LM',
  base_model_name_or_path: 'org/model',
  r: lora.rank,
  lora_alpha: lora.alpha,
  target_modules: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'],
  bias: 'none',
  modules_to_save: null,
  rank_pattern: {},
  use_dora: false,
};

/** The golden adapter as a folder; `change` of its configuration. */
function writeAdapter(name: string, change: object = {}): string {
  const path = join(folder, name);
  mkdirSync(path, { recursive: true });
  copyFileSync(join(MODEL, 'adapter.safetensors'), join(path, 'adapter_model.safetensors'));
  writeFileSync(join(path, 'adapter_config.json'), JSON.stringify({ ...CONFIG, ...change }));
  return path;
}

const session = new Session(async () => {});
const run = ((command: 'score', argument: unknown) => session.run(command, argument, 0)) as (
  command: string,
  argument: unknown,
) => Promise<unknown>;

const load = (path: string) =>
  run('loadModel', {
    name: 'model',
    folder: path,
    dtype: 'float32',
    device: 'cpu',
    rollout: { cacheBytes: 1 << 20, maxBatch: 1, prefillTokens: 1, seed: 0, deterministic: false },
  });
const create = (name: string, start?: StartingParameters, over: Partial<CreatePolicyRequest> = {}) =>
  run('createPolicy', {
    name,
    model: 'model',
    parameters: { kind: 'lora', ...lora },
    trainable: false,
    optimizer: { betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0 },
    seed: 0,
    start,
    ...over,
  });

/** Log-probabilities of the responses of the golden calls. */
async function logprobs(policy: string): Promise<number[]> {
  const sequences = model.calls.map(({ prompt, response }) => Int32Array.of(...prompt, ...response));
  const scores = (await run('score', { policy, sequences, temperature: 1 })) as Float32Array[];
  return scores.flatMap((values, i) => Array.from(values.slice((model.calls[i]?.prompt.length ?? 0) - 1)));
}
const distance = (a: readonly number[], b: readonly number[]) => {
  expect(a).toHaveLength(b.length);
  return Math.max(...a.map((value, i) => Math.abs(value - (b[i] ?? Number.NaN))));
};

beforeAll(async () => {
  writeAdapter('adapter');
  await load(MODEL);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('an adapter', () => {
  it('that a policy starts from gives what PEFT gives, trained or not', async () => {
    for (const trainable of [true, false]) {
      await create('policy', { kind: 'adapter', folder: adapter }, { trainable });
      expect(distance(await logprobs('policy'), expected)).toBeLessThan(1e-4);
    }
    await create('plain');
    expect(distance(await logprobs('plain'), expected)).toBeGreaterThan(0.1);
  });

  it('comes out as it went in, with the name of its base and a README', async () => {
    await create('policy', { kind: 'adapter', folder: adapter });
    const out = join(folder, 'out');
    const files = { 'README.md': 'About it.\n' };
    await run('exportPolicy', { policy: 'policy', folder: out, base: 'org/model', files });
    const config = JSON.parse(readFileSync(join(out, 'adapter_config.json'), 'utf8')) as object;
    const { modules_to_save: _, rank_pattern: __, use_dora: ___, ...kept } = CONFIG;
    expect(config).toMatchObject(kept);
    expect(readFileSync(join(out, 'README.md'), 'utf8')).toBe('About it.\n');
    const scored = await logprobs('policy');
    await create('again', { kind: 'adapter', folder: out });
    expect(await logprobs('again')).toEqual(scored);
  });

  it('merged into its model gives the same, in bfloat16 up to rounding', async () => {
    await create('policy', { kind: 'adapter', folder: adapter });
    const used = native().deviceMemory('cpu').used;
    for (const dtype of ['float32', 'bfloat16']) {
      await run('exportPolicy', { policy: 'policy', folder: join(folder, dtype), merged: true, dtype });
    }
    expect(native().deviceMemory('cpu').used).toBe(used);
    await load(join(folder, 'float32'));
    await create('merged', undefined, { parameters: { kind: 'full' } });
    expect(distance(await logprobs('merged'), expected)).toBeLessThan(1e-4);
    await load(join(folder, 'bfloat16'));
    await create('merged', undefined, { parameters: { kind: 'full' } });
    const rounded = distance(await logprobs('merged'), expected);
    expect(rounded).toBeGreaterThan(1e-4);
    expect(rounded).toBeLessThan(0.1);
    await load(MODEL);
  });

  it('merged holds the chat templates themselves where the model has links, as in the cache of the hub', async () => {
    const linked = join(folder, 'linked');
    const templates = 'additional_chat_templates';
    cpSync(MODEL, linked, { recursive: true });
    mkdirSync(join(linked, templates));
    writeFileSync(join(folder, 'blob'), 'template');
    symlinkSync('../../blob', join(linked, templates, 'tool_use.jinja'));
    await load(linked);
    await create('policy', { kind: 'adapter', folder: adapter });
    const merged = join(folder, 'merged');
    await run('exportPolicy', { policy: 'policy', folder: merged, merged: true });
    expect(lstatSync(join(merged, templates, 'tool_use.jinja')).isFile()).toBe(true);
    await load(MODEL);
  });

  it('merged in shards has every tensor in the file that the index says, and is the same model', async () => {
    await create('policy', { kind: 'adapter', folder: adapter });
    const whole = join(folder, 'whole');
    const sharded = join(folder, 'sharded');
    const asked = { policy: 'policy', merged: true, dtype: 'float32' };
    await run('exportPolicy', { ...asked, folder: whole });
    const limit = 20_000;
    await run('exportPolicy', { ...asked, folder: sharded, shardBytes: limit });
    const infoOf = (file: string) => {
      const source = openSafetensors(file);
      try {
        return Object.fromEntries(source.names.map((name) => [name, source.info(name).shape]));
      } finally {
        source.dispose();
      }
    };
    const files = readdirSync(sharded).filter((name) => name.endsWith('.safetensors'));
    expect(files.length).toBeGreaterThan(2);
    // The names that transformers gives its own.
    const of = String(files.length).padStart(5, '0');
    expect(files.sort()).toEqual(
      files.map((_, i) => `model-${String(i + 1).padStart(5, '0')}-of-${of}.safetensors`),
    );
    const index = JSON.parse(readFileSync(join(sharded, 'model.safetensors.index.json'), 'utf8'));
    const found = files.map((file) => [file, infoOf(join(sharded, file))] as const);
    const located = found.flatMap(([file, tensors]) => Object.keys(tensors).map((name) => [name, file]));
    expect(index.weight_map).toEqual(Object.fromEntries(located));
    const tensors = Object.assign({}, ...found.map(([, one]) => one)) as Record<string, number[]>;
    expect(tensors).toEqual(infoOf(join(whole, 'model.safetensors')));
    const bytes = (shapes: Record<string, number[]>) =>
      Object.values(shapes).reduce((sum, shape) => sum + 4 * shape.reduce((a, b) => a * b, 1), 0);
    expect(index.metadata.total_size).toBe(bytes(tensors));
    for (const [, one] of found)
      if (Object.keys(one).length > 1) expect(bytes(one)).toBeLessThanOrEqual(limit);
    const scores: number[][] = [];
    for (const path of [whole, sharded]) {
      await load(path);
      await create('merged', undefined, { parameters: { kind: 'full' } });
      scores.push(await logprobs('merged'));
    }
    expect(scores[1]).toEqual(scores[0]);
    await load(MODEL);
  });

  it('is what the policy that starts from it is kept near', async () => {
    const loss = join(folder, 'distance.mjs');
    writeFileSync(
      loss,
      'export default ({ logprobs, referenceLogprobs }) => { const d = logprobs.sub(referenceLogprobs); return d.mul(d).sum(); };',
    );
    const train = async (policy: string) => {
      const calls = model.calls.map(({ prompt, response }) => ({
        prompt,
        response,
        rolloutLogprobs: new Float32Array(response.length),
        advantage: 1,
        weight: 1,
        group: 0,
      }));
      const result = await run('train', {
        policy,
        calls,
        groups: ['all'],
        mismatchOnly: [],
        loss: { module: loss, options: {} },
        temperature: 1,
        reference: true,
        learningRate: 0,
        clipNorm: 1,
        microBatchRows: 1000,
        update: true,
      });
      return (result as { loss: number }).loss;
    };
    await create('policy', { kind: 'adapter', folder: adapter }, { trainable: true });
    expect(await train('policy')).toBeLessThan(1e-6);
    // The distance of the adapter from the model itself, had that been the reference.
    await create('plain');
    const [a, b] = [await logprobs('policy'), await logprobs('plain')];
    expect(a.reduce((sum, value, i) => sum + (value - (b[i] ?? 0)) ** 2, 0)).toBeGreaterThan(1);
  });

  it('of which a run goes on from a state file has its parameters', async () => {
    await create('policy', { kind: 'adapter', folder: adapter }, { trainable: true });
    const file = join(folder, 'state.safetensors');
    await run('savePolicy', { policy: 'policy', file });
    await create('next', { kind: 'state', file }, { trainable: true });
    expect(await logprobs('next')).toEqual(await logprobs('policy'));
    await expect(
      create('next', { kind: 'state', file }, { parameters: { kind: 'lora', ...lora, rank: 3 } }),
    ).rejects.toThrow(/state\.safetensors: holds \d+ parameters, policy next has \d+/);
  });
});

describe('is refused, and leaves nothing behind:', () => {
  const damaged = (name: string, change: (tensors: Record<string, Tensor>) => void) => {
    const path = writeAdapter(name);
    const file = join(path, 'adapter_model.safetensors');
    scope(() => {
      const source = openSafetensors(join(MODEL, 'adapter.safetensors'));
      const tensors: Record<string, Tensor> = {};
      for (const tensor of source.names) tensors[tensor] = Tensor.wrap(source.tensor(tensor)).clone();
      change(tensors);
      rmSync(file);
      saveSafetensors(
        file,
        Object.fromEntries(Object.entries(tensors).map(([key, { native: n }]) => [key, n])),
        {},
      );
      source.dispose();
    });
    return path;
  };
  const A = 'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight';

  it.each<[string, () => string, RegExp]>([
    [
      'a folder without weights',
      () => {
        const path = writeAdapter('empty');
        rmSync(join(path, 'adapter_model.safetensors'));
        return path;
      },
      /adapter_model\.safetensors: no such file\. An adapter is a folder with/,
    ],
    [
      'a truncated file',
      () => {
        const path = writeAdapter('cut');
        truncateSync(join(path, 'adapter_model.safetensors'), 900);
        return path;
      },
      /adapter_model\.safetensors: /,
    ],
    [
      'a missing tensor',
      () => damaged('missing', (all) => delete all[A]),
      /do not fit the policy: missing base_model.*q_proj\.lora_A/,
    ],
    [
      'an unknown tensor',
      () =>
        damaged('more', (all) => {
          all['base_model.model.lm_head.lora_A.weight'] = all[A] as Tensor;
        }),
      /do not fit the policy: unknown base_model\.model\.lm_head/,
    ],
    [
      'another shape',
      () =>
        damaged('shape', (all) => {
          all[A] = (all[A] as Tensor).narrow(0, 0, 2).clone();
        }),
      /q_proj\.lora_A\.weight has shape \[2,\d+\]; the policy makes it \[4,\d+\]/,
    ],
    [
      'NaN',
      () =>
        damaged('nan', (all) => {
          all[A] = (all[A] as Tensor).mul(Number.NaN);
        }),
      /q_proj\.lora_A\.weight holds values that are not finite/,
    ],
  ])('%s', async (_what, make, message) => {
    const path = make();
    await create('plain');
    const used = native().deviceMemory('cpu').used;
    await expect(create('policy', { kind: 'adapter', folder: path })).rejects.toThrow(message);
    expect(native().deviceMemory('cpu').used).toBe(used);
  });

  it.each([
    [{ peft_type: 'LOHA' }, /peft_type is "LOHA"; it takes LORA/],
    [{ use_dora: true }, /use_dora is true/],
    [
      { use_rslora: true },
      /use_rslora is true: PEFT computes that, the engine does not\. Merge the adapter with PEFT/,
    ],
    [{ bias: 'all' }, /bias is "all"; it takes none/],
    [{ rank_pattern: { q_proj: 8 } }, /rank_pattern is \{"q_proj":8\}: PEFT computes that/],
    [{ modules_to_save: ['lm_head'] }, /modules_to_save/],
    // Its tensors are those of any adapter, but it acts only behind these tokens.
    [{ alora_invocation_tokens: [3, 4] }, /alora_invocation_tokens/],
    [{ layers_to_transform: [0] }, /layers_to_transform is \[0\]: PEFT/],
    [{ exclude_modules: 'q_proj' }, /exclude_modules is "q_proj": PEFT/],
    [{ use_bdlora: { nblocks: 2 } }, /use_bdlora/],
    [{ init_lora_weights: 'pissa' }, /init_lora_weights is "pissa"/],
    [{ target_modules: ['q_proj', 'lm_head'] }, /adapts lm_head; the engine has adapters on q_proj, /],
    [{ r: undefined }, /r is missing/],
  ])('%j in its configuration', (change, message) => {
    expect(() => readPeftConfig(writeAdapter('strange', change))).toThrow(message);
  });
});
