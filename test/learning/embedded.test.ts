/** The embedded models: before reinforcement every workflow solves 20 to 60 % of the default run's held-out problems. */
import { spawnSync } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const main = fileURLToPath(new URL('../../build/js/cli/main.js', import.meta.url));
const models = fileURLToPath(new URL('../../models', import.meta.url));

for (const model of readdirSync(models)) {
  for (const workflow of ['single', 'voting', 'eval-opt', 'orch-workers']) {
    it(`${model}, ${workflow}`, () => {
      const settings = [`model.path=${model}`, `workflow.name=${workflow}`, 'evaluation.problems=250'];
      const args = settings.flatMap((setting) => ['--set', setting]);
      const { stdout, stderr, status } = spawnSync('node', [main, 'eval', ...args, '--json'], {
        encoding: 'utf8',
      });
      expect(status, stderr).toBe(0);
      const { mean, total } = JSON.parse(stdout) as { mean: number; total: number };
      expect(total).toBe(250);
      expect(mean).toBeGreaterThanOrEqual(0.2);
      expect(mean).toBeLessThanOrEqual(0.6);
    });
  }
}

it('are 12 MB together at most', () => {
  const folders = readdirSync(models).map((name) => join(models, name));
  const files = folders.flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)));
  expect(files.reduce((sum, file) => sum + statSync(file).size, 0)).toBeLessThan(12e6);
});
