/** Run directories that a command line means. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { isRun, readRunConfig } from './run-directory.js';

/**
 * Each folder that is a run, and for each that is a study the runs of its cells, by name. Throws a TroupeError for
 * any other.
 */
export function findRuns(folders: readonly string[]): string[] {
  return folders.flatMap((folder) => {
    const cells = join(folder, 'runs');
    if (isRun(folder) || !existsSync(cells)) {
      readRunConfig(folder);
      return [folder];
    }
    const found = readdirSync(cells).sort();
    return found.map((cell) => join(cells, cell)).filter(isRun);
  });
}
