/** What ranks of one run have to have in common, as digests that they compare at the start. */
import { createHash, type Hash } from 'node:crypto';
import { printConfig } from '../config/print.js';
import { fileDigest, modelDigests } from '../engine/model-digests.js';
import type { CreatePolicyRequest, StartingParameters } from '../engine/protocol.js';
import { describeEnvironment, programOf } from '../runs/environment.js';
import { codeDigests } from './own-files.js';
import type { Trainer } from './trainer.js';

/** Training problems that are compared at most, from the run's first on. */
const PROBLEMS = 20_000;

/**
 * Twelve digits of SHA-256 each: of the resolved configuration without where the run is kept, of Troupe's version and
 * libtorch's, of the problems (the run's, at most 20,000, and those that evaluate), of the users' files and what they
 * import, of the model's folder, of what policies begin from or are kept near.
 */
export async function fingerprint(trainer: Trainer): Promise<Record<string, string>> {
  const { config, model, starts, references } = trainer;
  const { run: _, ...compared } = config;
  return {
    configuration: digest((hash) =>
      hash.update(printConfig({ ...compared, run: { ...config.run, folder: '' } })),
    ),
    version: await versionOf(trainer),
    data: digest((hash) => {
      addProblems(hash, trainer);
      addEvaluation(hash, trainer);
    }),
    'own files': ownDigest(trainer),
    'base weights': await folderDigest(model.folder),
    'starting parameters': await startsDigest([...starts.values(), ...references.values()]),
  };
}

/**
 * The same of what an evaluation plays with, beside its configuration. `model`: digests of the model's files. Two evaluations
 * that differ in it have no episodes in common.
 */
export async function evaluationFingerprint(
  trainer: Trainer,
  model: Record<string, string>,
): Promise<Record<string, string>> {
  return {
    version: await versionOf(trainer),
    problems: digest((hash) => addEvaluation(hash, trainer)),
    'own files': ownDigest(trainer),
    'base weights': digest((hash) => hash.update(JSON.stringify(model))),
  };
}

async function versionOf({ engine }: Trainer): Promise<string> {
  return programOf(describeEnvironment(await engine.send('describe', null)));
}

function ownDigest(trainer: Trainer): string {
  const digests = codeDigests(trainer).map(({ sha256 }) => sha256);
  return digest((hash) => hash.update(digests.sort().join()));
}

const short = (hash: Hash) => hash.digest('hex').slice(0, 12);

function digest(add: (hash: Hash) => void): string {
  const hash = createHash('sha256');
  add(hash);
  return short(hash);
}

/** Columns of Parquet files have whole numbers that JSON has no form for. */
const written = (value: unknown) =>
  JSON.stringify(value, (_, one) => (typeof one === 'bigint' ? String(one) : one));

function addProblems(hash: Hash, { task, config }: Trainer): void {
  const count = Math.min(PROBLEMS, config.steps * config.rollout.promptsPerStep);
  for (let i = 0; i < count; i++) hash.update(written(task.train(config.seed, i)));
}

function addEvaluation(hash: Hash, { task, config }: Trainer): void {
  hash.update(written(task.evaluation(config.evaluation.problems)));
}

async function folderDigest(folder: string): Promise<string> {
  const files = await modelDigests(folder);
  return digest((hash) => hash.update(JSON.stringify(files)));
}

async function startsDigest(
  starts: readonly (StartingParameters | CreatePolicyRequest['reference'])[],
): Promise<string> {
  const parts: string[] = [];
  for (const start of starts) {
    if (start?.kind === 'state') parts.push(await fileDigest(start.file));
    if (start?.kind === 'adapter') parts.push(await folderDigest(start.folder));
  }
  return digest((hash) => hash.update(parts.join()));
}
