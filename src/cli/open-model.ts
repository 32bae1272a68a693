/** Options and set-up that the commands which only read a model (score, generate) share. */
import type { Argv } from 'yargs';
import { z } from 'zod';
import { checkSection } from '../config/check.js';
import { TroupeError } from '../config/errors.js';
import { readJson } from '../config/json.js';
import type { Engine } from '../engine/engine.js';
import { resolveModel } from '../engine/model-catalogue.js';
import type { ModelDescription } from '../engine/protocol.js';
import { Tokenizer } from '../engine/tokenizer.js';

export interface ModelArguments {
  model: string;
  dtype: 'float32' | 'bfloat16' | 'float64';
  device: string;
  json: boolean;
}

/** Name of the only policy: the model as it is. */
export const POLICY = 'policy';

export function modelOptions(yargs: Argv<object>) {
  return yargs
    .positional('model', { type: 'string', demandOption: true, describe: 'Folder or name of a model' })
    .option('dtype', {
      choices: ['float32', 'bfloat16', 'float64'] as const,
      default: 'float32' as const,
      describe: 'Type of the computation',
    })
    .option('device', { type: 'string', default: 'auto', describe: 'auto, cpu, cuda or cuda:N' })
    .option('json', { type: 'boolean', default: false, describe: 'One JSON object on standard output' });
}

export interface OpenModel {
  description: ModelDescription;
  tokenizer(): Tokenizer;
}

/** Loads the model into the engine as a policy that is only read, or with gradients (`trainable`). */
export async function openModel(
  engine: Engine,
  { model, dtype, device }: ModelArguments,
  rollout: { cacheBytes: number; maxBatch: number; prefillTokens: number; seed: number },
  { trainable = false } = {},
): Promise<OpenModel> {
  const folder = await resolveModel(model);
  const description = await engine.send('loadModel', {
    name: 'model',
    folder,
    dtype,
    device,
    rollout: { ...rollout, deterministic: false },
  });
  await engine.send('createPolicy', {
    name: POLICY,
    model: 'model',
    parameters: { kind: 'full' },
    trainable,
    optimizer: { betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0 },
    seed: 0,
  });
  return { description, tokenizer: () => Tokenizer.load(folder) };
}

/** A list of token ids of a model. */
export const tokenIds = ({ vocabularySize }: Vocabulary) =>
  z
    .array(
      z
        .int()
        .min(0)
        .max(vocabularySize - 1),
    )
    .min(1)
    .meta({ takes: 'a list of one or more token ids' });

/** What of a model says which ids it takes, and how many. */
export type Vocabulary = Pick<ModelDescription, 'vocabularySize' | 'maxPositions'>;

/** A JSON file of id lists; one list alone counts as a list of one. Every id is checked against the vocabulary. */
export function readIds(file: string, model: Vocabulary): Int32Array[] {
  const json = readJson(file);
  const one = Array.isArray(json) && typeof json[0] === 'number';
  const schema = z
    .array(tokenIds(model))
    .min(1)
    .meta({ takes: 'a list of lists of token ids, e.g. [[1, 2, 3], [4, 5]]' });
  const lists = checkSection(schema, one ? [json] : json, { whole: 'the file', locate: () => file });
  for (const [i, list] of lists.entries()) checkLength(list.length, model.maxPositions, `${file}: [${i}]`);
  return lists.map((list) => Int32Array.from(list));
}

export function checkLength(tokens: number, maxPositions: number, where: string): void {
  if (tokens <= maxPositions) return;
  throw new TroupeError(`has ${tokens} tokens; this model takes ${maxPositions} at most.`, { where });
}
