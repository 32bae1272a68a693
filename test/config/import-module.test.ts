/** Fails if a user's TypeScript does not load in plain Node, or if a wrong file gives no clear error. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { importUserModule } from '../../src/config/import-module.js';
import { packageRoot } from '../../src/config/package.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'troupe-module-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const wanted = {
  what: 'reward',
  takes: 'a function of a call',
  is: (value: unknown): value is () => number => typeof value === 'function',
};

function write(name: string, text: string): string {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
}

/** In a Node without vitest's own TypeScript: what a user runs. */
function importInNode(file: string): string {
  const hooks = pathToFileURL(join(packageRoot(), 'src/config/typescript-hooks.mjs')).href;
  const code = `import { register } from 'node:module'; register('${hooks}');
    console.log(String((await import('${pathToFileURL(file).href}')).default(2)));`;
  return execFileSync(process.execPath, ['--input-type=module', '-e', code], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  }).trim();
}

test('TypeScript with types, and a .js import of a .ts file, run in plain Node', () => {
  write('helper.ts', 'export const double = (x: number): number => 2 * x;');
  const file = write(
    'user.ts',
    "import { double } from './helper.js';\nexport default (x: number): number => double(x) + 1;",
  );
  expect(importInNode(file)).toBe('5');
});

test("'troupe' and 'zod' are found from anywhere", () => {
  for (const name of ['exports.ts', 'exports.mjs']) {
    const file = write(
      name,
      "import { Tensor } from 'troupe';\nimport { z } from 'zod';\n" +
        'export default () => [typeof Tensor.where, z.int().parse(3)];',
    );
    expect(importInNode(file)).toBe('function,3');
  }
});

test('a syntax error names file and line', () => {
  const file = write('broken.ts', 'export default 1;\nconst x: = 2;\n');
  expect(() => importInNode(file)).toThrow(/broken\.ts:2: /);
});

test('the default export arrives', async () => {
  const reward = await importUserModule(write('reward.ts', 'export default (): number => 3;'), wanted);
  expect(reward()).toBe(3);
});

test('another shape, a missing file, a file that throws', async () => {
  const shape = importUserModule(write('shape.mjs', 'export const reward = () => 3;'), wanted);
  await expect(shape).rejects.toThrow(
    /shape\.mjs: has to export a function of a call as default; it exports reward/,
  );
  const other = importUserModule(write('other.mjs', 'export default { run: 3 };'), wanted);
  await expect(other).rejects.toThrow(
    /other\.mjs: has to export a function of a call as default; that is { run: 3 }\./,
  );
  await expect(importUserModule(join(folder, 'none.ts'), wanted)).rejects.toThrow(/none\.ts: no such file/);
  const throwing = importUserModule(write('throws.mjs', "throw new Error('no luck');"), wanted);
  await expect(throwing).rejects.toThrow(/throws\.mjs:1: the reward module does not load: no luck/);
});
