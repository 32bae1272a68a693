/**
 * What a configuration begins with where it names no model, or an embedded one: prompts that such a model was
 * taught, answers as long as it writes, and a rate that suits its size. The schema has the values for pretrained models.
 */
import { existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { findPath, packageRoot } from './package.js';
import type { RunInput } from './schema.js';

export const EMBEDDED_DEFAULTS = {
  workflow: { prompts: 'small' },
  policies: { defaults: { learningRate: 4e-4 } },
  rollout: { sampling: { maxTokens: 8 } },
} satisfies RunInput;

/** Whether a model's path or name is that of an embedded model. */
export function isEmbedded(path: string): boolean {
  const models = join(packageRoot(), 'models');
  const found = findPath(path);
  if (existsSync(found)) return dirname(found) === models;
  return basename(path) === path && existsSync(join(models, path, 'config.json'));
}
