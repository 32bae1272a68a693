/** Fails if a folder of src imports from one that comes after it: then the order no longer says where things are. */
import { readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { expect, test } from 'vitest';
import { packageRoot } from '../../src/config/package.js';

const ORDER = [
  'config',
  'engine',
  'tasks',
  'policies',
  'workflows',
  'rollout',
  'gradients',
  'streams',
  'judgement',
  'runs',
  'learning',
  'report',
  'cli',
];

const source = join(packageRoot(), 'src');

test('a folder imports only from itself and those before it', () => {
  const wrong: string[] = [];
  let imports = 0;
  for (const folder of readdirSync(source, { withFileTypes: true }).filter((entry) => entry.isDirectory())) {
    expect(ORDER, `src/${folder.name} has no place in the order`).toContain(folder.name);
    const files = readdirSync(join(source, folder.name), { recursive: true, encoding: 'utf8' });
    for (const file of files.filter((name) => name.endsWith('.ts'))) {
      const text = readFileSync(join(source, folder.name, file), 'utf8');
      for (const [, other = ''] of text.matchAll(/from '(?:\.\.\/)+(\w+)\/[^']*'/g)) {
        if (!ORDER.includes(other)) continue;
        imports++;
        if (ORDER.indexOf(other) > ORDER.indexOf(folder.name))
          wrong.push(`${folder.name}/${file} imports from ${other}`);
      }
    }
  }
  expect(imports).toBeGreaterThan(20);
  expect(wrong).toEqual([]);
});

/** Files that a file imports, types included. */
function importsOf(file: string): string[] {
  const text = readFileSync(file, 'utf8');
  return [...text.matchAll(/^(?:import|export) [^;]*?from '(\.[^']*)';/gm)].map(([, path = '']) =>
    join(dirname(file), path).replace(/\.js$/, '.ts'),
  );
}

test('no file imports itself by way of others', () => {
  const files = readdirSync(source, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(source, name));
  const finished = new Set<string>();
  const circles: string[] = [];
  const visit = (file: string, above: readonly string[]) => {
    if (above.includes(file)) {
      const circle = [...above.slice(above.indexOf(file)), file];
      circles.push(circle.map((one) => relative(source, one)).join(' → '));
    }
    if (finished.has(file) || above.includes(file) || !files.includes(file)) return;
    for (const other of importsOf(file)) visit(other, [...above, file]);
    finished.add(file);
  };
  for (const file of files) visit(file, []);
  expect(finished.size).toBe(files.length);
  expect(circles).toEqual([]);
});

test('no two modules have names that differ by an s', () => {
  const names = readdirSync(source, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => basename(name, '.ts'));
  const all = new Set(names);
  expect(all.size).toBeGreaterThan(200);
  expect([...all].filter((name) => all.has(`${name}s`))).toEqual([]);
});
