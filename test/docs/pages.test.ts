/** Fails if the docs name a file that is not there, or follow a call through functions that its files do not have. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { packageRoot } from '../../src/config/package.js';

const read = (path: string) => readFileSync(join(packageRoot(), path), 'utf8');

it('files that a page names are there', () => {
  const pages = ['README.md', ...readdirSync(join(packageRoot(), 'docs')).map((name) => `docs/${name}`)];
  const named = pages
    .filter((page) => page.endsWith('.md'))
    .flatMap((page) =>
      [...read(page).matchAll(/\b(?:src|native)\/[\w/.-]+\.(?:ts|mjs|cc|cu|h|py)\b/g)].map(([path]) => ({
        page,
        path,
      })),
    );
  expect(named.length).toBeGreaterThan(30);
  expect(named.filter(({ path }) => !existsSync(join(packageRoot(), path)))).toEqual([]);
});

it('the way from prompt to parameters goes through functions that are there', () => {
  const rows = [...read('docs/from-prompt-to-parameters.md').matchAll(/^\| (\d+) \| `([^`]+)` `(\w+)` \|/gm)];
  expect(rows.map(([, number]) => Number(number))).toEqual(rows.map((_, i) => i + 1));
  expect(rows.length).toBe(16);
  const missing = rows.filter(([, , path = '', name]) => !new RegExp(`\\b${name}\\b`).test(read(path)));
  expect(missing.map(([, , path, name]) => `${path}: ${name}`)).toEqual([]);
});
