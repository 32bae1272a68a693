/** The tests of kernels once more, with wrong arguments before each call: no process may die of them. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { packageRoot } from '../../src/config/package.js';

const vitest = join(packageRoot(), 'node_modules', 'vitest', 'vitest.mjs');

describe.each(['adapted-linear', 'attention', 'elementwise', 'logprobs', 'observer', 'rollout'])(
  '%s',
  (file) => {
    test('wrong arguments end no process', () => {
      const { stdout, stderr } = spawnSync(
        process.execPath,
        [vitest, 'run', '--project', 'fast', `test/kernels/${file}.test.ts`, '--testTimeout', '1000000'],
        {
          cwd: packageRoot(),
          encoding: 'utf8',
          env: { ...process.env, TROUPE_WRONG_ARGUMENTS: '1', OMP_NUM_THREADS: '1' },
        },
      );
      // Tests that count errors or tensors may fail of it; a crash is reported so.
      expect(`${stdout}\n${stderr}`).not.toMatch(/exited unexpectedly|Segmentation/);
      expect(stdout).toMatch(/Tests .*passed/);
    });
  },
);
