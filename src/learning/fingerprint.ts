/** What ranks of one run have to have in common, as digests that they compare at the start. */
import { createHash, type Hash } from 'node:crypto';
import { createReadStream, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { printConfig } from '../config/print.js';
import { userFiles } from '../config/user-code.js';
import { describeEnvironment } from '../runs/environment.js';
import type { Trainer } from './trainer.js';

/** Training problems that are compared at most, from the run's first on. */
const PROBLEMS = 20_000;

/**
 * Twelve digits of SHA-256 each: of the resolved configuration without where the run is kept, of Troupe's version and
 * libtorch's, of the problems (the run's, at most 20,000, and those that evaluate), of the users' files, of the model's
 * folder.
 */
export async function fingerprint(trainer: Trainer): Promise<Record<string, string>> {
  const { config, engine, model } = trainer;
  const { troupe, commit, libtorch } = describeEnvironment(await engine.send('describe', null));
  const { run: _, ...compared } = config;
  return {
    configuration: digest((hash) =>
      hash.update(printConfig({ ...compared, run: { ...config.run, folder: '' } })),
    ),
    version: [troupe, commit, libtorch].filter((part) => part !== null).join(' '),
    data: digest((hash) => addProblems(hash, trainer)),
    'own files': digest((hash) => {
      for (const file of userFiles()) hash.update(readFileSync(file));
    }),
    'base weights': await folderDigest(model.folder),
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
  const hash = createHash('sha256');
  const isPart = (name: string) => /\.(safetensors|json|jinja|gguf)$/.test(name);
  for (const name of readdirSync(folder).filter(isPart).sort()) {
    hash.update(`${name}\0`);
    await pipeline(createReadStream(join(folder, name), { highWaterMark: 2 ** 20 }), hash, { end: false });
  }
  return short(hash);
}
