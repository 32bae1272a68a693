/**
 * The losses of this program by name, and a user's by file. A loss is a file of its own whose default export is
 * a `LossFunction` (engine/loss.ts); the engine worker imports it, so only its path and options travel.
 */
import { readdirSync } from 'node:fs';
import { basename, dirname, extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { unknownName } from '../config/nearest.js';
import { findPath } from '../config/package.js';
import type { LossConfig } from '../config/schema.js';

/** As in `TrainRequest.loss`. */
export interface LossRequest {
  module: string;
  options: Record<string, unknown>;
}

const OWN_FILE = fileURLToPath(import.meta.url);
const FOLDER = join(dirname(OWN_FILE), 'losses');

/** The loss that `learning.loss` names, with the whole entry as its options. */
export function openLoss(config: LossConfig): LossRequest {
  if (config.module !== undefined) return { module: findPath(config.module), options: { ...config } };
  return builtInLoss(config.name, { ...config });
}

/** One of this program's losses. Throws a TroupeError for an unknown name. */
export function builtInLoss(name: string, options: Record<string, unknown> = {}): LossRequest {
  const names = lossNames();
  if (!names.includes(name)) throw unknownName('loss', name, names, 'learning.loss.name');
  return { module: join(FOLDER, `${name}${extname(OWN_FILE)}`), options };
}

/** Names of this program's losses: the files in losses/, which are TypeScript in the sources and JavaScript when built. */
export function lossNames(): string[] {
  return readdirSync(FOLDER)
    .filter((file) => extname(file) === extname(OWN_FILE) && !file.endsWith('.d.ts'))
    .map((file) => basename(file, extname(file)))
    .sort();
}
