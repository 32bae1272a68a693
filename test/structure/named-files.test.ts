/** Fails if a comment sends its reader to a file that there is no more. */
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { expect, test } from 'vitest';
import { packageRoot } from '../../src/config/package.js';

const FOLDERS = ['src', 'native', 'test', 'bench', 'scripts', 'bin', 'configs'];
/** Of the system and other projects, and a name that stands for any. */
const ELSEWHERE = new Set(['ggml-common.h', 'filter.h', 'seccomp.h', 'audit.h', 'torch.h', 'other.ts']);

const files = FOLDERS.flatMap((folder) =>
  readdirSync(join(packageRoot(), folder), { recursive: true, encoding: 'utf8' }).map(
    (name) => `${folder}/${name}`,
  ),
);
const names = new Set(files.map((file) => basename(file)));

test('files that comments name are there', () => {
  const dangling: string[] = [];
  let named = 0;
  for (const file of files.filter((one) => /^(?:src|native)\/.*\.(?:ts|mjs|cc|cu|cuh|h)$/.test(one))) {
    for (const line of readFileSync(join(packageRoot(), file), 'utf8').split('\n')) {
      if (!/^\s*(?:\/?\*|\/\/)/.test(line)) continue;
      for (const [, name = ''] of line.matchAll(/(?<![\w.])([\w-]+(?:\.[\w-]+)*\.(?:ts|mjs|cc|cuh?|h))\b/g)) {
        named++;
        if (!names.has(name) && !ELSEWHERE.has(name)) dangling.push(`${file}: ${name}`);
      }
    }
  }
  expect(named).toBeGreaterThan(100);
  expect(dangling).toEqual([]);
});
