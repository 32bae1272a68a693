/**
 * What is wrong with a configuration is found before a model is loaded, where it stands, by `troupe config` as by
 * `troupe train`; and a run that cannot start leaves nothing behind.
 */
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { loadRunConfig } from '../../src/config/load.js';
import type { Tokenizer } from '../../src/engine/tokenizer.js';
import { chatTokenizer } from '../../src/learning/chat.js';
import { checkRun } from '../../src/learning/check-run.js';
import { PromptEncoder } from '../../src/rollout/conversation.js';
import { command, fails } from '../cli/troupe.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-checks-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function written(name: string, text: string): string {
  const file = join(folder, name);
  writeFileSync(file, text);
  return file;
}

const base = ['model.path=troupe-0.3m', 'workflow.prompts=small'];
function check(...set: string[]) {
  const { config, locate } = loadRunConfig(undefined, [...base, ...set]);
  return checkRun(config, { trainable: true, locate });
}

it.each<[string, RegExp]>([
  ['learning.loss.name=gpro', /no loss is named "gpro".*Did you mean "grpo"/],
  ['learning.kl.reference=average', /there is a reference, and no KL term.*Set learning\.kl\.coefficient/],
  [
    'learning.kl={coefficient: 0.1, reference: nowhere}',
    /learning\.kl\.reference is "nowhere", where there is neither an adapter nor a run/,
  ],
  ['learning.estimator.name=rlo', /no estimator is named "rlo".*Did you mean "rloo"/],
  ['learning.estimator={name: rloo, normalise: std}', /unknown key "learning\.estimator\.normalise"/],
  [
    'learning.estimator.name=dr-grpo',
    /--set learning\.estimator\.name=dr-grpo: dr-grpo is the estimator of a loss that is divided by a constant/,
  ],
  [
    'learning.importance.level=token',
    /compares with the rollout already.*Set learning\.oldLogprobs: trainer/,
  ],
  ['learning.reward={name: overlong, buffer: 8}', /a buffer of 8 tokens; generator has 8 for a response/],
  ['learning.loss.dualClip=0.5', /learning\.loss\.dualClip is 0\.5; it takes a number above 1, or null\./],
  ['learning.loss.cliplow=0.1', /unknown key "learning\.loss\.cliplow".*Did you mean "clipLow"/],
  ['learning.loss.module=none.ts', /none\.ts: no such file; the loss module/],
  ['learning.reward.module=none.ts', /none\.ts: no such file; the reward module/],
  ['task.module=none.ts', /none\.ts: no such file; the task module/],
  ['task.name=arithmetics', /--set task\.name=arithmetics: no task is named.*Did you mean "arithmetic"/],
  ['task.levels=[9]', /task\.levels/],
  ['workflow.name=votin', /no workflow is named "votin"/],
  ['workflow.options.voters=0', /--set workflow\.options\.voters=0: workflow\.options\.voters is 0/],
  ['workflow.prompts=fulll', /no style of prompts is named "fulll"/],
  ['rollout.roles.genrator.promptTokens=9', /--set rollout.*no role is named "genrator".*"generator"/],
  ['policies.sharing={generator: a}', /gives no policy to the role "aggregator"/],
  ['interventions.roles.genrator.rate=2', /no role is named "genrator"/],
  // Beyond what a timer takes: it would ring at once.
  ['rollout.episodeSeconds=3e6', /rollout\.episodeSeconds is 3000000; it takes .* at most 1000000/],
  [
    'task={name: code, files: [x.jsonl], limits: {seconds: 3e6}}',
    /task\.limits\.seconds is 3000000; it takes/,
  ],
  ['rollout.sampling.temperature=0', /samples at temperature 0/],
  ['rollout.sampling.temperature=1e-5', /it takes 0 \(greedy\), or a number from 0\.0001 to 10000/],
  ['rollout.sampling.maxTokens=2048', /may answer with 2048 tokens; this model has 2048 positions/],
  [
    'evaluation.sampling.maxTokens=9999',
    /--set evaluation\.sampling\.maxTokens=9999: .* may answer with 9999 tokens/,
  ],
  ['rollout.cacheBytes=1', /--set rollout\.cacheBytes=1: is 1 bytes; one response of generator/],
])('%s', async (set, message) => {
  await expect((async () => check(set))()).rejects.toThrow(message);
});

it('deterministic runs are for the CPU, and why is said', async () => {
  await expect(check('deterministic=true', 'model.device=cuda:0')).rejects.toThrow(
    /--set deterministic=true: deterministic runs are for the CPU, not for cuda:0: flash attention's backward pass repeats its bits only where it is asked to, .* \(docs\/cuda\.md\)\. Set model\.device: cpu/,
  );
});

it('a reward, a loss and a task have to export what they are for', async () => {
  const file = written('nothing.mjs', 'export const x = 1;');
  for (const key of ['learning.reward.module', 'learning.loss.module', 'task.module', 'workflow.module']) {
    await expect(check(`${key}=${file}`)).rejects.toThrow(/nothing\.mjs: has to export .* it exports x/);
  }
});

it('warns of a KL term that holds nothing back', async () => {
  const kl = (...set: string[]) => check('learning.kl.coefficient=0.1', ...set);
  expect((await kl('learning.kl.estimator=k1')).warnings).toEqual([
    expect.stringMatching(/k1 in the loss has a gradient whose expectation is 0/),
  ]);
  expect((await kl('learning.kl.estimator=k1', 'learning.kl.in=reward')).warnings).toEqual([]);
  expect((await kl()).warnings).toEqual([]);
});

it('warns of sampling whose tokens do not follow the distribution of the loss', async () => {
  expect((await check()).warnings).toEqual([]);
  const { warnings } = await check('rollout.roles.generator.sampling.topK=5');
  expect(warnings).toEqual([expect.stringMatching(/^generator samples with topK 5:/)]);
});

it('says the same by config and by train, which leaves no folder', async () => {
  const file = written('run.yaml', 'learning: { loss: { module: ./none.ts } }\n');
  await fails(['config', file], ['none.ts: no such file']);
  const run = join(folder, 'a', 'b', 'run');
  await fails(['train', file, '--run', run], ['none.ts: no such file']);
  await fails(
    ['train', '--run', run, '--set', `model.path=${folder}/no-model`],
    ['there is no model folder'],
  );
  // This one is found when the weights are loaded.
  const model = join(folder, 'model');
  await command(['init', model, '--shape', 'troupe-0.3m']);
  writeFileSync(join(model, 'model.safetensors'), 'x');
  await fails(['train', '--run', run, '--set', `model.path=${model}`], ['model.safetensors']);
  expect(existsSync(join(folder, 'a'))).toBe(false);
  expect(readdirSync(folder)).not.toContain('runs');
});

it('a prompt is tokenised once, however many calls share it', () => {
  let encoded = 0;
  const tokenizer = {
    renderChat: (messages: { content: string }[]) => ({
      text: messages.map(({ content }) => content).join(),
      literal: new Set(),
    }),
    encode: (text: string) => {
      encoded++;
      return [...text].map((letter) => letter.charCodeAt(0));
    },
    applyChatTemplate: () => {
      throw new Error('tokenises what nobody wants');
    },
  } as unknown as Tokenizer;
  const { template } = loadRunConfig(undefined, []).config.model;
  const prompts = new PromptEncoder(chatTokenizer(tokenizer, template));
  for (let i = 0; i < 3; i++) prompts.encode([{ role: 'user', content: '3+4' }], [], 'generator');
  expect(encoded).toBe(1);
});
