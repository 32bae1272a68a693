/** What docs/numerics.md says of the number of threads: whose bits follow from it, and whose do not. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { needs } from '../needs.js';

const child = fileURLToPath(new URL('threads-child.mjs', import.meta.url));

function withThreads(threads: number): Record<string, Record<string, string>> {
  const env = { ...process.env, OMP_NUM_THREADS: `${threads}` };
  const { stdout, stderr } = spawnSync('node', [child], { encoding: 'utf8', env });
  expect(stdout, stderr).not.toBe('');
  return JSON.parse(stdout);
}

it('changes dH of the output projection, and dK and dV of grouped heads with few trees, and nothing else', (context) => {
  needs('processor kernels')(context);
  const [one, two] = [withThreads(1), withThreads(2)];
  const differing = Object.entries(one).flatMap(([name, values]) =>
    Object.keys(values)
      .filter((part) => values[part] !== two[name]?.[part])
      .map((part) => `${name}.${part}`),
  );
  expect(differing).toEqual(['fewTrees.k', 'fewTrees.v', 'lossHead.dH']);
});
