/** Fails if the docs name or link what is not there, or follow a call through functions that its files do not have. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, it } from 'vitest';
import { checkChanges } from '../../src/config/changes.js';
import { packageRoot } from '../../src/config/package.js';
import { runSchema } from '../../src/config/schema.js';
import { sectionKeys } from '../config/key-tables.js';

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

/** As GitHub makes them of headings. */
const anchors = (page: string) =>
  [...read(page).matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  );

it('links lead to pages and headings that are there', () => {
  const pages = readdirSync(join(packageRoot(), 'docs'), { recursive: true, encoding: 'utf8' });
  const links = ['README.md', 'bench/README.md', ...pages.map((name) => `docs/${name}`)]
    .filter((page) => page.endsWith('.md'))
    .flatMap((page) =>
      [...read(page).matchAll(/\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)/g)].map(
        ([link, path = '', anchor]) => {
          const to = path === '' ? page : join(dirname(page), path);
          return { page, link, to, anchor };
        },
      ),
    );
  expect(links.length).toBeGreaterThan(100);
  const dangling = links.filter(
    ({ to, anchor }) =>
      !existsSync(join(packageRoot(), to)) || (anchor !== undefined && !anchors(to).includes(anchor)),
  );
  expect(dangling).toEqual([]);
});

it('the way from prompt to parameters goes through functions that are there', () => {
  const rows = [...read('docs/from-prompt-to-parameters.md').matchAll(/^\| (\d+) \| `([^`]+)` `(\w+)` \|/gm)];
  expect(rows.map(([, number]) => Number(number))).toEqual(rows.map((_, i) => i + 1));
  expect(rows.length).toBe(17);
  const missing = rows.filter(([, , path = '', name]) => !new RegExp(`\\b${name}\\b`).test(read(path)));
  expect(missing.map(([, , path, name]) => `${path}: ${name}`)).toEqual([]);
});

it('what may change of a run is what docs/changing-a-run.md says', () => {
  const mayChange = (key: string) => {
    try {
      checkChanges([{ key, from: 1, to: 2 }], 'run');
      return true;
    } catch {
      return false;
    }
  };
  const [, table = ''] = read('docs/changing-a-run.md').match(/## What may change\n(.*?)\n## /s) ?? [];
  const cells = [...table.matchAll(/^\| (`.*?) \|/gm)].map(([, cell = '']) => cell);
  const named = cells.flatMap((cell) => [...cell.matchAll(/`([\w.]+)`/g)].map(([, key = '']) => key));
  const known = sectionKeys(runSchema).map(({ key }) => key);
  const inSchema = (key: string) => known.includes(key) || key.startsWith('policies.overrides.');
  expect(named.filter((key) => !inSchema(key) || !mayChange(key))).toEqual([]);
  const sectionOf = (key: string) => key.split('.').slice(0, -1).join('.');
  const sections = [...new Set(named.map(sectionOf))].filter((section) => section !== '');
  const isNamed = (key: string) =>
    named.includes(key) || sections.some((section) => key.startsWith(`${section}.`));
  expect(known.filter((key) => mayChange(key) && !isNamed(key))).toEqual([]);
  const [refused] = ['learning.loss.clipHigh', 'seed', 'model.path'].filter(mayChange);
  expect(refused).toBeUndefined();
});
