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
  const { config, engine, model, starts, references } = trainer;
  const environment = describeEnvironment(await engine.send('describe', null));
  const { run: _, ...compared } = config;
  return {
    configuration: digest((hash) =>
      hash.update(printConfig({ ...compared, run: { ...config.run, folder: '' } })),
    ),
    version: programOf(environment),
    data: digest((hash) => addProblems(hash, trainer)),
    'own files': digest((hash) =>
      hash.update(
        codeDigests(trainer)
          .map(({ sha256 }) => sha256)
          .sort()
          .join(),
      ),
    ),
    'base weights': await folderDigest(model.folder),
    'starting parameters': await startsDigest([...starts.values(), ...references.values()]),
  };
}

const short = (hash: Hash) => hash.digest('hex').slice(0, 12);

function digest(add: (hash: Hash) => void): string {
  const hash = createHash('sha256');
  add(hash);
  return short(hash);
}

function addProblems(hash: Hash, { task, config }: Trainer): void {
  const count = Math.min(PROBLEMS, config.steps * config.rollout.promptsPerStep);
  for (let i = 0; i < count; i++) hash.update(JSON.stringify(task.train(config.seed, i)));
  hash.update(JSON.stringify(task.evaluation(config.evaluation.problems)));
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
