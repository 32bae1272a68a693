/** Files of one JSON value a line. */
import { readFileSync } from 'node:fs';
import type { z } from 'zod';
import { checkSection } from './check.js';
import { TroupeError } from './errors.js';

/**
 * Every line of `file`, checked. Empty lines are skipped. `whole`: what a line is called in errors. Throws a
 * TroupeError that names file and line.
 */
export function readJsonLines<S extends z.ZodType>(
  file: string,
  schema: S,
  { whole = 'the line' }: { whole?: string } = {},
): z.output<S>[] {
  return textOf(file)
    .split('\n')
    .flatMap((line, i) => {
      if (line.trim() === '') return [];
      const where = `${file}:${i + 1}`;
      return [checkSection(schema, parse(line, where), { whole, locate: () => where })];
    });
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new TroupeError(`cannot be read: ${(cause as Error).message}.`, { where: file, cause });
  }
}

function parse(line: string, where: string): unknown {
  try {
    return JSON.parse(line);
  } catch (cause) {
    throw new TroupeError(`is no JSON: ${(cause as Error).message}.`, { where, cause });
  }
}
