/** Files of one JSON value a line. */
import type { z } from 'zod';
import { checkSection } from './check.js';
import { jsonOf, readText } from './json.js';

/**
 * Every line of `file`, checked. Empty lines are skipped. `whole`: what a line is called in errors. Throws a
 * TroupeError that names file and line.
 */
export function readJsonLines<S extends z.ZodType>(
  file: string,
  schema: S,
  { whole = 'the line' }: { whole?: string } = {},
): z.output<S>[] {
  return readText(file)
    .split('\n')
    .flatMap((line, i) => {
      if (line.trim() === '') return [];
      const where = `${file}:${i + 1}`;
      return [checkSection(schema, jsonOf(line, where), { whole, locate: () => where })];
    });
}
