/** Options and set-up that the commands which only read a model (score, generate) share. */
import type { Argv } from 'yargs';
import { z } from 'zod';
import { checkSection } from '../config/check.js';
import { TroupeError } from '../config/errors.js';
import { readJson } from '../config/json.js';
import { divertOutput } from '../config/user-code.js';
import type { Engine } from '../engine/engine.js';
import { resolveModel } from '../engine/model-catalogue.js';
import type { ModelDescription } from '../engine/protocol.js';
import { Tokenizer } from '../engine/tokenizer.js';
import { policyRequest } from '../learning/setup.js';
import { trainedPolicy } from '../learning/trained-policy.js';
import { parseWhich } from '../runs/checkpoint.js';
import { warnOfOtherModel } from '../runs/model-record.js';
import { isRun } from '../runs/run-directory.js';

export interface ModelArguments {
  model: string;
  dtype: 'float32' | 'bfloat16' | 'float64';
  device: string;
  json: boolean;
  checkpoint?: string;
  policy?: string;
}

/** Name of the only policy: the model as it is. */
export const POLICY = 'policy';

/** Of a command that samples nothing: the rollout engine is never made. */
export const NO_ROLLOUT = { cacheBytes: 0, maxBatch: 1, prefillTokens: 1, seed: 0 };

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

/** For commands whose model may be a run directory: a policy of one of its checkpoints. */
export function checkpointOptions<T>(yargs: Argv<T>) {
  return yargs
    .option('checkpoint', {
      type: 'string',
      describe: 'Where MODEL is a run directory: last (default), best, or the number of a step',
    })
    .option('policy', { type: 'string', describe: 'Its policy, where it has several' });
}

export interface OpenModel {
  description: ModelDescription;
  tokenizer(): Tokenizer;
}

/** Loads the model into the engine as a policy that is only read, or with gradients (`trainable`). */
export async function openModel(
  engine: Engine,
  { model, dtype, device, checkpoint, policy }: ModelArguments,
  rollout: { cacheBytes: number; maxBatch: number; prefillTokens: number; seed: number },
  { trainable = false } = {},
): Promise<OpenModel> {
  const trained = isRun(model) ? await policyOfRun(model, checkpoint ?? 'last', policy) : undefined;
  if (trained === undefined && (checkpoint ?? policy) !== undefined) {
    throw new TroupeError('is no run directory; --checkpoint and --policy go with one.', { where: model });
  }
  const folder = await resolveModel(trained?.model ?? model);
  if (trained !== undefined) await warnOfOtherModel(model, folder, (message) => console.error(message));
  const parameters = trained?.request.parameters;
  const description = await engine.send('loadModel', {
    name: 'model',
    folder,
    dtype,
    device,
    adapterRanks: parameters?.kind === 'lora' ? [parameters.rank] : [],
    rollout: { ...rollout, deterministic: false },
  });
  const { notices } = await engine.send('createPolicy', {
    parameters: { kind: 'full' },
    optimizer: { betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0 },
    seed: 0,
    ...trained?.request,
    name: POLICY,
    model: 'model',
    trainable,
    restored: trained !== undefined,
  });
  for (const notice of notices) console.error(notice);
  if (trained !== undefined) await engine.send('restorePolicy', { policy: POLICY, file: trained.file });
  return { description, tokenizer: () => Tokenizer.load(folder) };
}

/** A policy of a checkpoint of a run: the model under it, and the file of its parameters. */
async function policyOfRun(run: string, which: string, policy: string | undefined) {
  // Its workflow is a user's file, which may print.
  using _output = divertOutput();
  const path = { run, checkpoint: parseWhich(which), policy };
  const trained = await trainedPolicy(path, { warn: (message) => console.error(message) });
  const { config, checkpoint, file } = trained;
  console.error(`policy ${trained.policy.name} of step ${checkpoint.step}, ${checkpoint.folder}`);
  return { model: config.model.path, request: policyRequest(config, trained.policy), file };
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
