/** The record of a run's model, compared with what lies in its folder now. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, it } from 'vitest';
import { modelDigests } from '../../src/engine/model-digests.js';
import { checkModel, keepModel } from '../../src/runs/model-record.js';
import { temporaryFolder } from './temporary.js';

let run = '';
let model = '';
const template = 'additional_chat_templates/tool_use.jinja';
beforeEach(() => {
  run = temporaryFolder();
  model = temporaryFolder();
  mkdirSync(join(model, 'additional_chat_templates'));
  for (const name of ['config.json', 'generation_config.json', 'model.safetensors', template])
    writeFileSync(join(model, name), name);
});

it('is refused where a part differs, is new or is no more', async () => {
  await keepModel(run, model, false);
  await checkModel(run, model);
  writeFileSync(join(model, 'config.json'), '{}');
  writeFileSync(join(model, 'tokenizer.json'), '{}');
  for (const name of ['generation_config.json', template]) rmSync(join(model, name));
  await expect(keepModel(run, model, true)).rejects.toThrow(
    `: ${template}, generation_config.json, config.json, tokenizer.json. Put back`,
  );
  await expect(checkModel(run, model)).rejects.toThrow('(of the hub: OWNER/NAME@REVISION)');
});

it('of an earlier version has files that are no part of the model; the next one has not', async () => {
  const now = await modelDigests(model);
  const more = {
    'eval_results.json': 'x',
    'model.safetensors.index.json': 'x',
    'model-00001-of-00002.safetensors': 'x',
  };
  writeFileSync(join(run, 'model.json'), JSON.stringify({ ...now, ...more }));
  await keepModel(run, model, true);
  expect(JSON.parse(readFileSync(join(run, 'model.json'), 'utf8'))).toEqual(now);
});

it('of one file is missed where shards take its place', async () => {
  await keepModel(run, model, false);
  rmSync(join(model, 'model.safetensors'));
  await expect(checkModel(run, model)).rejects.toThrow('model.safetensors');
});
