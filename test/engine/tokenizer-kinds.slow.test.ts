/** All texts and kinds of test/golden/tokenizer_kinds.py, asked of the Rust library now. */
import { spawnSync } from 'node:child_process';
import { beforeEach, expect, it } from 'vitest';
import { golden } from '../cli/troupe.js';
import { needs, pythonPath } from '../needs.js';
import { agrees, type Kinds } from './kinds.js';

beforeEach(needs('tokenizers'));

it('332 texts of every kind', () => {
  const options = { encoding: 'utf8', maxBuffer: 2 ** 28 } as const;
  const { stdout, stderr } = spawnSync(pythonPath, [golden('tokenizer_kinds.py'), 'all'], options);
  expect(stdout, stderr).not.toBe('');
  const all = JSON.parse(stdout) as Kinds;
  expect(all.texts).toHaveLength(332);
  expect(Object.keys(all.kinds).length).toBeGreaterThan(30);
  for (const name of Object.keys(all.kinds)) agrees(all, name);
});
