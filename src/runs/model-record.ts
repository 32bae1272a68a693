/**
 * model.json: digests of the files of the model that a run trains. An adapter is nothing without the model that it was
 * trained on, and a folder of the same name may hold another one a month later.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { checkSection } from '../config/check.js';
import { TroupeError } from '../config/errors.js';
import { writeFileWhole } from '../config/files.js';
import { readJson } from '../config/json.js';
import { isMissed, modelDigests } from '../engine/model-digests.js';

const schema = z.record(z.string(), z.string());

const recordOf = (run: string) => join(run, 'model.json');

/** What model.json says of the run's model; undefined: nothing was written down. Throws a TroupeError if it is damaged. */
function readModelRecord(run: string): Record<string, string> | undefined {
  const file = recordOf(run);
  if (!existsSync(file)) return undefined;
  return checkSection(schema, readJson(file), { whole: 'the record', locate: () => file });
}

/** One SHA-256, hexadecimal, of all that model.json says; undefined where there is none. */
export function modelDigest(run: string): string | undefined {
  const record = readModelRecord(run);
  return record && createHash('sha256').update(JSON.stringify(record)).digest('hex');
}

/** Names of the files in which the folder `model` differs from what the run had. None: it is the same, or none was written down. */
function filesThatDiffer(run: string, now: Record<string, string>): string[] {
  const before = readModelRecord(run);
  if (before === undefined) return [];
  // Early records have whatever JSON and safetensors lay in the folder.
  const missing = Object.keys(before).filter((name) => now[name] === undefined && isMissed(name));
  return [...missing, ...Object.keys(now).filter((name) => before[name] !== now[name])];
}

/** Throws a TroupeError where the folder `model` holds another model than the run had. */
export async function checkModel(run: string, model: string): Promise<void> {
  const differ = filesThatDiffer(run, await modelDigests(model));
  if (differ.length === 0) return;
  throw new TroupeError(`the model is another one than when the run began: ${differ.join(', ')}.`, {
    where: model,
    hint:
      'Put back what was there, name where it lies by --set model.path=FOLDER (of the hub: OWNER/NAME@REVISION), or ' +
      'start a new run.',
  });
}

/** Writes the record of a run on the model's folder. `goesOn`: the run has steps behind it; then it is checked before. */
export async function keepModel(run: string, model: string, goesOn: boolean): Promise<void> {
  if (goesOn) await checkModel(run, model);
  writeFileWhole(recordOf(run), `${JSON.stringify(await modelDigests(model), undefined, 2)}\n`);
}

/** Says where policies of the run are about to be laid on another model than they were trained on. */
export async function warnOfOtherModel(
  run: string,
  model: string,
  warn: (message: string) => void,
): Promise<void> {
  if (existsSync(recordOf(run)))
    warnOfOtherDigests(run, { folder: model, digests: await modelDigests(model) }, warn);
}

/** The same where the model's digests are known. */
export function warnOfOtherDigests(
  run: string,
  { folder, digests }: { folder: string; digests: Record<string, string> },
  warn: (message: string) => void,
): void {
  const differ = filesThatDiffer(run, digests);
  if (differ.length > 0) warn(`${folder} is another model than ${run} was trained on: ${differ.join(', ')}`);
}
