/**
 * Guards against ranks that begin together with different files, and against an evaluation that takes episodes for its own
 * which were played with others or by another version: each kind is in what is compared.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { importUserModule } from '../../src/config/import-module.js';
import { evaluationFingerprint, fingerprint } from '../../src/learning/fingerprint.js';
import type { Trainer } from '../../src/learning/trainer.js';
import { smallConfig } from './trained-run.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-fingerprint-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function write(name: string, text: string): string {
  const path = join(folder, name);
  mkdirSync(join(path, '..'), { recursive: true });
  writeFileSync(path, text);
  return path;
}

let question = '1 + 1';
const module = write('workflow.mjs', "import './lib/ask.mjs'; export default 1;");
write('lib/ask.mjs', 'export {};');
const reward = [{ python: write('reward.py', 'def reward(): ...'), function: 'reward' }];
const prompts = { file: write('prompts.yaml', 'generator: [{ user: "{{ question }}" }]') };
const configOf = (steps: number) => smallConfig({ steps, workflow: { module }, learning: { reward } });
let config = configOf(2);
write('model/config.json', '{}');
write('model/model.safetensors', 'weights');
write('model/additional_chat_templates/tool_use.jinja', 'template');
write('adapter/adapter_config.json', '{}');
const state = write('run/training-state.safetensors', 'state');

let libtorch = '2.13.0';
let held = '3 + 3';
const trainer = () =>
  ({
    config,
    open: { prompts },
    engine: { send: async () => ({ libtorch, devices: [] }) },
    // A column of a data file may be beyond what JSON writes.
    task: {
      train: () => ({ question, columns: { id: 2n ** 60n } }),
      evaluation: () => [{ question: held }],
    },
    model: { folder: join(folder, 'model') },
    starts: new Map([['generator', { kind: 'adapter', folder: join(folder, 'adapter') }]]),
    references: new Map<string, unknown>([
      ['generator', { kind: 'state', file: state }],
      ['aggregator', { kind: 'average', decay: 0.9 }],
    ]),
  }) as unknown as Trainer;
const digests = () => fingerprint(trainer());

it('tells of what another rank may have otherwise', async () => {
  await importUserModule(module, { what: 'workflow', takes: 'a number', is: (value) => value === 1 });
  const changes: [string, () => void][] = [
    ['configuration', () => (config = configOf(3))],
    ['version', () => (libtorch = '2.13.1')],
    ['data', () => (question = '1 + 2')],
    ['data', () => (held = '3 + 4')],
    ['own files', () => write('workflow.mjs', "import './lib/ask.mjs'; export default 1; ")],
    ['own files', () => write('lib/ask.mjs', 'export {}; ')],
    ['own files', () => write('reward.py', 'def reward(): pass')],
    ['own files', () => write('prompts.yaml', 'generator: [{ user: "{{ question }}?" }]')],
    ['base weights', () => write('model/config.json', '{ }')],
    ['base weights', () => write('model/model.safetensors', 'Weights')],
    ['base weights', () => write('model/additional_chat_templates/tool_use.jinja', 'Template')],
    ['starting parameters', () => write('adapter/adapter_config.json', '{ }')],
    ['starting parameters', () => write('run/training-state.safetensors', 'State')],
  ];
  let before = await digests();
  expect(await digests()).toEqual(before);
  for (const [name, change] of changes) {
    change();
    const after = await digests();
    const changed = Object.keys(after).filter((key) => after[key] !== before[key]);
    // More steps have more problems.
    expect(changed).toEqual(name === 'configuration' ? [name, 'data'] : [name]);
    before = after;
  }
});

it('tells of what would be another evaluation beside its configuration', async () => {
  let model: Record<string, string> = { 'model.safetensors': 'a' };
  const changes: [string, () => void][] = [
    ['version', () => (libtorch = '2.13.2')],
    ['problems', () => (held = '3 + 5')],
    ['own files', () => write('prompts.yaml', 'generator: [{ user: "Now: {{ question }}" }]')],
    ['base weights', () => (model = { 'model.safetensors': 'b' })],
  ];
  let before = await evaluationFingerprint(trainer(), model);
  expect(await evaluationFingerprint(trainer(), model)).toEqual(before);
  for (const [name, change] of changes) {
    change();
    const after = await evaluationFingerprint(trainer(), model);
    expect(Object.keys(after).filter((key) => after[key] !== before[key])).toEqual([name]);
    before = after;
  }
});
