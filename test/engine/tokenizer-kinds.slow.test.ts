/** All texts and kinds of test/golden/tokenizer_kinds.py, asked of the Rust library now. */
import { spawnSync } from 'node:child_process';
import { beforeEach, expect, it } from 'vitest';
import { golden } from '../cli/troupe.js';
import { needs, pythonPath } from '../needs.js';
import { agrees, type Kinds, open } from './kinds.js';

beforeEach(needs('tokenizers'));

function asked(script: string, ...args: string[]): Kinds {
  const options = { encoding: 'utf8', maxBuffer: 2 ** 28 } as const;
  const { stdout, stderr } = spawnSync(pythonPath, [golden(script), ...args], options);
  expect(stdout, stderr).not.toBe('');
  return JSON.parse(stdout) as Kinds;
}

it('332 texts of every kind', () => {
  const all = asked('tokenizer_kinds.py', 'all');
  expect(all.texts).toHaveLength(332);
  expect(Object.keys(all.kinds).length).toBeGreaterThan(30);
  for (const name of Object.keys(all.kinds)) agrees(all, name);
});

it.each([1, 2, 3, 4])('60 random texts of 60 tokenizers put together by chance, %i', (seed) => {
  const all = asked('tokenizer_chance.py', `${seed}`, '60', '60');
  const names = Object.keys(all.kinds);
  const read = names.filter((name) => {
    try {
      return open(all.kinds[name]);
    } catch (error) {
      expect(String(error)).toMatch(/Metaspace with prepend_scheme "first"/);
      return false;
    }
  });
  expect(read.length).toBeGreaterThan(50);
  for (const name of read) agrees(all, name);
});
